//! Serving HTTPS.

use crate::identity::ServerIdentity;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use zipline_http::{Handler, PeerAddr, ServeLimits, serve_connection};
use zipline_runtime::Tasks;

/// How long accepting pauses after a failure that will not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts and serves connections until the token of `tasks` is cancelled, as [`zipline_http::serve`] does; a handshake
/// has to end within the limit on reading a head, and counts as a connection while it lasts.
///
/// # Cancel safety
/// Dropping it stops accepting; connections go on.
pub async fn serve(
    listener: TcpListener,
    identity: ServerIdentity,
    handler: impl Handler,
    limits: ServeLimits,
    tasks: Tasks,
) {
    let limits = Arc::new(limits);
    let room = Arc::new(Semaphore::new(limits.max_connections));
    let acceptor = TlsAcceptor::from(Arc::clone(&identity.config));
    let token = tasks.token();
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = token.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = token.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (handler, limits, token) = (handler.clone(), Arc::clone(&limits), token.clone());
        let handshake = acceptor.accept(stream);
        drop(tasks.spawn("https connection", async move {
            match timeout(limits.header_read_timeout, handshake).await {
                Ok(Ok(stream)) => {
                    let _ = stream.get_ref().0.set_nodelay(true);
                    serve_connection(stream, Some(PeerAddr(peer)), handler, &limits, token).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            }
            drop(permit);
        }));
    }
}
