//! Serving connections and listeners.

mod check;
mod connection;
pub(crate) mod http1;
mod service;

use crate::handler::{Handler, PeerAddr};
use crate::loopback;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use zipline_protocol::limits;
use zipline_runtime::Tasks;

pub(crate) use check::check_trailers;
pub use connection::serve_connection;
pub(crate) use connection::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES, header_list_bytes,
};
pub use http1::Informational;
pub(crate) use http1::RequestBody;

/// How long accepting pauses after a failure that will not go away at once (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of served connections. Sizes are bytes.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// Connections of one listener. When reached, none is accepted until one ends; the kernel's backlog holds the rest.
    pub max_connections: usize,
    /// Longest header block of one message; a longer one is answered 431.
    pub max_header_bytes: usize,
    /// Most header fields of one message; more are answered 431.
    pub max_headers: usize,
    /// Longest time from the first byte of a request (or from the connection's start) to the end of its head; then the
    /// connection is closed.
    pub header_read_timeout: Duration,
    /// Idle connections are closed after this long; `None` keeps them.
    pub idle_timeout: Option<Duration>,
    /// Streams of one HTTP/2 connection at a time; more are refused.
    pub max_concurrent_streams: u32,
    /// HTTP/1.1: a client may close its sending side and still get its response. Off (as in Go's servers), a client that
    /// closes while it waits counts as gone and its handler is dropped; on, it is noticed only when writing fails.
    pub half_close: bool,
    /// Names of HTTP/1.1 header fields are sent as `X-Name`, as Go sends them, instead of `x-name`.
    pub title_case_headers: bool,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_header_bytes: limits::HEADER_BLOCK_MAX,
            max_headers: limits::HEADER_COUNT_MAX,
            header_read_timeout: Duration::from_secs(60),
            idle_timeout: Some(Duration::from_secs(600)),
            max_concurrent_streams: 1000,
            half_close: false,
            title_case_headers: false,
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP; accepted sockets get `TCP_NODELAY`.
    Tcp(TcpListener),
    /// Unix socket; requests carry no [`PeerAddr`].
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// Accepts and serves connections until the token of `tasks` is cancelled.
///
/// Each connection is a task of `tasks`. On cancellation this returns at once with the listener closed; connections
/// finish the requests in flight and close, which `tasks.shutdown` waits for.
///
/// # Cancel safety
/// Dropping it stops accepting; connections go on.
pub async fn serve(listener: impl Into<Listener>, handler: impl Handler, limits: ServeLimits, tasks: Tasks) {
    let listener = listener.into();
    let limits = Arc::new(limits);
    let room = Arc::new(Semaphore::new(limits.max_connections));
    let token = tasks.token();
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = token.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = token.cancelled() => return,
        };
        let handler = handler.clone();
        let limits = Arc::clone(&limits);
        let token = token.clone();
        match accepted {
            Ok(Accepted::Tcp(stream, peer)) => {
                tasks.spawn("http connection", async move {
                    serve_connection(stream, Some(peer), handler, &limits, token).await;
                    drop(permit);
                });
            }
            Ok(Accepted::Unix(stream)) => {
                tasks.spawn("http connection", async move {
                    serve_connection(stream, None, handler, &limits, token).await;
                    drop(permit);
                });
            }
            Err(error) if is_about_one_connection(&error) => {
                tracing::debug!(%error, "connection ended before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

enum Accepted {
    Tcp(tokio::net::TcpStream, PeerAddr),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            loopback::tune(&stream, peer.ip());
            // Finds clients that vanished without a word, within the kernel's two hours.
            socket2::SockRef::from(&stream).set_keepalive(true)?;
            Ok(Accepted::Tcp(stream, PeerAddr(peer)))
        }
        Listener::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}
