//! One served connection, HTTP/1.1 or HTTP/2 by its first bytes.

use super::service::RequestService;
use super::{ServeLimits, http1};
use crate::error::chain;
use crate::executor::{Spawned, WithSpawned};
use crate::handler::{Handler, PeerAddr};
use crate::rewind::Rewind;
use crate::watch::Watch;
use bytes::Bytes;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::any::Any;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
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
/// Longest wait of an idle connection for its client to confirm that the end is near; then it just ends.
const CONFIRM_WAIT: Duration = Duration::from_secs(1);

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
    let since = Instant::now();
    let deadline = since + limits.header_read_timeout;
    let (prefix, http2) = tokio::select! {
        first = first_bytes(&mut io) => match first {
            Some(first) => first,
            None => return,
        },
        () = sleep_until(deadline) => return,
        () = token.cancelled() => return,
    };
    if !http2 {
        http1::serve((io, prefix), peer, handler, limits, token, since).await;
        return;
    }
    let io = Rewind::new(prefix, io);
    let watch = Watch::new();
    let service = RequestService::new(handler, peer, limits, Arc::clone(&watch));
    if let Err(error) = serve_http2(io, service, limits, &watch, &token).await {
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

async fn serve_http2<I, H>(
    io: Rewind<I>,
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
    // The end of an idle connection that does not confirm GOAWAY.
    let mut unconfirmed: Option<Instant> = None;
    loop {
        let idle_until = limits.idle_timeout.and_then(|idle| watch.idle_until(idle));
        let look_at = idle_until.filter(|_| !stopping).unwrap_or_else(|| Instant::now() + CHECK_EVERY);
        let look_at = unconfirmed.map_or(look_at, |end| look_at.min(end));
        let stop = tokio::select! {
            biased;
            result = poll_fn(|cx| connection.poll_both(cx)) => return result,
            () = token.cancelled(), if !stopping => true,
            () = sleep_until(look_at) => {
                let now = Instant::now();
                if unconfirmed.is_some_and(|end| end <= now) {
                    // A request that came after all has moved this on.
                    match watch.idle_until(CONFIRM_WAIT) {
                        Some(end) if end <= now => return Ok(()),
                        _ => unconfirmed = None,
                    }
                }
                let idle_until = limits.idle_timeout.and_then(|idle| watch.idle_until(idle));
                !stopping && idle_until.is_some_and(|end| end <= now)
            }
        };
        if stop {
            stopping = true;
            connection.connection().as_mut().graceful_shutdown();
            unconfirmed = watch.idle_until(Duration::ZERO).map(|_| Instant::now() + CONFIRM_WAIT);
        }
    }
}

/// What HTTP/2 takes before it ends the connection: more than the limit, so that the limit itself can be enforced per
/// message.
pub(crate) fn header_list_bytes(max_header_bytes: usize) -> u32 {
    u32::try_from(max_header_bytes.saturating_mul(4)).unwrap_or(u32::MAX)
}
