//! Looks at the first bytes of a tunnel to a function: is it HTTP, TLS, or something else?

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The start of every HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest method that counts as HTTP/1.
const METHOD_MAX: usize = 16;

/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// HTTP/1 or HTTP/2 in clear.
    Http,
    /// TLS: nobody can look into it.
    Tls,
    /// Anything else.
    Other,
}

/// Reads just enough of `io` to tell, and puts it back. A stream that ends first is [`Start::Other`].
///
/// # Errors
/// Those of `io`.
pub(super) async fn sniff<S: AsyncRead + Unpin>(mut io: S) -> io::Result<(Start, Rewound<S>)> {
    let mut start = [0; PREFACE.len()];
    let mut length = 0;
    let found = loop {
        if let Some(found) = decide(&start[..length]) {
            break found;
        }
        match io.read(&mut start[length..]).await? {
            0 => break Start::Other,
            read => length += read,
        }
    };
    Ok((found, Rewound { start, position: 0, length, io }))
}

/// `None`: more bytes are needed.
fn decide(start: &[u8]) -> Option<Start> {
    if *start.first()? == TLS_HANDSHAKE {
        return Some(Start::Tls);
    }
    if PREFACE.starts_with(start) {
        return (start.len() == PREFACE.len()).then_some(Start::Http);
    }
    let method =
        start.iter().position(|byte| !byte.is_ascii_uppercase() && *byte != b'-').unwrap_or(start.len());
    match start.get(method) {
        Some(b' ') if (1..=METHOD_MAX).contains(&method) => Some(Start::Http),
        None if method <= METHOD_MAX => None,
        _ => Some(Start::Other),
    }
}

/// A stream whose start was read and put back.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    start: [u8; PREFACE.len()],
    position: usize,
    length: usize,
    io: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.position < this.length {
            let put = buf.remaining().min(this.length - this.position);
            buf.put_slice(&this.start[this.position..this.position + put]);
            this.position += put;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(bytes: &'static [u8]) -> Start {
        let (start, mut rewound) = sniff(bytes).await.unwrap();
        let mut all = Vec::new();
        rewound.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, bytes, "what was read is put back");
        start
    }

    #[tokio::test]
    async fn http_is_told_from_the_rest() {
        assert_eq!(found(b"GET / HTTP/1.1\r\n\r\n").await, Start::Http);
        assert_eq!(found(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore").await, Start::Http);
        assert_eq!(found(b"PROPFIND / HTTP/1.1\r\n").await, Start::Http);
        assert_eq!(found(b"M-SEARCH * HTTP/1.1\r\n").await, Start::Http);
        assert_eq!(found(b"\x16\x03\x01\x02\x00").await, Start::Tls);
        for other in [&b"SSH-2.0-x\r\n"[..], b"", b"PRI", b" GET", b"AAAAAAAAAAAAAAAAAAAAAAAA GET", b"\0"] {
            assert_eq!(found(other).await, Start::Other, "{other:?}");
        }
    }
}
