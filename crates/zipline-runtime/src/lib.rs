//! What every Zipline process needs around its work: an owner for its tasks ([`Tasks`]), signals ([`signal`]), logs
//! ([`logs`]), a metrics registry ([`Metrics`]), its limits ([`limits`], [`cgroup`]) and protection of its memory
//! ([`harden`]).
//!
//! Nothing here knows payloads, HTTP or configuration.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod harden;
pub mod limits;
pub mod logs;
mod metrics;
pub mod signal;
mod supervised;
mod tasks;

pub use metrics::Metrics;
pub use tasks::{AbortOnDrop, Task, TaskEnded, Tasks};
