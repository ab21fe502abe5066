//! Frames over a Unix socket, with descriptors on some.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::net::UnixStream;
use zipline_protocol::sdk::{FRAME_MAX, FrameHead, HEAD_BYTES};
use zipline_segment::passing;

/// Bytes read at a time while a frame's length is not known.
const READ_BYTES: usize = 4096;

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Frames {
    stream: UnixStream,
    /// What has come and was not taken yet: never more than one frame and one read.
    buffer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Bytes of the frame that was handed out last, still in the buffer.
    taken: usize,
}

impl Frames {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), descriptors: Vec::new(), taken: 0 }
    }

    /// The next frame and the descriptor that came with it, if one did; `None` at the end of the connection.
    ///
    /// # Errors
    /// The connection broke, ended within a frame, or sent what is no frame.
    /// # Cancel safety
    /// Yes: what has come so far stays.
    pub(super) async fn next(&mut self) -> io::Result<Option<(FrameHead, &[u8], Option<OwnedFd>)>> {
        self.buffer.drain(..std::mem::take(&mut self.taken));
        let head = loop {
            let head = FrameHead::read(&self.buffer).map_err(invalid)?;
            if let Some(head) = head.filter(|head| self.buffer.len() >= HEAD_BYTES + head.body_bytes) {
                break head;
            }
            let wanted = head.map_or(READ_BYTES, |head| HEAD_BYTES + head.body_bytes - self.buffer.len());
            if self.read(wanted).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        };
        self.taken = HEAD_BYTES + head.body_bytes;
        let mut descriptors = std::mem::take(&mut self.descriptors);
        if descriptors.len() > 1 {
            return Err(invalid("more than one descriptor with a frame"));
        }
        Ok(Some((head, &self.buffer[HEAD_BYTES..self.taken], descriptors.pop())))
    }

    async fn read(&mut self, wanted: usize) -> io::Result<usize> {
        let start = self.buffer.len();
        let most = wanted.clamp(READ_BYTES, FRAME_MAX + HEAD_BYTES);
        let (stream, buffer, descriptors) = (&self.stream, &mut self.buffer, &mut self.descriptors);
        let read = stream
            .async_io(Interest::READABLE, || {
                buffer.resize(start + most, 0);
                let read = passing::receive(stream.as_fd(), &mut buffer[start..], descriptors);
                buffer.truncate(start + read.as_ref().copied().unwrap_or(0));
                read
            })
            .await;
        // Descriptors without frames to carry them would pile up.
        match descriptors.len() {
            0 | 1 => read,
            _ => Err(invalid("more descriptors than frames")),
        }
    }

    /// Sends one frame, the descriptor on its first byte.
    ///
    /// # Errors
    /// The connection broke.
    /// # Cancel safety
    /// None: the connection is of no use afterwards.
    pub(super) async fn send(&self, frame: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut sent = 0;
        while sent < frame.len() {
            let with = if sent == 0 { descriptor.as_slice() } else { &[] };
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    passing::send(self.stream.as_fd(), &[IoSlice::new(&frame[sent..])], with)
                })
                .await?;
        }
        Ok(())
    }
}

pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
