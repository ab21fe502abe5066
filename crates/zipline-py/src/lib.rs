//! The native part of the Python package `zipline_sdk`: memory that Python can look into without a copy.
//!
//! Thin on purpose: what can be said in Python is said there (`python/zipline_sdk`). Here are the objects that export a
//! buffer, which no class written in Python can do before its version 3.12, and copies that let other threads run.

use pyo3::prelude::*;

mod copy;
mod memory;

/// The module `zipline_sdk._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::copy::copy;
    #[pymodule_export]
    use super::memory::{Buffer, Payload};
}
