//! Accepts connections over TLS and serves what comes out of them.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use zipline_http::{Handler, PeerAddr, ServeLimits, serve_connection};
use zipline_runtime::Tasks;

/// Pause after an accept that failed for more than one connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Methods a plain request may begin with.
const PLAIN: [&[u8; 5]; 5] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"];

/// What Go's server says to a client that forgot TLS.
const FORGOT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Serves until the token of `tasks` is cancelled; connections are its tasks and finish what they are at.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handler: impl Handler,
    limits: ServeLimits,
    tasks: Tasks,
) {
    let (limits, token) = (Arc::new(limits), tasks.token());
    let room = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = token.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a TLS connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, handler, limits, token) =
            (acceptor.clone(), handler.clone(), Arc::clone(&limits), token.clone());
        drop(tasks.spawn("tls connection", async move {
            let shaken = tokio::select! {
                shaken = timeout(limits.header_read_timeout, shake(acceptor, stream, peer.ip())) => shaken,
                () = token.cancelled() => return,
            };
            match shaken {
                Ok(Ok(stream)) => {
                    serve_connection(stream, Some(PeerAddr(peer)), handler, &limits, token).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
            drop(permit);
        }));
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
    peer: IpAddr,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_keepalive(true)?;
    let mut first = [0; 5];
    let seen = stream.peek(&mut first).await?;
    if seen == first.len() && PLAIN.contains(&&first) {
        tracing::debug!(%peer, "a plain request on the TLS port");
        stream.write_all(FORGOT_TLS).await?;
        stream.shutdown().await?;
    }
    acceptor.accept(stream).await
}
