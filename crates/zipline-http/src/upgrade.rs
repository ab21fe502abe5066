//! Connections that stopped speaking HTTP.

use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

pub use hyper::upgrade::{OnUpgrade, Upgraded, on};

const BUFFER_BYTES: usize = 64 * 1024;

/// Copies between two upgraded connections until both directions have ended.
///
/// A direction that ends closes only the sending side of the other connection (half-close). Returns the bytes copied
/// from `downstream` to `upstream` and back.
///
/// # Errors
/// An upgrade that never came about, or an I/O error on either side; both connections are closed then.
///
/// # Cancel safety
/// Dropping it closes both connections.
pub async fn tunnel(downstream: OnUpgrade, upstream: OnUpgrade) -> io::Result<(u64, u64)> {
    let (downstream, upstream) = tokio::try_join!(downstream, upstream).map_err(io::Error::other)?;
    join(TokioIo::new(downstream), TokioIo::new(upstream)).await
}

/// Like [`tunnel`], towards any stream: a `CONNECT` to a TCP address.
///
/// # Errors
/// As [`tunnel`].
///
/// # Cancel safety
/// Dropping it closes both connections.
pub async fn tunnel_to(
    downstream: OnUpgrade,
    upstream: impl AsyncRead + AsyncWrite + Unpin + Send,
) -> io::Result<(u64, u64)> {
    let downstream = downstream.await.map_err(io::Error::other)?;
    join(TokioIo::new(downstream), upstream).await
}

/// Copies both ways with half-close until both directions have ended.
///
/// # Errors
/// An I/O error on either side.
///
/// # Cancel safety
/// Bytes under way are lost when it is dropped.
pub async fn join(
    mut a: impl AsyncRead + AsyncWrite + Unpin,
    mut b: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<(u64, u64)> {
    copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER_BYTES, BUFFER_BYTES).await
}

/// An upgraded connection as a tokio stream, e.g. to serve it with [`crate::serve_connection`].
///
/// # Errors
/// The upgrade never came about.
pub async fn into_stream(
    upgrade: OnUpgrade,
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    Ok(TokioIo::new(upgrade.await.map_err(io::Error::other)?))
}
