//! Connecting to a holder that has one or two addresses.

use super::RetrieverConfig;
use crate::{sockets, tls};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// A connection to a holder, ready for HTTP. Dropping it closes it.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket, if nothing lies between it and the bytes.
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(_) => None,
        }
    }

    /// Whether nothing came, not even the end: of an idle connection that nobody reads.
    pub(super) fn is_quiet(&self) -> bool {
        // Over TLS, session tickets may wait to be read.
        let (tcp, may_say_something) = match self {
            Self::Plain(tcp) => (tcp, false),
            Self::Tls(tls) => (tls.get_ref().0, true),
        };
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match socket2::SockRef::from(tcp).peek(&mut byte) {
            Ok(read) => read > 0 && may_say_something,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Connects to the first of `addresses` that answers: the second one starts when the first has failed or after the
/// stagger, whichever is earlier. Each has the connect timeout. With
/// `certificate`, the digest of one, an answer is a TLS handshake that shows it; nothing else was sent before.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    certificate: Option<[u8; 32]>,
    config: &RetrieverConfig,
) -> io::Result<(Stream, SocketAddr)> {
    let one = |address: SocketAddr| async move {
        let connecting = async {
            let stream = sockets::connect(address).await?;
            match certificate {
                None => Ok(Stream::Plain(stream)),
                Some(digest) => Ok(Stream::Tls(Box::new(tls::connect(stream, digest).await?))),
            }
        };
        let stream = timeout(config.connect_timeout, connecting).await;
        stream.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())).map(|stream| (stream, address))
    };
    let (first, second) = match *addresses {
        [] => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the holder has no address")),
        [only] => return one(only).await,
        [first, second, ..] => (first, second),
    };
    let mut first = pin!(one(first));
    match timeout(config.connect_stagger, &mut first).await {
        Ok(Ok(connected)) => return Ok(connected),
        Ok(Err(_)) => return one(second).await,
        Err(_head_start_over) => {}
    }
    let mut second = pin!(one(second));
    tokio::select! {
        connected = &mut first => match connected {
            Ok(connected) => Ok(connected),
            Err(_) => second.await,
        },
        connected = &mut second => match connected {
            Ok(connected) => Ok(connected),
            Err(_) => first.await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A listener whose queue is full: connecting to it neither succeeds nor fails.
    async fn black_hole() -> (socket2::Socket, SocketAddr, Vec<TcpStream>) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut fill = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
            fill.push(stream);
        }
        (socket, address, fill)
    }

    async fn refused() -> SocketAddr {
        let listener = sockets::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_silent_first_address_does_not_hold_up_the_second() {
        let config =
            RetrieverConfig { connect_stagger: Duration::from_millis(20), ..RetrieverConfig::default() };
        let (_socket, silent, _fill) = black_hole().await;
        let listener = sockets::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let good = listener.local_addr().unwrap();
        assert_eq!(connect(&[silent, good], None, &config).await.unwrap().1, good);
        assert_eq!(connect(&[good, silent], None, &config).await.unwrap().1, good);
        let bad = refused().await;
        assert_eq!(connect(&[bad, good], None, &config).await.unwrap().1, good);
    }

    #[tokio::test]
    async fn a_silent_address_ends_at_the_connect_timeout() {
        let config = RetrieverConfig {
            connect_timeout: Duration::from_millis(60),
            connect_stagger: Duration::from_millis(20),
            ..RetrieverConfig::default()
        };
        let (_socket, silent, _fill) = black_hole().await;
        let error = connect(&[silent], None, &config).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = connect(&[silent, refused().await], None, &config).await.unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused));
        assert_eq!(connect(&[], None, &config).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
