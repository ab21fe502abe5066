//! Connections that stopped speaking HTTP.

use crate::rewind::Rewind;
use bytes::Bytes;
use http::{Extensions, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::sync::oneshot;

const BUFFER_BYTES: usize = 64 * 1024;

/// A message that may end HTTP on its connection: a request, or the response to one.
pub trait Message {
    #[doc(hidden)]
    fn extensions_mut(&mut self) -> &mut Extensions;
}

impl<B> Message for Request<B> {
    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

impl<B> Message for Response<B> {
    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

/// The connection of `message`, once it no longer speaks HTTP: after a response of 101, or of 2xx to `CONNECT`.
pub fn on(message: &mut impl Message) -> OnUpgrade {
    let extensions = message.extensions_mut();
    if let Some(offered) = extensions.remove::<Offered>() {
        return OnUpgrade { way: offered.connection.lock().take().map_or(Way::Never, Way::Given) };
    }
    OnUpgrade { way: extensions.remove().map_or(Way::Never, Way::Hyper) }
}

/// What a message carries that may end HTTP on its connection.
#[derive(Clone)]
struct Offered {
    connection: Arc<Mutex<Option<oneshot::Receiver<Upgraded>>>>,
}

/// The side of an offer that has the connection.
pub(crate) struct Offer {
    connection: oneshot::Sender<Upgraded>,
}

/// Lets `message` be upgraded.
pub(crate) fn offer(message: &mut impl Message) -> Offer {
    let (give, take) = oneshot::channel();
    message.extensions_mut().insert(Offered { connection: Arc::new(Mutex::new(Some(take))) });
    Offer { connection: give }
}

impl Offer {
    /// Hands the connection over, with what was read of it; closes it if nobody wants it.
    pub(crate) fn give(self, read: Bytes, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let io: Box<dyn Stream> = Box::new(io);
        drop(self.connection.send(Upgraded { stream: Kind::Given(Rewind::new(read, io)) }));
    }
}

/// Resolves when the connection has stopped speaking HTTP; with an error if it never will.
pub struct OnUpgrade {
    way: Way,
}

enum Way {
    Never,
    Given(oneshot::Receiver<Upgraded>),
    Hyper(hyper::upgrade::OnUpgrade),
}

impl fmt::Debug for OnUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnUpgrade").finish_non_exhaustive()
    }
}

impl Future for OnUpgrade {
    type Output = io::Result<Upgraded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Upgraded>> {
        const NEVER: &str = "the connection goes on with HTTP, or has ended";
        Poll::Ready(match &mut self.way {
            Way::Never => Err(io::Error::other(NEVER)),
            Way::Given(connection) => {
                ready!(Pin::new(connection).poll(cx)).map_err(|_| io::Error::other(NEVER))
            }
            Way::Hyper(upgrade) => match ready!(Pin::new(upgrade).poll(cx)) {
                Ok(stream) => Ok(Upgraded { stream: Kind::Hyper(TokioIo::new(stream)) }),
                Err(error) => Err(io::Error::other(error)),
            },
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection that no longer speaks HTTP.
pub struct Upgraded {
    stream: Kind,
}

enum Kind {
    Given(Rewind<Box<dyn Stream>>),
    Hyper(TokioIo<hyper::upgrade::Upgraded>),
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}

impl Upgraded {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut dyn Stream> {
        match &mut self.get_mut().stream {
            Kind::Given(stream) => Pin::new(stream),
            Kind::Hyper(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

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
    let (downstream, upstream) = tokio::try_join!(downstream, upstream)?;
    join(downstream, upstream).await
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
    join(downstream.await?, upstream).await
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
    upgrade.await
}
