//! The local HTTP API (`docs/openapi.yaml`): invokes, and everything else where there is no socket of the SDK's own.
//!
//! `response` reads a response out of bytes, `exchange` moves both directions of one connection, `ours` are the API's own
//! requests; here is what they mean. Threads and tasks differ in how they wait alone.

mod exchange;
pub(crate) mod ours;
mod response;
mod wait;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Response};
use parking_lot::Mutex;
use rustix::event::PollFlags;
use zipline_protocol::{ErrorCode, Problem, header};

use self::exchange::{Broken, Exchange, is_fresh};
use self::response::{Reader, Unreadable};
use crate::clock::now;
use crate::{Error, Options, Result};

pub(crate) use exchange::Address;
pub(crate) use wait::wait_any;

/// Connections that are kept for the next request.
const IDLE_MAX: usize = 16;
/// A body up to this length is sent with its head.
const TOGETHER_BYTES: usize = 16 * 1024;
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
    pub(crate) body: Bytes,
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

/// A call that is on its way. Dropping it closes its connection, which gives it up.
#[derive(Debug)]
pub(crate) struct Running {
    http: Http,
    exchange: Option<Exchange>,
    what: String,
    meant: Meant,
    call_site: Option<&'static Location<'static>>,
    timeout: Duration,
    deadline: Duration,
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

    /// Sends as much of a call as its connection takes at once.
    ///
    /// # Errors
    /// `upstream-failed` if the queue-proxy cannot be reached.
    pub(crate) fn start(&self, call: Call, timeout: Duration) -> Result<Running> {
        let connection = match self.take() {
            Some(connection) => connection,
            None => self.0.address.connect().map_err(|error| self.unreachable(error))?,
        };
        let (head, body) = self.request(&call);
        let Call { what, method, meant, call_site, .. } = call;
        let most = self.0.response_max;
        let exchange = Exchange::new(connection, head, body, Reader::new(method == Method::HEAD, most));
        let deadline = now() + timeout;
        Ok(Running {
            http: self.clone(),
            exchange: Some(exchange),
            what,
            meant,
            call_site,
            timeout,
            deadline,
        })
    }

    fn request(&self, call: &Call) -> (Vec<u8>, Bytes) {
        let mut head = Vec::with_capacity(512 + call.target.len() + call.body.len().min(TOGETHER_BYTES));
        let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| head.extend_from_slice(part));
        line(&[
            call.method.as_str().as_bytes(),
            b" ",
            call.target.as_bytes(),
            b" HTTP/1.1\r\nhost: localhost\r\n",
        ]);
        line(&[header::TOKEN.as_bytes(), b": ", self.0.token.as_bytes(), b"\r\n"]);
        for (name, value) in &call.headers {
            // Bodies are there at once, and refusals are heard while they are sent.
            if !HOP.contains(name) && name != EXPECT {
                line(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
            }
        }
        let bodiless = matches!(call.method, Method::GET | Method::HEAD | Method::DELETE);
        if !(bodiless && call.body.is_empty()) {
            line(&[b"content-length: ", call.body.len().to_string().as_bytes(), b"\r\n"]);
        }
        line(&[b"\r\n"]);
        if call.body.len() <= TOGETHER_BYTES {
            head.extend_from_slice(&call.body);
            return (head, Bytes::new());
        }
        (head, call.body.clone())
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

impl Running {
    /// Goes on as far as its connection lets it; the response once it is there.
    ///
    /// # Errors
    /// What became of it, unless it is a function's own response.
    pub(crate) fn advance(&mut self) -> Result<Option<Response<Bytes>>> {
        let Some(exchange) = &mut self.exchange else {
            return Err(Error::invalid(format_args!("{} was through already", self.what)));
        };
        match exchange.advance() {
            Ok(true) => {}
            Ok(false) if now() < self.deadline => return Ok(None),
            Ok(false) => return Err(self.late()),
            Err(broken) => return Err(self.meaning(broken)),
        }
        let Some((response, connection)) = self.exchange.take().map(Exchange::end) else { return Ok(None) };
        if let Some(connection) = connection {
            self.http.give_back(connection);
        }
        self.checked(response).map(Some).map_err(|error| error.put_at(self.call_site))
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    fn waits_for(&self) -> PollFlags {
        self.exchange.as_ref().map_or(PollFlags::empty(), Exchange::waits_for)
    }

    fn checked(&self, response: Response<Bytes>) -> Result<Response<Bytes>> {
        let code = response.headers().get(header::ERROR);
        if code.is_none() && (self.meant == Meant::Function || response.status().is_success()) {
            return Ok(response);
        }
        let detail = serde_json::from_slice::<Problem>(response.body()).map(|problem| problem.detail);
        let detail =
            detail.unwrap_or_else(|_| format!("{} was answered with {}", self.what, response.status()));
        let Some(code) = code else {
            let what = format_args!("the local API answered like no queue-proxy: {detail}");
            return Err(Error::new(ErrorCode::UpstreamFailed, what));
        };
        match code.to_str().ok().and_then(ErrorCode::parse) {
            Some(code) => Err(Error::new(code, detail)),
            None => Err(Error::new(ErrorCode::UpstreamFailed, format_args!("{code:?}: {detail}"))),
        }
    }

    fn late(&self) -> Error {
        let Self { what, timeout, .. } = self;
        Error::new(
            ErrorCode::DeadlineExceeded,
            format_args!("{what} was not done within {timeout:?}: allow more with a client's timeout"),
        )
    }

    fn meaning(&self, broken: Broken) -> Error {
        let Self { what, meant, .. } = self;
        let may_have_run = if *meant == Meant::Function { "; the function may have run" } else { "" };
        match broken {
            Broken::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.http.unreachable(error)
            }
            Broken::Io(error) => {
                let message =
                    format_args!("the connection to the queue-proxy broke during {what}{may_have_run}");
                Error::unreachable(message, error)
            }
            Broken::Unreadable(Unreadable::BrokeOff) if *meant == Meant::Payload => {
                Error::new(ErrorCode::PayloadLost, "the payload broke off before its end: put it again")
            }
            Broken::Unreadable(Unreadable::BrokeOff) => {
                let message = format_args!("the answer to {what} broke off before its end{may_have_run}");
                Error::new(ErrorCode::UpstreamFailed, message)
            }
            Broken::Unreadable(Unreadable::Malformed(why)) => {
                let message = format_args!("the answer to {what} cannot be read: {why}{may_have_run}");
                Error::new(ErrorCode::UpstreamFailed, message)
            }
            Broken::Unreadable(Unreadable::TooLarge(length)) => {
                let (most, said) =
                    (self.http.0.response_max, length.map(|length| format!(" of {length} bytes")));
                let message = format_args!(
                    "the answer to {what} has a body{}, at most {most} bytes are taken: allow more with Options::response_max",
                    said.unwrap_or_default()
                );
                Error::new(ErrorCode::PayloadTooLarge, message)
            }
        }
    }
}

impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exchange.as_ref().expect("nobody waits for a call that is through").as_fd()
    }
}
