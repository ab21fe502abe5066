//! One data connection: HTTP/1.1, one request at a time.

use super::Shared;
use super::activity::Activity;
use super::answer::answer;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Most bytes a connection buffers beside the segment it sends.
const BUFFER_BYTES: usize = 64 * 1024;

/// Serves requests until the peer closes, the connection is overdue, or `stop` is cancelled and nothing runs. With a
/// certificate, TLS comes first; a peer that does not speak it is closed before anything is read of what it wants.
pub(super) async fn serve(stream: TcpStream, peer: IpAddr, shared: Arc<Shared>, stop: CancellationToken) {
    let Some(certificate) = &shared.config.certificate else {
        return requests(stream, peer, shared, stop).await;
    };
    let handshake = timeout(shared.config.handshake_timeout, certificate.accept(stream));
    let secured = tokio::select! {
        secured = handshake => secured,
        () = stop.cancelled() => return,
    };
    match secured {
        Ok(Ok(stream)) => requests(stream, peer, shared, stop).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "data connection without TLS"),
        Err(_elapsed) => tracing::debug!(%peer, "data connection closed, its handshake took too long"),
    }
}

async fn requests<T>(stream: T, peer: IpAddr, shared: Arc<Shared>, stop: CancellationToken)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let activity = Arc::new(Activity::new());
    let service = service_fn(|request| {
        let (shared, activity) = (Arc::clone(&shared), Arc::clone(&activity));
        async move { Ok::<_, Infallible>(answer(&shared, peer, request, activity).await) }
    });
    let (idle, lapse) = (shared.config.idle_timeout, shared.config.lease_lapse);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // The watch below covers a request head that never ends: until it does, the connection is idle.
            .header_read_timeout(None)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut overdue = pin!(activity.overdue(idle, lapse));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "data connection broke");
                }
                return;
            }
            stuck = &mut overdue => {
                if stuck {
                    shared.counters.stuck_connections.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%peer, "data connection closed, it took no bytes for too long");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
