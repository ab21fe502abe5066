//! Redis with the least a client can do: RESP written by hand, one write for command and payload without a copy, the answer
//! read straight into warm memory, `TCP_NODELAY`.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, ensure};

use super::Endpoint;
use super::rooms::{Rooms, read_parts, write_parts};
use super::ticket::Ticket;

/// Longest answer that is no payload.
const LINE_MAX: usize = 512;

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn open(at: &Endpoint) -> anyhow::Result<Self> {
        Ok(match at {
            Endpoint::Tcp(address) => {
                let stream =
                    TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
            Endpoint::Unix(path) => Self::Unix(
                UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?,
            ),
        })
    }

    /// Reads a line that begins with `expected`; an error of the server is ours.
    fn expect(&mut self, expected: &str) -> anyhow::Result<()> {
        let mut line = Vec::with_capacity(LINE_MAX);
        let mut buffer = [0; LINE_MAX];
        while !line.ends_with(b"\r\n") {
            let read = self.read(&mut buffer)?;
            ensure!(read > 0 && line.len() + read <= LINE_MAX, "no answer of Redis");
            line.extend_from_slice(&buffer[..read]);
        }
        ensure!(line.starts_with(expected.as_bytes()), "Redis said {:?}", String::from_utf8_lossy(&line));
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_vectored(parts),
            Self::Unix(stream) => stream.read_vectored(parts),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(parts),
            Self::Unix(stream) => stream.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Giver {
    stream: Stream,
    index: u32,
    rooms: Rooms,
    written: usize,
}

impl Giver {
    pub(super) fn open(at: &Endpoint, index: u32) -> anyhow::Result<Self> {
        Ok(Self { stream: Stream::open(at)?, index, rooms: Rooms::default(), written: 0 })
    }

    fn key(&self, payload: usize) -> String {
        format!("{}-{payload}", self.index)
    }
}

impl super::Giver for Giver {
    fn write(
        &mut self,
        payloads: usize,
        bytes: usize,
        write: &mut dyn FnMut(usize, &mut [u8]),
    ) -> anyhow::Result<()> {
        self.rooms.fit(payloads, bytes);
        self.written = payloads;
        (0..payloads).for_each(|payload| write(payload, self.rooms.of_mut(payload)));
        Ok(())
    }

    fn give(&mut self, payload: usize, _: usize) -> anyhow::Result<Option<String>> {
        let key = self.key(payload);
        let bytes = self.rooms.of(payload);
        let command = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), bytes.len());
        let mut parts = [IoSlice::new(command.as_bytes()), IoSlice::new(bytes), IoSlice::new(b"\r\n")];
        write_parts(&mut self.stream, &mut parts).context("SET")?;
        self.stream.expect("+OK")?;
        Ok(Some(key))
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        // Its memory is free, and still warm, before the next SET: the kindest order for Redis.
        for payload in 0..std::mem::take(&mut self.written) {
            let key = self.key(payload);
            write!(self.stream, "*2\r\n$3\r\nDEL\r\n${}\r\n{key}\r\n", key.len())?;
            self.stream.expect(":")?;
        }
        Ok(())
    }

    fn release(&mut self) {
        self.rooms.clear();
    }
}

pub(super) struct Taker {
    stream: Stream,
    rooms: Rooms,
    taken: usize,
}

impl Taker {
    pub(super) fn open(at: &Endpoint) -> anyhow::Result<Self> {
        Ok(Self { stream: Stream::open(at)?, rooms: Rooms::default(), taken: 0 })
    }
}

impl super::Taker for Taker {
    fn make_ready(&mut self, payloads: usize, bytes: usize) -> anyhow::Result<()> {
        self.rooms.fit(payloads, bytes);
        self.taken = 0;
        Ok(())
    }

    fn take(&mut self, tickets: &[Ticket]) -> anyhow::Result<()> {
        let commands: String = tickets
            .iter()
            .map(|ticket| format!("*2\r\n$3\r\nGET\r\n${}\r\n{}\r\n", ticket.text.len(), ticket.text))
            .collect();
        self.stream.write_all(commands.as_bytes()).context("GET")?;
        for _ in tickets {
            let room = self.rooms.of_mut(self.taken);
            // The answer's form is known, so all of it is read to where it belongs.
            let expected = format!("${}\r\n", room.len());
            let mut head = vec![0; expected.len()];
            let mut tail = [0; 2];
            let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(room), IoSliceMut::new(&mut tail)];
            read_parts(&mut self.stream, &mut parts).context("GET")?;
            ensure!(head == expected.as_bytes(), "Redis said {:?}", String::from_utf8_lossy(&head));
            self.taken += 1;
        }
        Ok(())
    }

    fn read(&self, nth: usize) -> Vec<&[u8]> {
        vec![self.rooms.of(nth)]
    }

    fn release(&mut self) {
        self.rooms.clear();
    }
}
