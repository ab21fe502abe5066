//! A reverse proxy that knows nothing of Zipline: one connection to the target per request, same protocol as the
//! request came in.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::body::{self, AnyBody, BodyError};
use crate::owner::Spawner;

/// Bytes that crossed a listener's sockets since it started.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// From the clients.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// To the clients.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Both directions.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.received() + self.sent()
    }
}

/// Serves HTTP/1.1 and h2c on `listener` until the owner of `spawner` is dropped.
pub fn serve<H, F>(listener: TcpListener, spawner: &Spawner, traffic: Arc<Traffic>, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let connections = spawner.clone();
    spawner.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (handle, traffic) = (handle.clone(), Arc::clone(&traffic));
            connections.spawn(async move {
                drop(stream.set_nodelay(true));
                let service = service_fn(move |request| {
                    let answer = handle(request);
                    async { Ok::<_, Infallible>(answer.await) }
                });
                let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                server.http1().half_close(true).max_headers(1024).max_buf_size(1 << 20);
                server.http2().max_header_list_size(1 << 20).max_concurrent_streams(10_000);
                server.http2().initial_stream_window_size(1 << 20).initial_connection_window_size(8 << 20);
                let io = TokioIo::new(Counted { stream, traffic });
                drop(server.serve_connection_with_upgrades(io, service).await);
            });
        }
    });
}

/// Sends `request` to `target` and passes on what it answers; 502 if there is no answer.
pub async fn forward(request: Request<Incoming>, target: SocketAddr, spawner: Spawner) -> Response<AnyBody> {
    match try_forward(request, target, spawner).await {
        Ok(response) => response,
        Err(error) => text(StatusCode::BAD_GATEWAY, format!("upstream: {error:#}\n")),
    }
}

/// A plain text response.
#[must_use]
pub fn text(status: StatusCode, content: impl Into<Bytes>) -> Response<AnyBody> {
    let mut response = Response::new(body::full(content));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The host a request names, without its port.
#[must_use]
pub fn host_of<B>(request: &Request<B>) -> String {
    let named = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host =
        named.or_else(|| Some(request.headers().get(HOST)?.to_str().ok()?.to_owned())).unwrap_or_default();
    host.rsplit_once(':').map_or(host.clone(), |(name, _)| name.to_owned())
}

async fn try_forward(
    mut request: Request<Incoming>,
    target: SocketAddr,
    spawner: Spawner,
) -> Result<Response<AnyBody>> {
    let upgrade = request.headers().contains_key(UPGRADE);
    let from_client = upgrade.then(|| hyper::upgrade::on(&mut request));
    if !upgrade {
        request.headers_mut().remove(CONNECTION);
    }
    request.headers_mut().remove(TRANSFER_ENCODING);
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    // The connection lives on after an early answer, since the rest of the request may still be on its way; it ends
    // with its last use.
    let mut response = if request.version() == Version::HTTP_2 {
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .max_header_list_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        spawner.spawn(async { drop(connection.await) });
        sender.send_request(request).await?
    } else {
        if let Some(authority) = request.uri().authority().cloned() {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
            request.headers_mut().entry(HOST).or_insert(HeaderValue::from_str(authority.as_str())?);
            *request.uri_mut() = path.parse::<Uri>()?;
        }
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_headers(1024)
            .max_buf_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        spawner.spawn(async { drop(connection.with_upgrades().await) });
        sender.send_request(request).await?
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if let Some(from_client) = from_client {
            let from_target = hyper::upgrade::on(&mut response);
            spawner.spawn(async move {
                if let (Ok(client), Ok(target)) = (from_client.await, from_target.await) {
                    let (mut client, mut target) = (TokioIo::new(client), TokioIo::new(target));
                    drop(tokio::io::copy_bidirectional(&mut client, &mut target).await);
                }
            });
        }
        return Ok(response.map(|_| body::empty()));
    }
    response.headers_mut().remove(CONNECTION);
    response.headers_mut().remove(TRANSFER_ENCODING);
    Ok(response.map(|inner| inner.map_err(BodyError::new).boxed_unsync()))
}

struct Counted {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.traffic.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = polled {
            self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
