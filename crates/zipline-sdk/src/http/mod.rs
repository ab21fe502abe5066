//! The local HTTP API (`docs/openapi.yaml`): invokes, and everything else where there is no socket of the SDK's own.
//!
//! `outbox` is what is still to be sent, `response` reads a response out of bytes, `exchange` moves both directions of one
//! connection, `running` is a call with its time and what its errors mean, `ours` are the API's own requests. Threads (`wait`) and
//! tasks (`task`) differ in how they wait alone.

mod exchange;
pub(crate) mod ours;
mod outbox;
mod response;
mod running;
#[cfg(feature = "tokio")]
mod task;
mod wait;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method};
use parking_lot::Mutex;
use zipline_protocol::header;

use self::exchange::{Exchange, is_fresh};
use self::outbox::{Outbox, TOGETHER_BYTES, framing};
use self::response::{Keeps, Reader};
use self::running::{Asked, Patience};
use crate::{Error, Options, Result};

pub(crate) use exchange::Address;
pub(crate) use outbox::Sending;
pub(crate) use running::{Head, Running, Step};
#[cfg(feature = "tokio")]
pub(crate) use task::{Boxed, Exchanging, Frames, Reading};
pub(crate) use wait::{drive, wait_any};

/// Connections that are kept for the next request.
const IDLE_MAX: usize = 16;
/// Headers of a request that speak of its connection, which is not the function's.
const HOP: [HeaderName; 7] = [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, TE, TRAILER, UPGRADE];

/// The local API of one queue-proxy. Clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Http(Arc<Shared>);

struct Shared {
    address: Address,
    token: HeaderValue,
    response_max: u64,
    /// Of this process: a child that was forked makes its own.
    idle: Mutex<(u32, Vec<OwnedFd>)>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Call {
    /// In errors: "the invoke of worker.default".
    pub(crate) what: String,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Sending,
    pub(crate) meant: Meant,
    /// Where the payload that it is about was put.
    pub(crate) call_site: Option<&'static Location<'static>>,
}

/// Whose response it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// A function's, whatever its status.
    Function,
    /// The local API's own.
    Api,
    /// The same, and what is missing of it is missing of a payload.
    Payload,
}

impl Http {
    /// # Errors
    /// `request-invalid` for a token that no header can carry.
    pub(crate) fn new(address: Address, options: &Options) -> Result<Self> {
        let mut token = HeaderValue::from_bytes(&options.token).map_err(|_| {
            Error::invalid("the token cannot stand in a header: ZIPLINE_TOKEN is passed on as it is")
        })?;
        token.set_sensitive(true);
        let response_max = options.response_max;
        Ok(Self(Arc::new(Shared { address, token, response_max, idle: Mutex::default() })))
    }

    /// Begins a call whose answer is taken whole, within `timeout`.
    ///
    /// # Errors
    /// `upstream-failed` if the queue-proxy cannot be reached.
    pub(crate) fn start(&self, call: Call, timeout: Duration) -> Result<Running> {
        self.begin(call, Patience::Whole(timeout), Keeps::Whole(self.0.response_max))
    }

    /// Begins a call whose body goes in pieces and whose answer is taken whole; nothing is waited for longer than `quiet` in which not
    /// one byte moves.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub(crate) fn start_sending(&self, call: Call, quiet: Duration) -> Result<Running> {
        self.begin(call, Patience::Quiet(quiet), Keeps::Whole(self.0.response_max))
    }

    /// The same, and its answer is taken in pieces.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub(crate) fn start_streaming(&self, call: Call, quiet: Duration) -> Result<Running> {
        self.begin(call, Patience::Quiet(quiet), Keeps::Pieces)
    }

    fn begin(&self, call: Call, patience: Patience, keeps: Keeps) -> Result<Running> {
        let connection = match self.take() {
            Some(connection) => connection,
            None => self.0.address.connect().map_err(|error| self.unreachable(error))?,
        };
        let head = self.head(&call, keeps);
        let Call { what, method, body, meant, call_site, .. } = call;
        let reader = Reader::new(method == Method::HEAD, keeps);
        let exchange = Exchange::new(connection, Outbox::new(head, body), reader);
        Ok(Running::new(self.clone(), exchange, Asked { what, meant, call_site }, patience))
    }

    fn head(&self, call: &Call, keeps: Keeps) -> Vec<u8> {
        let whole = match &call.body {
            Sending::Whole(bytes) => bytes.len(),
            Sending::Sized(_) | Sending::Chunked => 0,
        };
        let mut head = Vec::with_capacity(512 + call.target.len() + whole.min(TOGETHER_BYTES));
        let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| head.extend_from_slice(part));
        line(&[
            call.method.as_str().as_bytes(),
            b" ",
            call.target.as_bytes(),
            b" HTTP/1.1\r\nhost: localhost\r\n",
        ]);
        line(&[header::TOKEN.as_bytes(), b": ", self.0.token.as_bytes(), b"\r\n"]);
        for (name, value) in &call.headers {
            // Refusals are heard while bodies are sent, so none waits for a word of the queue-proxy.
            let announces = name == TRAILER && matches!(call.body, Sending::Chunked);
            if announces || (!HOP.contains(name) && name != EXPECT) {
                line(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
            }
        }
        if keeps == Keeps::Pieces {
            line(&[b"te: trailers\r\n"]);
        }
        let bodiless = matches!(call.method, Method::GET | Method::HEAD | Method::DELETE);
        if !(bodiless && matches!(&call.body, Sending::Whole(bytes) if bytes.is_empty())) {
            framing(&call.body, &mut head);
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn unreachable(&self, error: io::Error) -> Error {
        Error::unreachable(format_args!("the queue-proxy cannot be reached at {}", self.0.address), error)
    }

    fn take(&self) -> Option<OwnedFd> {
        let mut idle = self.0.idle.lock();
        if idle.0 != std::process::id() {
            *idle = (std::process::id(), Vec::new());
        }
        std::iter::from_fn(|| idle.1.pop()).find(is_fresh)
    }

    fn give_back(&self, connection: OwnedFd) {
        let mut idle = self.0.idle.lock();
        if idle.0 == std::process::id() && idle.1.len() < IDLE_MAX {
            idle.1.push(connection);
        }
    }
}
