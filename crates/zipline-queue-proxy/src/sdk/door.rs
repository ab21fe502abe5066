//! Accepts connections of the Unix socket and finds out what they speak.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use zipline_http::{ServeLimits, serve_connection};
use zipline_protocol::sdk::{HELLO_TIMEOUT, PREFACE};
use zipline_runtime::Tasks;

use super::connection::Connection;
use crate::local::Local;
use crate::state::Shared;

/// SDK connections at a time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 256;

/// How long accepting pauses after a failure that will not go away at once (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the token of `tasks` is cancelled; every connection is a task of `tasks`.
///
/// # Cancel safety
/// Dropping it stops accepting; connections go on.
pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>, limits: ServeLimits, tasks: Tasks) {
    let local = Local::new(Arc::clone(&shared));
    let limits = Arc::new(limits);
    let room = Arc::new(Semaphore::new(limits.max_connections));
    let sdks = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of the local API's socket");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (shared, local, limits) = (Arc::clone(&shared), local.clone(), Arc::clone(&limits));
        let (sdks, token) = (Arc::clone(&sdks), token.clone());
        drop(tasks.spawn("local api connection", async move {
            let _permit = permit;
            let first = tokio::select! {
                first = timeout(limits.header_read_timeout, first_byte(&stream)) => first,
                () = token.cancelled() => return,
            };
            match first {
                Ok(Ok(Some(byte))) if byte == PREFACE[0] => {
                    let Ok(_place) = sdks.try_acquire() else {
                        tracing::warn!(connections = CONNECTIONS_MAX, "an SDK has too many connections");
                        return;
                    };
                    let Ok(opened) = timeout(HELLO_TIMEOUT, Connection::open(stream, shared)).await else {
                        return;
                    };
                    if let Some(connection) = opened {
                        // On its own: what it is made of is large, and few connections are of this kind.
                        Box::pin(connection.run(token)).await;
                    }
                }
                Ok(Ok(Some(_))) => serve_connection(stream, None, local, &limits, token).await,
                // Closed without a byte, broken, or silent.
                Ok(_) | Err(_) => {}
            }
        }));
    }
}

/// The first byte, which stays to be read; `None`: closed without one.
async fn first_byte(stream: &UnixStream) -> io::Result<Option<u8>> {
    let mut byte = [0_u8; 1];
    loop {
        stream.readable().await?;
        let peeked = stream.try_io(Interest::READABLE, || {
            Ok(rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.1)
        });
        match peeked {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
