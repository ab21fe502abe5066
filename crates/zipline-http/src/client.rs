//! Sending requests over pooled connections.

mod error;
mod exchange;
mod http1;
mod http2;
mod request;
mod socket;
mod target;

use crate::body::Body;
use crate::resolve::Resolver;
use http::{Request, Response};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use zipline_protocol::limits;
use zipline_runtime::Tasks;

pub use error::SendError;
pub(crate) use http1::ResponseBody;
pub use target::{HostPort, HostPortError, Protocol, Target};

/// Limits of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Longest time to connect, over all addresses of a host; also the longest wait for one of `max_connections`.
    pub connect_timeout: Duration,
    /// A connection attempt that takes this long is given up for another one, within `connect_timeout`. The next may take
    /// 1.4 times as long, and so on, with a pause in between; only what takes too long is tried again. `None`: one
    /// attempt. A listener whose queue is full drops attempts silently, and the kernel's own second try comes after 1 s.
    pub connect_attempt: Option<Duration>,
    /// Names of HTTP/1.1 header fields are sent as `X-Name`, as Go sends them, instead of `x-name`.
    pub title_case_headers: bool,
    /// Connections at a time, to all targets. When all are busy a request waits; idle ones of other targets make room.
    pub max_connections: usize,
    /// Idle HTTP/1.1 connections kept per target; the longest idle one is closed first.
    pub max_idle_per_host: usize,
    /// HTTP/2 connections per target; one is used until its peer's stream limit is reached. Beyond, requests wait.
    pub max_http2_connections_per_host: usize,
    /// Idle connections are closed after this long.
    pub idle_timeout: Duration,
    /// HTTP/1.1 and `Expect: 100-continue`: the body is sent after this long without a word from the peer.
    pub continue_timeout: Duration,
    /// Longest header block of one response, in bytes; a longer one is [`SendError::BeforeResponse`].
    pub max_header_bytes: usize,
    /// Most header fields of one response; more are [`SendError::BeforeResponse`].
    pub max_headers: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: limits::CONNECT_TIMEOUT,
            connect_attempt: None,
            title_case_headers: false,
            max_connections: 4096,
            max_idle_per_host: 256,
            max_http2_connections_per_host: 16,
            idle_timeout: Duration::from_secs(90),
            continue_timeout: Duration::from_secs(1),
            max_header_bytes: limits::HEADER_BLOCK_MAX,
            max_headers: limits::HEADER_COUNT_MAX,
        }
    }
}

/// What a [`Client`] has done and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientStatistics {
    /// Connections opened so far.
    pub opened: u64,
    /// Connections open now.
    pub open: usize,
    /// Requests sent on a connection that had served one before.
    pub reused: u64,
    /// Requests sent again on another connection because a reused one had been closed by the peer.
    pub resent: u64,
}

/// Sends requests over pooled HTTP/1.1 and h2c connections. Clones share the pools.
///
/// What goes on without its caller (HTTP/2 connections, the rest of a request that was answered early, the watch over idle
/// connections) are tasks of the [`Tasks`] it was made with, and end with it. Dropping the last clone closes the idle ones.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    tasks: Tasks,
    resolver: Resolver,
    room: Arc<Semaphore>,
    http1: http1::Pool,
    http2: http2::Pool,
    opened: AtomicU64,
    open: AtomicUsize,
    reused: AtomicU64,
    resent: AtomicU64,
}

impl Client {
    /// A client without connections.
    pub fn new(config: ClientConfig, tasks: Tasks) -> Self {
        let room = Arc::new(Semaphore::new(config.max_connections));
        Self {
            inner: Arc::new(Inner {
                config,
                tasks,
                resolver: Resolver::system(),
                room,
                http1: http1::Pool::default(),
                http2: http2::Pool::default(),
                opened: AtomicU64::new(0),
                open: AtomicUsize::new(0),
                reused: AtomicU64::new(0),
                resent: AtomicU64::new(0),
            }),
        }
    }

    /// Sends a request and returns as soon as the head of its response is there, even while the request's body is still
    /// being sent.
    ///
    /// `Host` (or the URI's authority) and all other fields are sent as given; both protocols' own form of them is made
    /// here. Trailers of the request need a `Trailer` field on HTTP/1.1 ([`crate::proxy::announce_trailers`]). A response
    /// of 101, or of 2xx to `CONNECT`, can be upgraded with [`crate::upgrade::on`].
    ///
    /// The request is sent again on another connection only if the first was a reused one and either nothing of the
    /// request had been sent, or it has no body and is a `GET`, `HEAD`, `OPTIONS` or `TRACE`, or has an `Idempotency-Key`.
    ///
    /// When the response ends before the request body does, the rest of the request is not sent: HTTP/1.1 closes the
    /// connection (after 50 ms), HTTP/2 resets the stream. Dropping the response body early does the same at once.
    ///
    /// # Errors
    /// See [`SendError`]; [`SendError::is_connect`] tells whether the peer can have seen the request.
    ///
    /// # Cancel safety
    /// Dropping it aborts the request: HTTP/1.1 closes the connection, HTTP/2 resets the stream.
    pub async fn send(&self, target: &Target, request: Request<Body>) -> Result<Response<Body>, SendError> {
        match target.protocol {
            Protocol::Http1 => http1::send(&self.inner, &target.addr, request).await,
            Protocol::Http2 => http2::send(&self.inner, &target.addr, request).await,
        }
    }

    /// What turns names into addresses here. Its answers are cached, so it is worth sharing.
    pub fn resolver(&self) -> &Resolver {
        &self.inner.resolver
    }

    /// Closes every idle connection, e.g. when a function instance has gone.
    pub fn close_idle(&self) {
        self.inner.http1.close_idle();
        self.inner.http2.close_idle();
    }

    /// Counts since the client was made.
    pub fn statistics(&self) -> ClientStatistics {
        ClientStatistics {
            opened: self.inner.opened.load(Ordering::Relaxed),
            open: self.inner.open.load(Ordering::Relaxed),
            reused: self.inner.reused.load(Ordering::Relaxed),
            resent: self.inner.resent.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

/// Counts one open connection for as long as it lives.
struct Open {
    inner: std::sync::Weak<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Inner {
    /// Connects, within the bound on connections.
    async fn connect(self: &Arc<Self>, addr: &HostPort) -> Result<(TcpStream, Open), SendError> {
        let permit = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if !self.http1.close_longest_idle() {
                    self.http2.close_idle();
                }
                let waited = self.config.connect_timeout;
                match timeout(waited, Arc::clone(&self.room).acquire_owned()).await {
                    Ok(permit) => permit.expect("the semaphore is never closed"),
                    Err(_) => {
                        let limit = self.config.max_connections;
                        return Err(SendError::Busy { addr: addr.clone(), waited, limit });
                    }
                }
            }
        };
        let stream = socket::connect(&self.resolver, addr, &self.config).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok((stream, Open { inner: Arc::downgrade(self), _permit: permit }))
    }
}
