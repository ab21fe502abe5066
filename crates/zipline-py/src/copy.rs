//! Copies of bytes that Python objects have, while other Python threads run.

use std::marker::PhantomData;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Below this length, letting other threads in costs more than the copy.
const ALONE_MOST: usize = 64 * 1024;

/// Copies `source` into `target`; both are contiguous bytes of the same length and do not overlap.
#[pyfunction]
pub(crate) fn copy(py: Python<'_>, target: &Bound<'_, PyAny>, source: &Bound<'_, PyAny>) -> PyResult<()> {
    let source = Bytes::of(source)?;
    let target = Bytes::of(target)?;
    if target.export.readonly() {
        return Err(PyValueError::new_err("the target of a copy cannot be written"));
    }
    if target.len() != source.len() {
        let message = format!("a copy of {} bytes does not fit a target of {}", source.len(), target.len());
        return Err(PyValueError::new_err(message));
    }
    let (from, to) = (source.start(), target.start());
    if from.addr().abs_diff(to.addr()) < source.len() {
        return Err(PyValueError::new_err("source and target of a copy overlap"));
    }
    if source.len() <= ALONE_MOST {
        source.copy_to(&target);
    } else {
        py.detach(|| source.copy_to(&target));
    }
    Ok(())
}

/// The bytes of a Python object, contiguous, held where they are. Python code may change them at any time, so they are never
/// looked at as a slice: only copied.
pub(crate) struct Bytes<'a> {
    export: PyUntypedBuffer,
    _object: PhantomData<&'a ()>,
}

impl<'a> Bytes<'a> {
    pub(crate) fn of(object: &Bound<'a, PyAny>) -> PyResult<Self> {
        let export = PyUntypedBuffer::get(object)?;
        if !export.is_c_contiguous() {
            return Err(PyValueError::new_err("the bytes to be copied are not contiguous"));
        }
        Ok(Self { export, _object: PhantomData })
    }

    pub(crate) fn len(&self) -> usize {
        self.export.len_bytes()
    }

    fn start(&self) -> *mut u8 {
        self.export.buf_ptr().cast()
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len()];
        self.copy_into(&mut copy);
        copy
    }

    /// Copies all bytes into `target`, which is as long.
    #[expect(unsafe_code, reason = "the buffer protocol hands out addresses")]
    pub(crate) fn copy_into(&self, target: &mut [u8]) {
        assert_eq!(target.len(), self.len(), "the caller made the target for these bytes");
        // SAFETY: the source is `len` contiguous bytes that the held export keeps in place; the target is as long and borrowed
        // by us alone, so they do not overlap. Python code may write the source meanwhile, as during any copy out of a
        // buffer: bytes have no validity to break.
        unsafe { std::ptr::copy_nonoverlapping(self.start().cast_const(), target.as_mut_ptr(), self.len()) }
    }

    /// Copies all bytes into those of `target`: writable, as long, and elsewhere.
    #[expect(unsafe_code, reason = "the buffer protocol hands out addresses")]
    fn copy_to(&self, target: &Bytes<'_>) {
        // SAFETY: `copy` checked that both are `len` bytes long, that the target is writable and that they do not overlap; both
        // exports are held. Python code may write either meanwhile, as above.
        unsafe { std::ptr::copy_nonoverlapping(self.start().cast_const(), target.start(), self.len()) }
    }
}
