//! Sockets of client connections, which can be asked whether the peer has closed them.

use super::ClientConfig;
use super::error::SendError;
use super::target::HostPort;
use crate::loopback;
use crate::resolve::Resolver;
use parking_lot::Mutex;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// What an idle connection's receive queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    Empty,
    Bytes,
    Closed,
}

/// Looks into the receive queue of a connection that hyper owns.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    // Locked for one system call at a time, by one reactor: never contended.
    stream: Arc<Mutex<TcpStream>>,
}

impl Probe {
    /// As the kernel has it.
    pub(super) fn queue(&self) -> Queue {
        queue(&self.stream.lock())
    }
}

/// What the receive queue holds as the kernel has it.
pub(super) fn queue(stream: &TcpStream) -> Queue {
    judge(peek(stream))
}

/// As far as the reactor has been told; costs no system call while it has been told nothing.
pub(super) fn queue_as_told(stream: &TcpStream) -> Queue {
    judge(stream.try_io(Interest::READABLE, || peek(stream)))
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    socket2::SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
}

fn judge(peeked: io::Result<usize>) -> Queue {
    match peeked {
        Ok(0) => Queue::Closed,
        Ok(_) => Queue::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Queue::Empty,
        Err(_) => Queue::Closed,
    }
}

/// The socket as hyper uses it.
///
/// A peer that answers early and closes makes writes fail while its answer still waits to be read. So a failed write is
/// not reported: what follows is discarded, and reading says whether there is a response or an error.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: Arc<Mutex<TcpStream>>,
    broken: bool,
}

/// How much longer each further attempt to connect may take.
const ATTEMPT_GROWTH: f64 = 1.4;
/// Pause between two attempts to connect, and by how much it may be longer.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(30);

/// Connects with `TCP_NODELAY`, trying every address of the host within the limit of `config`.
pub(super) async fn connect(
    resolver: &Resolver,
    addr: &HostPort,
    config: &ClientConfig,
) -> Result<TcpStream, SendError> {
    let limit = config.connect_timeout;
    let connecting = async {
        let addresses = resolver.resolve(addr.host(), addr.port()).await?;
        let mut attempt = config.connect_attempt.unwrap_or(Duration::MAX);
        loop {
            if let Ok(result) = timeout(attempt, open(&addresses)).await {
                return result;
            }
            attempt = attempt.mul_f64(ATTEMPT_GROWTH);
            sleep(ATTEMPT_PAUSE + ATTEMPT_PAUSE.mul_f64(spread())).await;
        }
    };
    match timeout(limit, connecting).await {
        Ok(result) => result.and_then(|stream| stream.set_nodelay(true).map(|()| stream)),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))),
    }
    .and_then(not_itself)
    .map_err(|source| SendError::Connect { addr: addr.clone(), source })
}

/// The socket for hyper, and a look into it for us.
pub(super) fn share(stream: TcpStream) -> (ClientIo, Probe) {
    let stream = Arc::new(Mutex::new(stream));
    (ClientIo { stream: Arc::clone(&stream), broken: false }, Probe { stream })
}

async fn open(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    match addresses {
        [address] => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            loopback::tune(&socket, address.ip());
            socket.connect(*address).await
        }
        addresses => TcpStream::connect(addresses).await,
    }
}

/// A number from 0 to 1 that differs from time to time, so that those who wait do not come back together.
fn spread() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let drawn = RandomState::new().hash_one(0_u8) >> 32;
    f64::from(u32::try_from(drawn).unwrap_or(0)) / f64::from(u32::MAX)
}

/// Where nobody listens on an ephemeral port, the kernel may choose that very port for the near end, and the socket is
/// connected to itself.
fn not_itself(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "connected to itself, so nobody listens",
        ));
    }
    Ok(stream)
}

fn is_broken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}

impl ClientIo {
    fn discard_if_broken(
        &mut self,
        result: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(error)) if is_broken(&error) => {
                self.broken = true;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut *self.stream.lock()).poll_write(cx, buf);
        self.discard_if_broken(result, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The kernel's way for one buffer is the shorter one.
        if let [buf] = bufs {
            return self.poll_write(cx, buf);
        }
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.broken {
            return Poll::Ready(Ok(length));
        }
        let result = Pin::new(&mut *self.stream.lock()).poll_write_vectored(cx, bufs);
        self.discard_if_broken(result, length)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_shutdown(cx)
    }
}
