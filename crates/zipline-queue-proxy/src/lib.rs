//! The queue-proxy: one process beside every function instance.
//!
//! Its doors are the *inbound* side (requests to the function), the *local API* and the *forward proxy* (what the
//! function asks of Zipline), the *data port* (what other queue-proxies retrieve from) and the *admin* port. What the
//! doors have in common stands in [`state::Shared`]; [`server::Server`] binds all of them and then runs them. In a Knative
//! pod [`knative::KnativeServer`] does, with the ports, probes, limits and shutdown of Knative's own queue-proxy.

#![forbid(unsafe_code)]

pub mod admin;
mod api;
pub mod breaker;
pub mod capability;
pub mod config;
pub mod control;
mod cut;
pub mod edges;
mod failure;
mod forward;
pub mod guidance;
mod headers;
mod hold;
pub mod inbound;
pub mod keys;
pub mod knative;
pub mod local;
mod local_body;
pub mod metrics;
pub mod outbound;
mod peek;
mod pour;
pub mod process;
pub mod readiness;
mod retrieve;
mod sdk;
pub mod server;
pub mod state;
pub mod telemetry;
mod upgrade;
mod watched;
