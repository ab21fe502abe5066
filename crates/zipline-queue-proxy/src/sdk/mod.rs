//! The SDK's socket (`docs/protocol.md` section 8).
//!
//! The Unix socket of the local API serves both: a connection whose first byte is zero speaks to an SDK, any other HTTP.
//! Each SDK connection is one task: it reads frames, runs what they ask for as futures of its own, and writes the answers,
//! so that no answer waits for another task. What a connection may hold is bounded; all of it is given back when it ends.

mod connection;
mod door;
mod get;
mod issue;
mod memory;
mod put;
mod segments;
mod wire;

pub(crate) use door::serve;
