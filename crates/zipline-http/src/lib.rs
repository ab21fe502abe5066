//! Serves and proxies HTTP/1.1 and h2c (prior knowledge).
//!
//! [`serve`] and [`serve_connection`] hand requests to a [`Handler`]; [`Client`] sends them over bounded pools; [`hop`]
//! and [`proxy`] say what a proxy changes in between; [`upgrade`] joins two upgraded connections. Bodies cross crate
//! borders as [`Body`], so that large ones can get a path of their own behind the same type (`docs/adr/0003`).
//!
//! # What holds everywhere
//! - A body ends only if its peer ended it. Whatever breaks off (reset, early close, fewer bytes than announced) is an
//!   error on the receiving side, and an error in a body that is being sent is an abort on the wire: HTTP/1.1 closes
//!   without a terminator, HTTP/2 resets the stream.
//! - `100 Continue` goes out when a body is first polled, so nothing here polls early.
//! - Connections, header blocks and waits are bounded; each limit says what happens when it is reached.
//!
//! # What does not pass
//! Over HTTP/2 informational responses other than 100 are not relayed, since hyper's server cannot send them. Over HTTP/1.1
//! they are ([`Informational`]), and trailers go to every client whose response is chunked.
#![forbid(unsafe_code)]

mod body;
mod client;
mod error;
mod executor;
mod handler;
pub mod hop;
mod http1;
mod loopback;
mod problem;
pub mod proxy;
mod resolve;
mod rewind;
mod serve;
pub mod upgrade;
mod watch;

pub use body::{Body, BodySender, SendClosed};
pub use client::{
    Client, ClientConfig, ClientStatistics, HostPort, HostPortError, Protocol, SendError, Target,
};
pub use error::{BodyError, BodyErrorKind};
pub use handler::{Handler, PeerAddr, handler_fn};
pub use http_body::Frame;
pub use problem::{problem_response, text_response};
pub use resolve::Resolver;
pub use rewind::Rewind;
pub use serve::{Informational, Listener, ServeLimits, serve, serve_connection};
