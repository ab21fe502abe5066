//! Bytes and descriptors that came, until they are whole frames.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use zipline_protocol::sdk::{FrameError, FrameHead, HEAD_BYTES};

use super::socket::Socket;

/// What fits before a larger frame is known of.
const FIRST_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    pub(super) descriptors: VecDeque<OwnedFd>,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; FIRST_BYTES], start: 0, end: 0, descriptors: VecDeque::new() }
    }

    /// One read; 0 at the end. There is room, since whole frames were taken before.
    pub(super) fn read(&mut self, socket: &Socket) -> io::Result<usize> {
        let mut descriptors = Vec::new();
        let read = socket.receive(&mut self.buffer[self.end..], &mut descriptors)?;
        self.end += read;
        self.descriptors.extend(descriptors);
        Ok(read)
    }

    /// The next whole frame; afterwards it is taken. `None`: more has to be read, for which there is room then.
    pub(super) fn next(&mut self) -> Result<Option<(FrameHead, &[u8])>, FrameError> {
        let Some(head) = FrameHead::read(&self.buffer[self.start..self.end])? else {
            self.make_room(HEAD_BYTES);
            return Ok(None);
        };
        let whole = HEAD_BYTES + head.body_bytes;
        if self.end - self.start < whole {
            self.make_room(whole);
            return Ok(None);
        }
        let body = self.start + HEAD_BYTES..self.start + whole;
        self.start += whole;
        Ok(Some((head, &self.buffer[body])))
    }

    /// Room for a frame of `whole` bytes; [`FrameHead::read`] has bounded it.
    fn make_room(&mut self, whole: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.start < whole {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < whole {
                self.buffer.resize(whole, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use zipline_protocol::ErrorCode;
    use zipline_protocol::sdk::Answer;

    use super::*;
    use crate::options::SocketAddress;

    fn pair() -> (Socket, UnixStream) {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("zipline-sdk-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let socket = Socket::connect(&SocketAddress::Abstract(name.into_bytes())).unwrap();
        (socket, listener.accept().unwrap().0)
    }

    #[test]
    fn frames_come_out_whole_however_they_come_in() {
        let (socket, mut peer) = pair();
        let detail = "x".repeat(4096);
        let error = Answer::Error { request: 7, index: 0, code: ErrorCode::Draining, detail: &detail };
        let mut bytes = Vec::new();
        for _ in 0..20 {
            error.write(&mut bytes);
        }
        let mut input = Input::new();
        let mut frames = 0;
        for part in bytes.chunks(1_777) {
            peer.write_all(part).unwrap();
            let mut left = part.len();
            while left > 0 {
                left -= input.read(&socket).unwrap();
                while let Some((head, body)) = input.next().unwrap() {
                    assert_eq!(Answer::read(head, body).unwrap(), error);
                    frames += 1;
                }
            }
        }
        assert_eq!(frames, 20);
        drop(peer);
        assert_eq!(input.read(&socket).unwrap(), 0);
    }
}
