//! HTTP/1.1 and h2c requests with a chosen framing, one connection each.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::body::{self, AnyBody};
use crate::pattern;

/// Response bytes kept for reading; longer bodies are only counted and digested.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a body that messages show.
const TEXT_BYTES: usize = 16 * 1024;

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in clear text, by prior knowledge.
    H2c,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Http1, Self::H2c];
}

/// A request to be sent.
#[derive(Debug)]
pub struct Call {
    /// What is spoken.
    pub protocol: Protocol,
    /// Any method.
    pub method: Method,
    /// Path and query; or an absolute URI, as forward proxies take it.
    pub uri: String,
    /// `Host` or `:authority`; the address that is called if empty.
    pub host: String,
    /// Further headers.
    pub headers: HeaderMap,
    /// The body; its size hint decides the framing.
    pub body: AnyBody,
}

impl Call {
    /// A request without a body.
    #[must_use]
    pub fn new(protocol: Protocol, method: Method, uri: impl Into<String>) -> Self {
        let (uri, host, headers) = (uri.into(), String::new(), HeaderMap::new());
        Self { protocol, method, uri, host, headers, body: body::empty() }
    }

    /// Adds a header.
    ///
    /// # Panics
    /// If name or value are not what HTTP allows.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("tests write valid names");
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).expect("tests write valid values"));
        self
    }

    /// Sets `Host` or `:authority`.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: AnyBody) -> Self {
        self.body = body;
        self
    }

    /// A body that is there whole.
    #[must_use]
    pub fn bytes(self, content: impl Into<Bytes>) -> Self {
        self.body(body::full(content))
    }

    /// `length` bytes of the pattern `seed`; `known` says whether the length is announced.
    #[must_use]
    pub fn pattern(self, seed: u64, length: u64, known: bool) -> Self {
        self.body(body::generated(seed, length, known, None))
    }

    /// `length` bytes of the pattern `seed` without a known length, then these trailers.
    #[must_use]
    pub fn with_trailers(mut self, seed: u64, length: u64, trailers: HeaderMap) -> Self {
        let names = trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        self.headers.insert(TRAILER, HeaderValue::from_str(&names).expect("header names are valid values"));
        self.body(body::generated(seed, length, false, Some(trailers)))
    }

    /// Sends the request to `address` and reads the whole answer.
    ///
    /// # Errors
    /// No connection, or no response head. A body that breaks off is an answer: see [`Reply::broken`].
    pub async fn send(self, address: SocketAddr) -> Result<Reply> {
        Ok(self.open(address).await?.read().await)
    }

    /// Sends the request to `address` and answers once the response head is there.
    ///
    /// # Errors
    /// No connection, or no response head.
    pub async fn open(mut self, address: SocketAddr) -> Result<Exchange> {
        if self.host.is_empty() {
            self.host = address.to_string();
        }
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        self.open_on(stream).await
    }

    /// The same over a Unix socket.
    ///
    /// # Errors
    /// No connection, or no response head.
    pub async fn open_unix(mut self, path: &std::path::Path) -> Result<Exchange> {
        if self.host.is_empty() {
            "localhost".clone_into(&mut self.host);
        }
        let stream =
            UnixStream::connect(path).await.with_context(|| format!("connect {}", path.display()))?;
        self.open_on(stream).await
    }

    async fn open_on(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Exchange> {
        let Self { protocol, method, uri, host, mut headers, body } = self;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        headers.entry(TE).or_insert(HeaderValue::from_static("trailers"));
        let origin_form = uri.starts_with('/');
        match protocol {
            Protocol::Http1 => {
                headers.entry(HOST).or_insert(HeaderValue::from_str(&host)?);
                *request.uri_mut() = uri.parse()?;
            }
            Protocol::H2c if origin_form => {
                *request.uri_mut() =
                    Uri::builder().scheme("http").authority(host.as_str()).path_and_query(uri).build()?;
            }
            Protocol::H2c => *request.uri_mut() = uri.parse()?,
        }
        *request.headers_mut() = headers;

        let mut driver = JoinSet::new();
        let response = match protocol {
            Protocol::Http1 => {
                let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
                    .max_headers(1024)
                    .handshake(TokioIo::new(stream))
                    .await?;
                driver.spawn(async { drop(connection.with_upgrades().await) });
                sender.send_request(request).await
            }
            Protocol::H2c => {
                let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(1 << 20)
                    .initial_connection_window_size(4 << 20)
                    .handshake(TokioIo::new(stream))
                    .await?;
                driver.spawn(async { drop(connection.await) });
                let response = sender.send_request(request).await;
                // The connection would close with its last sender, and the answer's body with it.
                driver.spawn(async move {
                    let _open = sender;
                    std::future::pending().await
                });
                response
            }
        };
        let response = response.map_err(|error| anyhow!(chain(&error)))?;
        Ok(Exchange { response, driver })
    }
}

