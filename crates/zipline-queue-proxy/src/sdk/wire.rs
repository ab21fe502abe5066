//! The socket of one SDK connection: frames in, frames and descriptors out. Never blocks; whoever owns it waits.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use bytes::{Bytes, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;
use zipline_protocol::sdk::{Answer, FrameError, FrameHead, HEAD_BYTES};

/// What one read takes at least, where there is more to read.
const READ_BYTES: usize = 16 * 1024;

/// Answers wait for the client up to this many bytes; then nothing is read from it until it has taken some.
const OUT_MAX: usize = 1024 * 1024;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The client has gone.
    #[error("closed by the client")]
    Closed,
    /// The client broke the protocol.
    #[error("the client broke the protocol")]
    Frame(#[from] FrameError),
    /// The client broke a rule of its state.
    #[error("the client broke the protocol: {0}")]
    Rule(&'static str),
    /// The socket failed.
    #[error("the socket failed")]
    Io(#[from] io::Error),
}

/// Bytes to be sent; the descriptor rides on the first of them.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    sent: usize,
    descriptor: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    input: BytesMut,
    output: VecDeque<Chunk>,
    output_bytes: usize,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, input: BytesMut::with_capacity(READ_BYTES), output: VecDeque::new(), output_bytes: 0 }
    }

    /// Takes `bytes` off the input if it starts with them; `None` while it may still.
    pub(super) fn starts_with(&mut self, bytes: &[u8]) -> Option<bool> {
        let there = self.input.len().min(bytes.len());
        if self.input[..there] != bytes[..there] {
            return Some(false);
        }
        (there == bytes.len()).then(|| {
            drop(self.input.split_to(there));
            true
        })
    }

    /// The next whole frame.
    pub(super) fn next_frame(&mut self) -> Result<Option<(FrameHead, Bytes)>, FrameError> {
        let Some(head) = FrameHead::read(&self.input)? else { return Ok(None) };
        let whole = HEAD_BYTES + head.body_bytes;
        if self.input.len() < whole {
            self.input.reserve(whole - self.input.len());
            return Ok(None);
        }
        let mut frame = self.input.split_to(whole).freeze();
        let body = frame.split_off(HEAD_BYTES);
        Ok(Some((head, body)))
    }

    /// Whether the client has taken enough of its answers to ask for more.
    pub(super) fn may_read(&self) -> bool {
        self.output_bytes < OUT_MAX
    }

    /// Reads what is there.
    pub(super) fn read(&mut self) -> Result<(), End> {
        self.input.reserve(READ_BYTES);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Queues an answer.
    pub(super) fn say(&mut self, answer: &Answer<'_>) {
        let before = self.output_bytes;
        match self.output.back_mut().filter(|last| last.bytes.len() < OUT_MAX) {
            Some(last) => {
                let length = last.bytes.len();
                answer.write(&mut last.bytes);
                self.output_bytes += last.bytes.len() - length;
            }
            None => self.say_with(answer, None),
        }
        debug_assert!(self.output_bytes > before, "every answer has a head");
    }

    /// Queues an answer that starts a chunk of its own, on which `descriptor` rides.
    pub(super) fn say_with(&mut self, answer: &Answer<'_>, descriptor: Option<OwnedFd>) {
        let mut bytes = Vec::with_capacity(128);
        answer.write(&mut bytes);
        self.output_bytes += bytes.len();
        self.output.push_back(Chunk { bytes, sent: 0, descriptor });
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), End> {
        while let Some(chunk) = self.output.front_mut() {
            match send(&self.stream, &chunk.bytes[chunk.sent..], chunk.descriptor.as_ref()) {
                Ok(sent) => {
                    chunk.descriptor = None;
                    chunk.sent += sent;
                    self.output_bytes -= sent;
                    if chunk.sent == chunk.bytes.len() {
                        self.output.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until `read` and `flush` have something to do.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn wait(&self, reads: bool) -> io::Result<bool> {
        let interest = match (reads, self.output.is_empty()) {
            (true, true) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (false, false) => Interest::WRITABLE,
            // Requests that run will end; until then there is nothing to wait for here.
            (false, true) => return std::future::pending().await,
        };
        let ready = self.stream.ready(interest).await?;
        Ok(reads && (ready.is_readable() || ready.is_read_closed()))
    }
}

fn send(stream: &UnixStream, bytes: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<usize> {
    stream.try_io(Interest::WRITABLE, || {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let Some(descriptor) = descriptor else { return Ok(rustix::net::send(stream, bytes, flags)?) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor.as_fd()];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("no room for one descriptor"));
        }
        Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, flags)?)
    })
}
