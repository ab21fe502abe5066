//! The standalone engine: manifests, gateway, activation and instances, in one process.
//!
//! `zipline up` runs [`guard::run`] in an outer process, and [`Engine::bind`] and [`Engine::run`] in an inner one. Each
//! instance is a queue-proxy process and a function process, both started by the engine. [`activation`] alone decides
//! how many instances a function has.
#![forbid(unsafe_code)]

pub mod activation;
mod config;
mod context;
pub mod control;
mod engine;
mod error;
mod function;
mod gateway;
pub mod guard;
mod instance;
mod keys;
mod logs;
pub mod manifest;
mod metrics;
mod pool;
mod process;
mod state;

pub use config::{
    BUDGET_DEFAULT, EngineConfig, GRACE_DEFAULT, HELD_MAX_DEFAULT, InstanceUids, Programs,
    READY_TIMEOUT_DEFAULT,
};
pub use engine::{Engine, Summary};
pub use error::{CommandError, EngineError};
pub use instance::{Addresses, InstanceState};
pub use logs::{LogLine, LogStream};
pub use manifest::ServiceManifest;
pub use state::{Leftover, StateDir, StateError};
