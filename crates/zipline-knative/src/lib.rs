//! The Knative contract as data: what Knative Serving tells its queue-proxy, and the exact words it expects back.
//!
//! Layer 1: no I/O, no clock, no async. Time is an argument, the environment is a map, files are text. The Rust names here
//! are the only place where Knative's own names are spelled; every other crate takes them from here.
//!
//! The truth behind every fact is the Go module `knative.dev/serving` v0.50.0 with the `knative.dev/pkg` and
//! `knative.dev/networking` it was built with; "Source" lines name the package inside it (`PKG` and `NET` for the latter
//! two).
#![forbid(unsafe_code)]

pub mod contract;
pub mod environment;
mod go;
pub mod logging;
pub mod metrics;
pub mod observability;
pub mod podinfo;
pub mod probe;
pub mod prometheus;
pub mod replies;
pub mod request_log;
pub mod route_tag;
pub mod stat;
pub mod tls;

#[cfg(test)]
mod vectors;

pub use environment::{Environment, EnvironmentError};
pub use observability::Observability;
pub use podinfo::PodSettings;
pub use probe::Probe;
pub use stat::{Reporter, Stat};
