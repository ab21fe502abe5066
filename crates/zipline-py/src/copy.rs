//! Copies between buffers while other Python threads run.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Below this length, letting other threads in costs more than the copy.
const ALONE_MOST: usize = 64 * 1024;

/// Copies `source` into `target`; both are contiguous bytes of the same length and do not overlap.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "both buffers are ours until the copy is done")]
pub(crate) fn copy(py: Python<'_>, target: PyBuffer<u8>, source: PyBuffer<u8>) -> PyResult<()> {
    let length = source.len_bytes();
    if target.readonly() || !target.is_c_contiguous() || !source.is_c_contiguous() {
        return Err(PyValueError::new_err("a copy takes contiguous bytes and a writable target"));
    }
    if target.len_bytes() != length {
        let message = format!("a copy of {length} bytes does not fit a target of {}", target.len_bytes());
        return Err(PyValueError::new_err(message));
    }
    let to = Address(target.buf_ptr().cast());
    let from = Address(source.buf_ptr().cast());
    if from.0.addr().abs_diff(to.0.addr()) < length {
        return Err(PyValueError::new_err("source and target of a copy overlap"));
    }
    if length <= ALONE_MOST {
        transfer(to, from, length);
    } else {
        py.detach(move || transfer(to, from, length));
    }
    Ok(())
}

/// An address within a buffer that is held for as long as the copy runs.
#[derive(Clone, Copy)]
struct Address(*mut u8);

#[expect(unsafe_code, reason = "the buffer protocol hands out addresses")]
// SAFETY: an address alone does nothing; `transfer` says what its use demands.
unsafe impl Send for Address {}

#[expect(unsafe_code, reason = "the buffer protocol hands out addresses")]
fn transfer(to: Address, from: Address, length: usize) {
    // SAFETY: `copy` holds both buffers, so that their exporters neither move nor free them; both are contiguous and
    // `length` bytes long, the target is writable, and they do not overlap. Python code may write either meanwhile, as it
    // may during any copy between buffers: the bytes have no validity to break.
    unsafe { std::ptr::copy_nonoverlapping(from.0, to.0, length) }
}
