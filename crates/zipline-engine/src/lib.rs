//! The standalone engine: manifests, gateway, activation and instances, in one process.
//!
//! `zipline up` runs [`guard::run`] in an outer process, and [`Engine::bind`] and [`Engine::run`] in an inner one. Each
//! instance is a queue-proxy process and a function process, both started by the engine. [`activation`] alone decides
//! how many instances a function has.
#![forbid(unsafe_code)]

mod config;
mod error;
pub mod guard;
pub mod manifest;
mod process;
mod state;

pub use config::{
    BUDGET_DEFAULT, EngineConfig, GRACE_DEFAULT, HELD_MAX_DEFAULT, InstanceUids, Programs,
    READY_TIMEOUT_DEFAULT,
};
pub use error::{CommandError, EngineError};
pub use manifest::ServiceManifest;
pub use state::{Leftover, StateDir, StateError};