/// A response whose body is still to be read. Dropping it closes the connection.
#[derive(Debug)]
pub struct Exchange {
    /// The response.
    pub response: Response<Incoming>,
    driver: JoinSet<()>,
}

impl Exchange {
    /// The next piece of the body; `None` at its clean end.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.response.frame().await {
            match frame.map_err(|error| anyhow!(chain(&error)))?.into_data() {
                Ok(content) if !content.is_empty() => return Ok(Some(content)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The next `length` bytes of the body.
    ///
    /// # Errors
    /// The body broke off or ended before.
    pub async fn exactly(&mut self, length: usize, rest: &mut Vec<u8>) -> Result<Vec<u8>> {
        while rest.len() < length {
            let piece =
                self.next().await?.with_context(|| format!("body ended after {} bytes", rest.len()))?;
            rest.extend_from_slice(&piece);
        }
        let after = rest.split_off(length);
        Ok(std::mem::replace(rest, after))
    }

    /// Reads the whole answer.
    pub async fn read(self) -> Reply {
        let Self { response, driver } = self;
        let (head, mut body) = response.into_parts();
        let mut reply = Reply {
            status: head.status,
            headers: head.headers,
            length: 0,
            sha256: String::new(),
            bytes: Vec::new(),
            trailers: HeaderMap::new(),
            broken: None,
        };
        let mut digest = Sha256::new();
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(piece)) => {
                    reply.length += piece.len() as u64;
                    digest.update(&piece);
                    if reply.bytes.len() < KEPT_BYTES {
                        reply.bytes.extend_from_slice(&piece);
                    }
                }
                Ok(Err(frame)) => reply.trailers = frame.into_trailers().unwrap_or_default(),
                Err(error) => {
                    reply.broken = Some(chain(&error));
                    break;
                }
            }
        }
        drop(driver);
        reply.sha256 = pattern::hex(&digest.finalize());
        reply
    }
}

/// A whole answer.
#[derive(Clone)]
pub struct Reply {
    /// Status of the head.
    pub status: StatusCode,
    /// Headers of the head.
    pub headers: HeaderMap,
    /// Bytes of body received.
    pub length: u64,
    /// Their SHA-256 in hexadecimal.
    pub sha256: String,
    /// The first of them, at least 4 MiB if there are as many.
    pub bytes: Vec<u8>,
    /// Trailers.
    pub trailers: HeaderMap,
    /// Why the body broke off; `None` if it ended cleanly.
    pub broken: Option<String>,
}

impl fmt::Debug for Reply {
    /// Leaves out all but the beginning of the body: it may be megabytes of nothing that anybody could read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("length", &self.length)
            .field("text", &self.text())
            .field("trailers", &self.trailers)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Reply {
    /// The beginning of the body as text, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(TEXT_BYTES)]).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none; the text is named.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.bytes)
            .with_context(|| format!("{}: no JSON: {}", self.status, self.text()))
    }

    /// A header as text; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The code of `Zipline-Error`; empty if there is none.
    #[must_use]
    pub fn code(&self) -> &str {
        self.header("zipline-error")
    }

    /// The announced length.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }
}

/// An error with its sources, since hyper's own text leaves them out.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
