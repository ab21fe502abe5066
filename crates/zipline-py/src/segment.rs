//! Memory shared with the queue-proxy, as Python writes it.

use std::ffi::c_int;

use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use zipline_sdk::{Buffer, Hold};

use crate::memory::Span;

/// Writable memory that is about to be a payload. Views on it outlive its put: the memory is held until the last one is gone, and
/// not used for another payload before.
#[pyclass(frozen, module = "zipline_sdk._native")]
#[derive(Debug)]
pub(crate) struct Segment {
    span: Span,
    /// Gone once it was put.
    buffer: Mutex<Option<Buffer>>,
    _hold: Hold,
}

impl Segment {
    pub(crate) fn new(mut buffer: Buffer) -> Self {
        let hold = buffer.hold();
        // The buffer itself is not looked at again until it is put.
        let span = Span::of(&mut buffer);
        Self { span, buffer: Mutex::new(Some(buffer)), _hold: hold }
    }

    /// The buffer, to be put.
    pub(crate) fn take(&self) -> PyResult<Buffer> {
        let taken = self.buffer.lock().take();
        taken.ok_or_else(|| PyValueError::new_err("this memory was put already"))
    }
}

#[pymethods]
impl Segment {
    fn __len__(&self) -> usize {
        self.span.len()
    }

    #[expect(unsafe_code, reason = "the buffer protocol is C")]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        slf.get().span.export(slf.as_any(), view, flags, false)
    }
}
