//! The socket of one SDK connection: frames in, frames and descriptors out. Never blocks; whoever owns it waits.
//!
//! The reactor is asked for readability only. A socket that is watched for both wakes its owner each time the peer takes a message,
//! and on another core that costs more than the message. Writability is asked for while something could not be sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::{Bytes, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};
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
    socket: Receiver,
    /// The same socket, watched for writability; `None` while everything was sent.
    blocked: Option<Sender>,
    input: BytesMut,
    output: VecDeque<Chunk>,
    output_bytes: usize,
}

impl Wire {
    /// # Errors
    /// If the socket cannot be watched: no descriptor is left.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let socket = Receiver::from_owned_fd_unchecked(OwnedFd::from(stream.into_std()?))?;
        let (input, output) = (BytesMut::with_capacity(READ_BYTES), VecDeque::new());
        Ok(Self { socket, blocked: None, input, output, output_bytes: 0 })
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
        match self.socket.try_read_buf(&mut self.input) {
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
            match send(self.socket.as_fd(), &chunk.bytes[chunk.sent..], chunk.descriptor.as_ref()) {
                Ok(sent) => {
                    chunk.descriptor = None;
                    chunk.sent += sent;
                    self.output_bytes -= sent;
                    if chunk.sent == chunk.bytes.len() {
                        self.output.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.block(),
                Err(error) => return Err(error.into()),
            }
        }
        self.blocked = None;
        Ok(())
    }

    /// The socket takes no more for now. A new watch reports what becomes of it from here on.
    fn block(&mut self) -> Result<(), End> {
        let again = self.socket.as_fd().try_clone_to_owned()?;
        self.blocked = Some(Sender::from_owned_fd_unchecked(again)?);
        Ok(())
    }

    /// Waits until `read` and `flush` have something to do; says whether `read` has.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn wait(&self, reads: bool) -> io::Result<bool> {
        let readable = async {
            // Requests that run will end; until then there is nothing to wait for here.
            if !reads {
                std::future::pending::<()>().await;
            }
            self.socket.readable().await
        };
        let writable = async {
            match &self.blocked {
                Some(blocked) => blocked.writable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = readable => ready.map(|()| true),
            ready = writable => ready.map(|()| false),
        }
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let Some(descriptor) = descriptor else { return Ok(rustix::net::send(socket, bytes, flags)?) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for one descriptor"));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?)
}
