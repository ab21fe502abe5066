//! Reading a socket: into memory of the thread's while nobody knows how much will come, and into memory that is passed on as it
//! is where much will.

use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// What one read brings at most when nobody knows how much will come. The memory is the thread's, so that idle connections
/// have none.
const SCRATCH_BYTES: usize = 32 * 1024;
/// What one read of a long body brings at first, and at most.
const READ_BYTES: usize = 32 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// What was read and not understood yet, and how much is read at a time.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) read: Bytes,
    long: usize,
}

impl Fill {
    pub(crate) const fn new(read: Bytes) -> Self {
        Self { read, long: READ_BYTES }
    }

    /// Reads into `memory`, past everything here: for a body of which at least `direct` bytes are to come, when all that was
    /// read is understood. An end before them is an error.
    pub(crate) fn poll_direct<I: AsyncRead>(
        &self,
        io: Pin<&mut I>,
        memory: &mut [u8],
        direct: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.read.is_empty() && direct > 0 && !memory.is_empty());
        let most = memory.len().min(usize::try_from(direct).unwrap_or(usize::MAX));
        let mut buf = ReadBuf::new(&mut memory[..most]);
        ready!(io.poll_read(cx, &mut buf))?;
        Poll::Ready(match buf.filled().len() {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended before the end of the body",
            )),
            length => Ok(length),
        })
    }

    /// Reads on; 0 bytes are the peer's end.
    pub(crate) fn poll<I: AsyncRead>(
        &mut self,
        io: Pin<&mut I>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let read = &mut self.read;
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(io.poll_read(cx, &mut buf))?;
            let new = buf.filled();
            if read.is_empty() {
                *read = Bytes::copy_from_slice(new);
            } else if !new.is_empty() {
                *read = [&read[..], new].concat().into();
            }
            Poll::Ready(Ok(new.len()))
        })
    }

    /// As [`Self::poll`], for a body of which `left` bytes are to come, when all that was read is understood.
    pub(crate) fn poll_long<I: AsyncRead + Unpin>(
        &mut self,
        mut io: Pin<&mut I>,
        left: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if left < SCRATCH_BYTES as u64 || !self.read.is_empty() {
            return self.poll(io, cx);
        }
        let want = self.long.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut memory = BytesMut::with_capacity(want);
        let reading = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(&mut *io, &mut memory));
        let length = ready!(std::future::Future::poll(reading, cx))?;
        if length == want {
            self.long = (self.long * 2).min(READ_BYTES_MAX);
        } else if length < want / 2 {
            self.long = (self.long / 2).max(READ_BYTES);
        }
        self.read = memory.freeze();
        Poll::Ready(Ok(length))
    }
}
