//! A connection's socket, in plain or over TLS, with the time limits of those who take nothing.

use super::DataPortConfig;
use super::slots::Slot;
use bytes::{BufMut, BytesMut};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use zipline_segment::Place;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The peer took no bytes for too long.
    #[error("the peer took no bytes for too long")]
    Stuck,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
}

#[derive(Debug)]
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to a receiver.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    patience: Patience,
}

/// How long a peer may take nothing.
#[derive(Debug)]
struct Patience {
    /// Then the connection is closed.
    lapse: Duration,
    /// Then others are sent to in its place, and it goes on beside them.
    slow_after: Duration,
    slot: Option<Slot>,
}

impl Link {
    pub(super) fn plain(stream: TcpStream, config: &DataPortConfig) -> Self {
        Self { socket: Socket::Plain(stream), patience: Patience::of(config) }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, config: &DataPortConfig) -> Self {
        Self { socket: Socket::Tls(Box::new(stream)), patience: Patience::of(config) }
    }

    /// What is written from now on is a large send with this slot, or without one.
    pub(super) fn set_slot(&mut self, slot: Option<Slot>) {
        self.patience.slot = slot;
    }

    /// Reads what is there into `inbox`, at most `most` bytes; 0 is the end.
    ///
    /// # Cancel safety
    /// Yes.
    pub(super) async fn read(&mut self, inbox: &mut BytesMut, most: usize) -> io::Result<usize> {
        // A head that what is left of the buffer cuts in two costs a second read.
        inbox.reserve(most);
        let mut room = inbox.limit(most);
        match &mut self.socket {
            Socket::Plain(stream) => stream.read_buf(&mut room).await,
            Socket::Tls(stream) => stream.read_buf(&mut room).await,
        }
    }

    /// Writes some of `parts`: at least one byte.
    pub(super) async fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, LinkError> {
        let Self { socket, patience } = self;
        let writing = async {
            match socket {
                Socket::Plain(stream) => stream.write_vectored(parts).await,
                Socket::Tls(stream) => {
                    let written = stream.write_vectored(parts).await?;
                    // What the TLS layer took is not yet on its way; it holds at most one record's worth.
                    stream.flush().await?;
                    Ok(written)
                }
            }
        };
        match patience.wait(writing).await? {
            0 => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            written => Ok(written),
        }
    }

    /// Writes all of `bytes`.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            let written = self.write(&[IoSlice::new(bytes)]).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Whether the kernel may send files on it.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.socket, Socket::Plain(_))
    }

    /// Hands the `left` bytes at `place` to the socket without a copy; their pages stay with it until the peer has read them.
    ///
    /// # Panics
    /// Over TLS.
    pub(super) async fn send_file(&mut self, place: Place<'_>, mut left: usize) -> Result<(), LinkError> {
        let Self { socket, patience } = self;
        let Socket::Plain(stream) = socket else { unreachable!("only plain connections send files") };
        let mut offset = place.offset;
        while left > 0 {
            let sending = stream.async_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(&*stream, place.fd(), Some(&mut offset), left)?)
            });
            let sent = patience.wait(sending).await?;
            if sent == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            left -= sent;
        }
        Ok(())
    }

    /// Says that nothing more comes, and waits a while for the peer to say so too: closing while bytes of it are unread
    /// would destroy what it was just told.
    pub(super) async fn finish(mut self, most: usize) {
        let ending = async {
            let stream: Pin<&mut dyn Duplex> = match &mut self.socket {
                Socket::Plain(stream) => Pin::new(stream),
                Socket::Tls(stream) => Pin::new(stream.as_mut()),
            };
            let stream = stream.get_mut();
            if stream.shutdown().await.is_err() {
                return;
            }
            let (mut nothing, mut left) = ([0; 1024], most);
            while left > 0 {
                match stream.read(&mut nothing).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        };
        // Whether it took too long or not, it is over.
        let _ = timeout(self.patience.lapse, ending).await;
    }
}

impl Patience {
    fn of(config: &DataPortConfig) -> Self {
        Self { lapse: config.lease_lapse, slow_after: config.slow_after, slot: None }
    }

    /// Waits until the peer takes something. One that lets others wait meanwhile gives its slot up.
    async fn wait<T>(&mut self, taking: impl Future<Output = io::Result<T>>) -> Result<T, LinkError> {
        let mut taking = pin!(taking);
        let mut left = self.lapse;
        if self.slot.is_some() && self.slow_after < left {
            match timeout(self.slow_after, &mut taking).await {
                Ok(taken) => return Ok(taken?),
                Err(_elapsed) => self.slot = None,
            }
            left -= self.slow_after;
        }
        Ok(timeout(left, taking).await.map_err(|_elapsed| LinkError::Stuck)??)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}
