//! Zipline for functions written in Rust: payloads move from memory to memory under small references.
//!
//! [`blocking::Client`] and, with the feature `tokio` (on by default), the async `Client` have the same verbs: `put`
//! (or `create`, write in place, `put_buffer`), `get`, `release`, `invoke`. A [`Reference`] travels in any message. A client talks to
//! its function's own queue-proxy over a Unix socket, and large payloads pass between both in shared memory.
//!
//! ```
//! use zipline_sdk::{PutOptions, Reference, blocking::Client};
//!
//! # fn main() -> zipline_sdk::Result<()> {
//! // In a function: Client::from_env()?
//! let client = Client::local();
//! let reference = client.put(b"many bytes", &PutOptions::new().content_type("text/plain"))?;
//! let message = reference.to_string();
//!
//! // In another function, which received the message:
//! let reference: Reference = message.parse()?;
//! let payload = client.get(&reference)?;
//! assert_eq!(&payload[..], b"many bytes");
//! assert_eq!(payload.content_type(), Some("text/plain"));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! - `tokio` (default): the async client.
//! - `tower`: functions as services of tower.
#![forbid(unsafe_code)]

pub mod blocking;
mod buffer;
#[cfg(feature = "tokio")]
mod client;
mod clock;
mod core;
mod error;
mod http;
mod invoke;
mod local;
mod options;
mod payload;
mod proxy;
mod reference;
mod stream;
#[cfg(feature = "tower")]
mod tower;

pub use buffer::{Buffer, Hold};
#[cfg(feature = "tokio")]
pub use client::{Client, GetMany, Incoming, Invocation, Map, StreamBody};
pub use core::Transport;
pub use error::{Error, ErrorCode, Result};
pub use invoke::Body;
pub use options::{Options, PutOptions, Retrievals};
pub use payload::{Payload, Source};
pub use reference::{BoundedBy, Reference};
#[cfg(feature = "tower")]
pub use tower::Function;

/// The examples of the guide are run with the tests.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../../../docs/sdk-rust.md")]
mod guide {}
