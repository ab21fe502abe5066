//! Fakes, fault injection and process harnesses for Zipline's assembled tests.
//!
//! Nothing here is shipped, and nothing here uses Zipline's own HTTP code: a client, function, gateway or relay that
//! shared it would share its bugs. The wire vocabulary (`zipline-protocol`) is the only crate in common.
//!
//! - [`pattern`]: seeded bytes, at any offset, and their digests, so that payloads of any size need no memory.
//! - [`client`]: HTTP/1.1 and h2c requests with a chosen framing; [`raw`]: HTTP/1.1 by hand, for what no client sends.
//! - [`function`]: the test function, in the test's process or as the binary `zipline-test-function`; it records
//!   how every request body ended.
//! - [`gateway`]: a minimal gateway that counts bytes; [`stock_proxy`]: receivers that do not know Zipline.
//! - [`relay`]: a TCP relay that cuts, resets or stalls at a byte offset.
//! - [`queue_proxy`], [`engine`]: the real binaries, ended by process id when dropped.
#![forbid(unsafe_code)]

pub mod binaries;
pub mod body;
pub mod client;
pub mod engine;
pub mod forward;
pub mod function;
pub mod gateway;
pub mod owner;
pub mod pattern;
pub mod process;
pub mod queue_proxy;
pub mod raw;
pub mod relay;
pub mod stock_proxy;
pub mod wait;
