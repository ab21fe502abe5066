//! Servers and clients of this crate against each other and against raw sockets, over loopback.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod aborts;
mod answers;
mod bodies;
mod direct;
mod early;
mod http1;
mod limits;
mod pool;
mod races;
mod shutdown;
mod support;
mod upgrades;
