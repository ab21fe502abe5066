//! Sends the bytes of one lease, and the final record.
//!
//! Pieces that lie in a mapping go from there to the socket by the kernel's hand: the socket is given the pages themselves, and the
//! store does not write them again before the receiver has acknowledged ([`PayloadReader::queue`]). Over TLS, out of a window, and
//! where they are small, pieces are written. What is there at once goes in one system call: of a small payload the head, the bytes
//! and the final record. Of a payload of known length all bytes are one chunk; of a growing one, each piece is a chunk of its own.

use super::Shared;
use super::connection::gone;
use super::link::{Link, LinkError};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::Ordering;
use zipline_buffer::{PayloadReader, ReadError};
use zipline_protocol::header;
use zipline_seal::ProvenRequest;

/// Most bytes of one piece: each is progress of the lease, and nothing else happens on its connection meanwhile.
const PIECE: usize = 1 << 20;
/// From this size on, the kernel sends a piece without a copy. Below, the system call and a second wake-up of the receiver cost more.
const SEND_FILE: usize = 256 * 1024;
/// So many bytes are gathered before they are written.
const GATHER: usize = 256 * 1024;
/// Parts of one write.
const PARTS: usize = 16;

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The bytes that were to follow are gone, or the lease is another connection's now.
    #[error(transparent)]
    Payload(#[from] ReadError),
    /// The peer closed while the payload's next bytes were waited for.
    #[error("the peer closed the connection")]
    Gone,
}

/// Parts that wait to be written.
#[derive(Default)]
struct Outbox {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    fn push(&mut self, part: impl Into<Bytes>) {
        let part = part.into();
        self.bytes += part.len();
        self.parts.push_back(part);
    }

    fn is_full(&self) -> bool {
        self.bytes >= GATHER || self.parts.len() >= PARTS
    }

    async fn flush(&mut self, link: &mut Link) -> Result<(), LinkError> {
        while !self.parts.is_empty() {
            let mut slices = [IoSlice::new(&[]); PARTS];
            let count = self.parts.len().min(PARTS);
            for (slice, part) in slices.iter_mut().zip(&self.parts) {
                *slice = IoSlice::new(part);
            }
            let written = link.write(&slices[..count]).await?;
            self.written(written);
        }
        Ok(())
    }

    fn written(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.parts.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.parts.pop_front();
        }
    }
}

/// Sends `head`, the bytes of `reader` and the final record. `span` is how many bytes that will be, if it is known.
///
/// # Cancel safety
/// None: close the connection.
pub(super) async fn send(
    link: &mut Link,
    inbox: &mut BytesMut,
    shared: &Shared,
    mut head: String,
    mut reader: PayloadReader,
    proven: &ProvenRequest,
    span: Option<u64>,
) -> Result<(), SendError> {
    let one_chunk = span.filter(|span| *span > 0);
    if let Some(span) = one_chunk {
        head.push_str(&format!("{span:x}\r\n"));
    }
    let mut outbox = Outbox::default();
    outbox.push(head);
    loop {
        let next = match reader.next_piece(PIECE).now_or_never() {
            Some(next) => next,
            // What is there goes before more is waited for.
            None => {
                outbox.flush(link).await?;
                tokio::select! {
                    biased;
                    next = reader.next_piece(PIECE) => next,
                    () = gone(link, inbox) => return Err(SendError::Gone),
                }
            }
        };
        let Some(piece) = next.transpose()? else { break };
        shared.counters.sent_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if one_chunk.is_none() {
            outbox.push(format!("{:x}\r\n", piece.len()));
        }
        let place = if piece.len() >= SEND_FILE && link.is_plain() { reader.queue(&piece) } else { None };
        match place {
            Some(place) => {
                outbox.flush(link).await?;
                link.send_file(place, piece.len()).await?;
            }
            None => outbox.push(piece),
        }
        if one_chunk.is_none() {
            outbox.push("\r\n");
        }
        if outbox.is_full() {
            outbox.flush(link).await?;
        }
    }
    // The final record speaks of the whole payload: a range of one that still fills waits for it.
    let record = match reader.completed().now_or_never() {
        Some(record) => record?,
        None => {
            outbox.flush(link).await?;
            tokio::select! {
                biased;
                record = reader.completed() => record?,
                () = gone(link, inbox) => return Err(SendError::Gone),
            }
        }
    };
    let (proof, trailers) = proven.sign_final(&record);
    let mut end = String::new();
    if one_chunk.is_some() {
        end.push_str("\r\n");
    }
    end.push_str(&format!("0\r\n{}: {proof}\r\n", header::FINAL));
    if let Some(trailers) = trailers {
        end.push_str(&format!("{}: {trailers}\r\n", header::TRAILERS));
    }
    end.push_str("\r\n");
    outbox.push(end);
    outbox.flush(link).await?;
    Ok(())
}
