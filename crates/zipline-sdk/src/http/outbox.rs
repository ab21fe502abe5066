//! What is still to be sent of a request, without I/O: its head, and its body at once or in pieces.

use std::collections::VecDeque;
use std::io::{IoSlice, Write as _};

use bytes::Bytes;
use http::HeaderMap;

/// A piece up to this length is sent in one part with what frames it, and a body with its head.
pub(super) const TOGETHER_BYTES: usize = 16 * 1024;
/// Parts that are given to the kernel in one call.
const PARTS_MAX: usize = 4;

/// How the body of a request is sent.
#[derive(Debug)]
pub(crate) enum Sending {
    /// These bytes.
    Whole(Bytes),
    /// So many bytes, in pieces.
    Sized(u64),
    /// Pieces, until there are no more.
    Chunked,
}

/// Why pieces do not make up the body that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    Longer,
    /// By so many bytes.
    Shorter(u64),
}

#[derive(Debug)]
enum Rest {
    /// Nothing.
    None,
    /// Pieces of so many bytes.
    Sized(u64),
    Chunked,
}

#[derive(Debug)]
pub(super) struct Outbox {
    /// None of them is empty. At most a head and a piece with its frame.
    unsent: VecDeque<Bytes>,
    rest: Rest,
}

impl Outbox {
    pub(super) fn new(mut head: Vec<u8>, body: Sending) -> Self {
        let (whole, rest) = match body {
            Sending::Whole(bytes) => (bytes, Rest::None),
            Sending::Sized(0) => (Bytes::new(), Rest::None),
            Sending::Sized(length) => (Bytes::new(), Rest::Sized(length)),
            Sending::Chunked => (Bytes::new(), Rest::Chunked),
        };
        let apart = whole.len() > TOGETHER_BYTES;
        if !apart {
            head.extend_from_slice(&whole);
        }
        let mut unsent = VecDeque::from([head.into()]);
        if apart {
            unsent.push_back(whole);
        }
        Self { unsent, rest }
    }

    /// Whether the next piece is wanted: what came before it is sent.
    pub(super) fn wants(&self) -> bool {
        self.unsent.is_empty() && !matches!(self.rest, Rest::None)
    }

    /// Bytes that are still to come, if they are counted.
    pub(super) fn left(&self) -> Option<u64> {
        match self.rest {
            Rest::None => Some(0),
            Rest::Sized(left) => Some(left),
            Rest::Chunked => None,
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        self.unsent.is_empty() && matches!(self.rest, Rest::None)
    }

    /// Whether there is something to send now.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The next piece.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<(), Misfit> {
        // An empty chunk would end the body.
        if piece.is_empty() {
            return Ok(());
        }
        match &mut self.rest {
            Rest::None => return Err(Misfit::Longer),
            Rest::Sized(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Misfit::Longer)?;
                if *left == 0 {
                    self.rest = Rest::None;
                }
                self.unsent.push_back(piece);
            }
            Rest::Chunked => {
                let mut frame = format!("{:x}\r\n", piece.len()).into_bytes();
                if piece.len() <= TOGETHER_BYTES {
                    frame.extend_from_slice(&piece);
                    frame.extend_from_slice(b"\r\n");
                    self.unsent.push_back(frame.into());
                } else {
                    self.unsent.extend([frame.into(), piece, Bytes::from_static(b"\r\n")]);
                }
            }
        }
        Ok(())
    }

    /// There are no more pieces. Trailers are sent where the length was not.
    pub(super) fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Misfit> {
        match self.rest {
            Rest::None => return Ok(()),
            Rest::Sized(left) => return Err(Misfit::Shorter(left)),
            Rest::Chunked => {}
        }
        let mut end = b"0\r\n".to_vec();
        for (name, value) in trailers.into_iter().flatten() {
            let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            line.iter().for_each(|part| end.extend_from_slice(part));
        }
        end.extend_from_slice(b"\r\n");
        self.unsent.push_back(end.into());
        self.rest = Rest::None;
        Ok(())
    }

    /// Has `send` send the first parts, and forgets what it says was sent.
    pub(super) fn send<E>(
        &mut self,
        send: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut parts = [IoSlice::new(&[]); PARTS_MAX];
        let count =
            parts.iter_mut().zip(&self.unsent).map(|(part, bytes)| *part = IoSlice::new(bytes)).count();
        let sent = send(&parts[..count])?;
        let mut left = sent;
        while let Some(first) = self.unsent.front_mut().filter(|_| left > 0) {
            let here = left.min(first.len());
            let _ = first.split_to(here);
            left -= here;
            self.unsent.pop_front_if(|first| first.is_empty());
        }
        Ok(sent)
    }
}

/// The header line that says how the body is sent.
pub(super) fn framing(body: &Sending, head: &mut Vec<u8>) {
    let length = match body {
        Sending::Whole(bytes) => bytes.len() as u64,
        Sending::Sized(length) => *length,
        Sending::Chunked => {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n");
            return;
        }
    };
    // Writing to memory never fails.
    let _ = write!(head, "content-length: {length}\r\n");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// All that is sent, if the kernel takes `step` bytes at a time.
    fn sent(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while outbox.has_unsent() {
            let taken = outbox.send(|parts| {
                let parts: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
                let here = step.min(parts.len());
                all.extend_from_slice(&parts[..here]);
                Ok::<_, ()>(here)
            });
            assert!(taken.unwrap() > 0);
        }
        all
    }

    #[test]
    fn pieces_are_framed_whatever_the_kernel_takes() {
        let large = vec![b'x'; TOGETHER_BYTES + 1];
        for step in [1, 7, 100, 1_000_000] {
            let mut outbox = Outbox::new(b"head|".to_vec(), Sending::Chunked);
            let mut all = sent(&mut outbox, step);
            for piece in [&b"one"[..], b"", &large] {
                assert!(outbox.wants() && outbox.left().is_none());
                outbox.push(Bytes::copy_from_slice(piece)).unwrap();
                all.extend(sent(&mut outbox, step));
            }
            let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("a"))]);
            outbox.finish(Some(&trailers)).unwrap();
            all.extend(sent(&mut outbox, step));
            let expected = [b"head|3\r\none\r\n4001\r\n", &large[..], b"\r\n0\r\netag: a\r\n\r\n"].concat();
            assert!(all == expected && outbox.is_sent() && !outbox.wants(), "{step}");
        }
    }

    #[test]
    fn a_length_is_kept_to() {
        let mut outbox = Outbox::new(Vec::from(*b"h"), Sending::Sized(5));
        assert_eq!(sent(&mut outbox, 9), b"h");
        outbox.push(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(outbox.left(), Some(2));
        assert_eq!(outbox.finish(None), Err(Misfit::Shorter(2)));
        assert_eq!(outbox.push(Bytes::from_static(b"xyz")), Err(Misfit::Longer));
        outbox.push(Bytes::from_static(b"de")).unwrap();
        assert_eq!(sent(&mut outbox, 1), b"abcde");
        assert!(outbox.is_sent() && outbox.finish(None).is_ok());
        assert_eq!(outbox.push(Bytes::from_static(b"f")), Err(Misfit::Longer));
        assert!(Outbox::new(Vec::new(), Sending::Sized(0)).rest_is_none());
    }

    impl Outbox {
        fn rest_is_none(&self) -> bool {
            matches!(self.rest, Rest::None)
        }
    }
}
