//! The native part of the Python package `zipline_sdk`: memory that Python can look into without a copy.
//!
//! Thin on purpose: what can be said in Python is said there (`python/zipline_sdk`). Here are the objects that export a
//! buffer, which no class written in Python can do before its version 3.12, copies that let other threads run, and the way to the
//! queue-proxy's own socket, which is the Rust SDK's.

use pyo3::prelude::*;

mod call;
mod copy;
mod errors;
mod link;
mod many;
mod memory;
mod segment;

/// The module `zipline_sdk._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::copy::copy;
    #[pymodule_export]
    use super::link::Link;
    #[pymodule_export]
    use super::many::Many;
    #[pymodule_export]
    use super::memory::{Buffer, Payload};
    #[pymodule_export]
    use super::segment::Segment;
}
