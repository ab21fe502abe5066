//! Errors of the SDK as exceptions of `zipline_sdk.errors`.

use pyo3::prelude::*;

/// The exception for an error: its code's class, with its message.
pub(crate) fn raised(py: Python<'_>, error: &zipline_sdk::Error) -> PyErr {
    let code = error.code().as_str();
    let made = py
        .import("zipline_sdk.errors")
        .and_then(|module| module.getattr("from_code"))
        .and_then(|from_code| from_code.call1((code, error.message())));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        // Out of memory, or the package is not whole: that is the error then.
        Err(error) => error,
    }
}
