//! HTTPS where both ends are named by certificates: queue-proxy to controller, controller to the Kubernetes API.
//!
//! [`Client`] speaks to one server, whose certificate must be signed by the roots it was given, and by no other.
//! [`ServerIdentity`] is a server's own certificate from two files, read again when they change.
//!
//! TLS 1.2 and 1.3 as a client, since API servers may stand behind older balancers; 1.3 alone as a server. HTTP/1.1 only.
#![forbid(unsafe_code)]

mod client;
mod connect;
mod identity;
mod serve;

pub use client::{Answer, Client, ClientConfig, RequestError};
pub use connect::{Roots, RootsError};
pub use identity::{IdentityError, ServerIdentity};
pub use serve::serve;

#[cfg(test)]
mod tests;
