//! One served connection, HTTP/1.1 or HTTP/2 by its first bytes.

use super::ServeLimits;
use super::service::RequestService;
use crate::error::chain;
use crate::executor::{Spawned, WithSpawned};
use crate::handler::{Handler, PeerAddr};
use crate::rewind::Rewind;
use crate::watch::{ServerIo, Watch};
use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::any::Any;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read and write buffer of an HTTP/1.1 connection; what one read can bring at most.
pub(crate) const HTTP1_BUFFER_BYTES: usize = 512 * 1024;
/// What may be under way on one stream, and on one connection, before the receiver makes room.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Largest frame. Not more: h2 bounds the number of CONTINUATION frames by header list size over this, and peers send
/// header blocks in frames of 16 KiB all the same.
pub(crate) const FRAME_BYTES: u32 = 64 * 1024;
/// Bytes of one stream buffered for sending.
pub(crate) const SEND_BUFFER_BYTES: usize = 1024 * 1024;
/// How often a connection without a deadline looks whether it got one.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// Serves one connection until it ends: HTTP/1.1 with keep-alive, pipelining and upgrades, or HTTP/2 with prior knowledge.
///
/// When `token` is cancelled, requests in flight are finished and the connection is closed; idle ones close at once.
/// Upgraded connections live on with whoever took them.
///
/// # Cancel safety
/// Dropping it closes the connection at once and drops the handlers of its requests.
pub async fn serve_connection<I, H>(
    mut io: I,
    peer: Option<PeerAddr>,
    handler: H,
    limits: &ServeLimits,
    token: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + Any,
    H: Handler,
{
    let watch = Watch::new();
    let deadline = Instant::now() + limits.header_read_timeout;
    let (prefix, http2) = tokio::select! {
        first = first_bytes(&mut io) => match first {
            Some(first) => first,
            None => return,
        },
        () = sleep_until(deadline) => return,
        () = token.cancelled() => return,
    };
    let io = Rewind::new(prefix, io);
    let service = RequestService::new(handler, peer, limits, http2, Arc::clone(&watch));
    let result = if http2 {
        watch.head_done();
        serve_http2(ServerIo::http2(io), service, limits, &watch, &token).await
    } else {
        serve_http1(ServerIo::http1(io, Arc::clone(&watch)), service, limits, &watch, &token).await
    };
    if let Err(error) = result {
        tracing::debug!(error = chain(&error), "connection ended with an error");
    }
}

/// Reads until the bytes are the HTTP/2 preface or cannot become it. `None`: closed without a byte, or broken.
async fn first_bytes<I: AsyncRead + Unpin>(io: &mut I) -> Option<(Bytes, bool)> {
    let mut first = [0_u8; PREFACE.len()];
    let mut length = 0;
    loop {
        let read = io.read(&mut first[length..]).await.ok()?;
        length += read;
        let so_far = &first[..length];
        if so_far == PREFACE {
            return Some((Bytes::copy_from_slice(so_far), true));
        }
        if read == 0 || !PREFACE.starts_with(so_far) {
            return (length > 0).then(|| (Bytes::copy_from_slice(so_far), false));
        }
    }
}

async fn serve_http1<I, H>(
    io: ServerIo<I>,
    service: RequestService<H>,
    limits: &ServeLimits,
    watch: &Watch,
    token: &CancellationToken,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + Any,
    H: Handler,
{
    let mut builder = http1::Builder::new();
    builder
        .half_close(limits.half_close)
        .title_case_headers(limits.title_case_headers)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(HTTP1_BUFFER_BYTES.max(limits.max_header_bytes))
        // Its timer would also run while the connection is idle, and close it under a request that is on its way.
        .header_read_timeout(None)
        .timer(TokioTimer::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    let mut stopping = false;
    loop {
        let check_at = check_at(watch, limits);
        tokio::select! {
            biased;
            result = &mut connection => return result,
            () = token.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(check_at) => {
                if is_overdue(watch, limits) {
                    return Ok(());
                }
            }
        }
    }
}

async fn serve_http2<I, H>(
    io: ServerIo<I>,
    service: RequestService<H>,
    limits: &ServeLimits,
    watch: &Watch,
    token: &CancellationToken,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + Any,
    H: Handler,
{
    let spawned = Spawned::default();
    let mut builder = http2::Builder::new(spawned.clone());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(header_list_bytes(limits.max_header_bytes));
    let connection = Box::pin(builder.serve_connection(TokioIo::new(io), service));
    let mut connection = WithSpawned::new(connection, spawned);
    let mut stopping = false;
    loop {
        let check_at = check_at(watch, limits);
        tokio::select! {
            biased;
            result = poll_fn(|cx| connection.poll_both(cx)) => return result,
            () = token.cancelled(), if !stopping => {
                stopping = true;
                connection.connection().as_mut().graceful_shutdown();
            }
            () = sleep_until(check_at) => {
                if !stopping && is_overdue(watch, limits) {
                    stopping = true;
                    connection.connection().as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// What HTTP/2 takes before it ends the connection: more than the limit, so that the limit itself can be enforced per
/// message.
pub(crate) fn header_list_bytes(max_header_bytes: usize) -> u32 {
    u32::try_from(max_header_bytes.saturating_mul(4)).unwrap_or(u32::MAX)
}

fn check_at(watch: &Watch, limits: &ServeLimits) -> Instant {
    let latest = Instant::now() + CHECK_EVERY.min(limits.header_read_timeout);
    watch.overdue_at(limits.header_read_timeout, limits.idle_timeout).map_or(latest, |at| at.min(latest))
}

fn is_overdue(watch: &Watch, limits: &ServeLimits) -> bool {
    watch.overdue_at(limits.header_read_timeout, limits.idle_timeout).is_some_and(|at| at <= Instant::now())
}
