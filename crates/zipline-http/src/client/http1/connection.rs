//! A connection of one request at a time. Whoever has it reads and writes it; no task stands between.

use crate::client::socket::{self, Queue};
use crate::client::target::HostPort;
use crate::client::{Inner, Open, SendError};
use crate::http1::fill::Fill;
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What a response is read from.
pub(super) struct Reader {
    io: OwnedReadHalf,
    pub(super) fill: Fill,
}

/// What a request is written to; it counts as the connection.
pub(super) struct Writer {
    pub(super) io: OwnedWriteHalf,
    open: Open,
}

pub(super) struct Connection {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

pub(super) async fn open(inner: &Arc<Inner>, addr: &HostPort) -> Result<Connection, SendError> {
    let (stream, open) = inner.connect(addr).await?;
    let (read, write) = stream.into_split();
    let reader = Reader { io: read, fill: Fill::new(Bytes::new()) };
    Ok(Connection { reader, writer: Writer { io: write, open } })
}

impl Reader {
    /// Reads on; 0 bytes are the peer's end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.fill.poll(Pin::new(&mut self.io), cx)
    }

    /// As [`Self::poll_fill`], for a body of which `left` bytes are to come.
    pub(super) fn poll_fill_long(&mut self, left: u64, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.fill.poll_long(Pin::new(&mut self.io), left, cx)
    }

    /// Reads into `memory`, for a body of which at least `direct` bytes are to come; an end before them is an error.
    pub(super) fn poll_direct(
        &mut self,
        memory: &mut [u8],
        direct: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.fill.poll_direct(Pin::new(&mut self.io), memory, direct, cx)
    }

    /// Whether all that was read has been understood: between two exchanges nothing else may be there.
    pub(super) fn is_clean(&self) -> bool {
        self.fill.read.is_empty()
    }
}

impl Connection {
    /// As far as the reactor has been told; costs no system call while it has been told nothing.
    pub(super) fn queue_as_told(&self) -> Queue {
        socket::queue_as_told(self.reader.io.as_ref())
    }

    /// As the kernel has it.
    pub(super) fn queue(&self) -> Queue {
        socket::queue(self.reader.io.as_ref())
    }

    /// Has `waker` woken when the idle connection ends, or speaks unasked; whether neither is so yet.
    pub(super) fn watch(&self, waker: &mut Context<'_>) -> bool {
        loop {
            match self.reader.io.as_ref().poll_read_ready(waker) {
                Poll::Pending => return true,
                // Finding nothing clears what the reactor had been told.
                Poll::Ready(Ok(())) if self.queue_as_told() == Queue::Empty => {}
                Poll::Ready(_) => return false,
            }
        }
    }

    /// The socket and what was read of it, for whatever comes after HTTP.
    pub(super) fn into_stream(self) -> Option<(Bytes, tokio::net::TcpStream)> {
        let Self { reader, writer } = self;
        drop(writer.open);
        let stream = reader.io.reunite(writer.io).ok()?;
        Some((reader.fill.read, stream))
    }
}
