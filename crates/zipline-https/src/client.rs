//! Requests to one server, over a few connections that are kept.

use crate::connect::{Roots, connect};
use bytes::{Bytes, BytesMut};
use http::header::{HOST, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use zipline_http::{Body, HostPort, Resolver};
use zipline_runtime::Tasks;

/// Longest header block of an answer.
const HEADERS_MAX: usize = 64 * 1024;

/// Limits of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Longest time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Requests under way at a time; further ones wait, within their own time.
    pub max_requests: usize,
    /// Idle connections kept; others are closed after their request.
    pub max_idle: usize,
    /// Idle connections older than this are not used again.
    pub idle_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            max_requests: 64,
            max_idle: 8,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// An answer that was read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// No whole answer came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No connection, or not to whom it should be.
    #[error("cannot connect to {server}")]
    Connect {
        /// Where to.
        server: HostPort,
        /// Why not; certificates that were refused are named here.
        source: io::Error,
    },
    /// The time was over.
    #[error("no answer of {server} within {limit:?}")]
    Timeout {
        /// Who was asked.
        server: HostPort,
        /// For how long it was waited.
        limit: Duration,
    },
    /// The connection broke.
    #[error("the connection to {server} broke")]
    Broken {
        /// Who was asked.
        server: HostPort,
        /// What broke.
        source: hyper::Error,
    },
    /// The answer is longer than it may be.
    #[error("the answer of {server} is longer than {max} bytes")]
    TooLong {
        /// Who was asked.
        server: HostPort,
        /// The limit, in bytes.
        max: usize,
    },
}

/// Asks one server. Clones share connections; those are tasks of the [`Tasks`] it was made with.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    server: HostPort,
    host: HeaderValue,
    roots: Roots,
    config: ClientConfig,
    resolver: Resolver,
    tasks: Tasks,
    room: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Client {
    /// A client of `server`, which must show a certificate for its host that `roots` signed.
    #[must_use]
    pub fn new(server: HostPort, roots: Roots, config: ClientConfig, tasks: Tasks) -> Self {
        let host = HeaderValue::from_str(&server.to_string()).unwrap_or(HeaderValue::from_static("invalid"));
        let room = Semaphore::new(config.max_requests);
        let idle = Mutex::new(Vec::new());
        Self {
            inner: Arc::new(Inner {
                server,
                host,
                roots,
                config,
                resolver: Resolver::system(),
                tasks,
                room,
                idle,
            }),
        }
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &HostPort {
        &self.inner.server
    }

    /// Sends `request`, whose URI is a path, and reads the whole answer of at most `max_bytes`, all within `limit`.
    ///
    /// # Errors
    /// See [`RequestError`]. A request that was certainly not seen, since the server had closed an idle connection, is
    /// sent once more on a new one.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; the server may have acted on the request.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        max_bytes: usize,
        limit: Duration,
    ) -> Result<Answer, RequestError> {
        let deadline = Instant::now() + limit;
        let late = || RequestError::Timeout { server: self.inner.server.clone(), limit };
        let whole = async {
            let _room = self.inner.room.acquire().await.expect("the semaphore is never closed");
            let (response, sender) = self.start(request).await?;
            let (head, body) = response.into_parts();
            let body = self.read(body, max_bytes).await?;
            self.keep(sender);
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        timeout_at(deadline, whole).await.map_err(|_| late())?
    }

    /// Sends `request` and gives the answer with its body still to come, for answers that have no end. Its head has to
    /// come within `limit`; the body is bounded by whoever reads it. It has a connection of its own, beside the bound on
    /// requests.
    ///
    /// # Errors
    /// As [`Client::send`].
    ///
    /// # Cancel safety
    /// Dropping it, or the body, closes the connection.
    pub async fn stream(
        &self,
        request: Request<Bytes>,
        limit: Duration,
    ) -> Result<Response<Body>, RequestError> {
        let late = || RequestError::Timeout { server: self.inner.server.clone(), limit };
        let (response, sender) = timeout(limit, self.start(request)).await.map_err(|_| late())??;
        // The sender is dropped with the body, which closes the connection.
        Ok(response.map(|incoming| Body::from_incoming(incoming).holding(sender)))
    }

    async fn start(
        &self,
        request: Request<Bytes>,
    ) -> Result<(Response<Incoming>, SendRequest<Full<Bytes>>), RequestError> {
        let mut request = request.map(Full::new);
        request.headers_mut().insert(HOST, self.inner.host.clone());
        if let Some(mut sender) = self.reuse() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.broken(error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(|source| self.broken(source))?;
        Ok((response, sender))
    }

    async fn read(&self, mut body: Incoming, max_bytes: usize) -> Result<Bytes, RequestError> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|source| self.broken(source))?.into_data() else { continue };
            if whole.len() + data.len() > max_bytes {
                return Err(RequestError::TooLong { server: self.inner.server.clone(), max: max_bytes });
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    fn broken(&self, source: hyper::Error) -> RequestError {
        RequestError::Broken { server: self.inner.server.clone(), source }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, RequestError> {
        let Inner { server, roots, config, resolver, tasks, .. } = &*self.inner;
        let limit = config.connect_timeout;
        let connected = timeout(limit, connect(resolver, roots, server)).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))
        });
        let stream = connected.map_err(|source| RequestError::Connect { server: server.clone(), source })?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(source))?;
        let stop = tasks.token();
        drop(tasks.spawn("https connection", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended with an error");
                },
            }
        }));
        Ok(sender)
    }

    fn reuse(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.inner.idle.lock();
        while let Some(Idle { sender, since }) = idle.pop() {
            if sender.is_ready() && since.elapsed() < self.inner.config.idle_timeout {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.inner.idle.lock();
        if idle.len() < self.inner.config.max_idle && !sender.is_closed() {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.inner.server).finish_non_exhaustive()
    }
}
