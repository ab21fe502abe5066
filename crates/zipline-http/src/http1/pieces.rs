//! Writing a message in as few system calls as its pieces allow.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Bodies up to this length are copied behind their head: one buffer is written faster than two.
pub(crate) const COPY_BYTES: usize = 4096;

/// Writes what follows the first `written` bytes of the pieces, and counts on.
pub(crate) fn poll_write<I: AsyncWrite>(
    mut io: Pin<&mut I>,
    pieces: [&[u8]; 3],
    written: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let whole: usize = pieces.iter().map(|piece| piece.len()).sum();
    while *written < whole {
        let (mut slices, mut count) = ([IoSlice::new(&[]); 3], 0);
        let mut skip = *written;
        for piece in pieces {
            let from = skip.min(piece.len());
            skip -= from;
            if from < piece.len() {
                slices[count] = IoSlice::new(&piece[from..]);
                count += 1;
            }
        }
        let result = match &slices[..count] {
            // The kernel's way for one buffer is the shorter one.
            [one] => io.as_mut().poll_write(cx, one),
            many => io.as_mut().poll_write_vectored(cx, many),
        };
        match ready!(result)? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            more => *written += more,
        }
    }
    Poll::Ready(Ok(()))
}
