//! Looks at the first bytes of a tunnel to a function: is it HTTP, TLS, or something else?

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use zipline_http::Rewind;

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
pub(super) async fn sniff<S: AsyncRead + Unpin>(mut io: S) -> io::Result<(Start, Rewind<S>)> {
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
    Ok((found, Rewind::new(Bytes::copy_from_slice(&start[..length]), io)))
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
