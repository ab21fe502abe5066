//! The queue-proxy: one process beside every function instance.
//!
//! Its doors are the *inbound* side (requests to the function), the *local API* and the *forward proxy* (what the
//! function asks of Zipline), the *data port* (what other queue-proxies retrieve from) and the *admin* port. What the
//! doors have in common stands in [`state::Shared`].

#![forbid(unsafe_code)]

pub mod breaker;
pub mod capability;
pub mod config;
pub mod edges;
pub mod metrics;
pub mod readiness;
pub mod state;
