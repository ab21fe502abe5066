//! Objects that export memory to Python.
//!
//! A view on either object keeps that object alive, and the object keeps its memory: so memory lives exactly as long as the
//! last view on it.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

/// Payloads start at multiples of this.
const ALIGNMENT: usize = 64;

/// Payloads up to this length may come within a message, wherever they lie there.
const MESSAGE_MOST: usize = 64 * 1024;

/// Bytes at a fixed address, which the object that has this keeps in place.
#[derive(Debug)]
pub(crate) struct Span {
    address: usize,
    length: usize,
}

impl Span {
    pub(crate) fn of(bytes: &mut [u8]) -> Self {
        Self { address: bytes.as_mut_ptr().expose_provenance(), length: bytes.len() }
    }

    fn of_read_only(bytes: &[u8]) -> Self {
        Self { address: bytes.as_ptr().expose_provenance(), length: bytes.len() }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Fills in `view`, which keeps `exporter` alive. The exporter keeps the bytes where they are for as long as it lives.
    #[expect(unsafe_code, reason = "the buffer protocol is C")]
    pub(crate) fn export(
        &self,
        exporter: &Bound<'_, PyAny>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
        read_only: bool,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill in"));
        }
        let start: *mut c_void = std::ptr::with_exposed_provenance_mut(self.address);
        let length =
            ffi::Py_ssize_t::try_from(self.length).expect("no memory is longer than an address reaches");
        // SAFETY: `view` is not null and the interpreter's, to be filled in; `start..start + length` stays mapped as long as
        // `exporter` lives, of which the filled view holds a reference; writing is only offered where the caller says so, which
        // has a `Span` of writable bytes then.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, exporter.as_ptr(), start, length, c_int::from(read_only), flags)
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(exporter.py())) }
    }
}

/// Who keeps the bytes where they are.
#[derive(Debug)]
enum Owner {
    /// Any Python object with the buffer protocol, held until this is dropped.
    Python { _export: PyUntypedBuffer },
    /// Memory shared with the queue-proxy. Dropping it lets the queue-proxy use it again.
    Got { _payload: zipline_sdk::Payload },
    /// A small payload that came within a message.
    Small { _bytes: Vec<u8> },
}

/// Bytes and their owner.
#[derive(Debug)]
struct Memory {
    span: Span,
    _owner: Owner,
}

impl Memory {
    /// The bytes of `object` as they lie in memory, whatever their format.
    ///
    /// What is held is invisible to Python's garbage collector, on purpose: up to Python 3.11 it crashes on a cycle with a view
    /// that was exported again, and so it leaves such a view alone.
    fn of(object: &Bound<'_, PyAny>, writable: bool) -> PyResult<Self> {
        let export = PyUntypedBuffer::get(object)?;
        if !export.is_c_contiguous() && !export.is_fortran_contiguous() {
            return Err(PyValueError::new_err("the memory is not contiguous"));
        }
        if writable && export.readonly() {
            return Err(PyValueError::new_err("the memory cannot be written"));
        }
        let span = Span { address: export.buf_ptr().expose_provenance(), length: export.len_bytes() };
        Ok(Self { span, _owner: Owner::Python { _export: export } })
    }
}

impl Memory {
    /// A copy that starts where arrays like it.
    fn aligned(bytes: &[u8]) -> Self {
        let mut copy: Vec<u8> = Vec::with_capacity(bytes.len() + ALIGNMENT);
        let start = copy.as_ptr().addr().next_multiple_of(ALIGNMENT) - copy.as_ptr().addr();
        copy.resize(start, 0);
        copy.extend_from_slice(bytes);
        // Within its capacity, so it has not moved.
        let span = Span::of_read_only(&copy[start..]);
        Self { span, _owner: Owner::Small { _bytes: copy } }
    }
}

/// What a `get` brought: read-only bytes, without a copy.
///
/// Anything that takes the buffer protocol takes it: `memoryview(payload)`, `numpy.frombuffer(payload, dtype)`,
/// `bytes(payload)`. The memory lives as long as the payload or any view on it.
#[pyclass(frozen, weakref, module = "zipline_sdk")]
#[derive(Debug)]
pub(crate) struct Payload {
    memory: Memory,
    #[pyo3(get)]
    content_type: Option<String>,
}

impl Payload {
    /// A payload that the SDK got. Its bytes do not move with it.
    pub(crate) fn got(payload: zipline_sdk::Payload) -> Self {
        let content_type = payload.content_type().map(str::to_owned);
        if payload.len() <= MESSAGE_MOST && !payload.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Self { memory: Memory::aligned(&payload), content_type };
        }
        let span = Span::of_read_only(&payload);
        Self { memory: Memory { span, _owner: Owner::Got { _payload: payload } }, content_type }
    }
}

#[pymethods]
impl Payload {
    #[new]
    #[pyo3(signature = (memory, content_type=None))]
    fn new(memory: &Bound<'_, PyAny>, content_type: Option<String>) -> PyResult<Self> {
        Ok(Self { memory: Memory::of(memory, false)?, content_type })
    }

    /// A read-only memoryview on all bytes.
    #[getter]
    fn view<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(slf.as_any())
    }

    fn __len__(&self) -> usize {
        self.memory.span.len()
    }

    /// A copy of all bytes.
    fn __bytes__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyBytes>> {
        let view = PyBuffer::<u8>::get(slf.as_any())?;
        PyBytes::new_with(slf.py(), view.len_bytes(), |target| view.copy_to_slice(slf.py(), target))
    }

    fn __repr__(&self) -> String {
        let length = self.memory.span.len();
        match &self.content_type {
            Some(content_type) => format!("<zipline_sdk.Payload of {length} bytes, {content_type}>"),
            None => format!("<zipline_sdk.Payload of {length} bytes>"),
        }
    }

    #[expect(unsafe_code, reason = "the buffer protocol is C")]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        slf.get().memory.span.export(slf.as_any(), view, flags, true)
    }
}

/// Memory to write a payload into; `put` makes it one without a copy.
#[pyclass(frozen, subclass, weakref, module = "zipline_sdk")]
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Memory,
    /// Set once it is a payload: payloads do not change, so no further writable view is given out.
    sealed: AtomicBool,
}

#[pymethods]
impl Buffer {
    #[new]
    fn new(memory: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { memory: Memory::of(memory, true)?, sealed: AtomicBool::new(false) })
    }

    /// A memoryview on all bytes: writable until the buffer is a payload.
    #[getter]
    fn view<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(slf.as_any())
    }

    /// Whether it is a payload now.
    #[getter]
    fn sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Says that it is a payload now. Whether it was none before.
    fn _seal(&self) -> bool {
        !self.sealed.swap(true, Ordering::AcqRel)
    }

    fn __len__(&self) -> usize {
        self.memory.span.len()
    }

    #[expect(unsafe_code, reason = "the buffer protocol is C")]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let buffer = slf.get();
        buffer.memory.span.export(slf.as_any(), view, flags, buffer.sealed())
    }
}
