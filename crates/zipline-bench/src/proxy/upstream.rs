//! The tiny upstream behind every system: reads a request to its end, answers `ok`. One thread, HTTP/1.1 or h2c by the
//! first bytes, and no more of either than the measured proxies send.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context as _, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use super::frames::{self, Frames, Kind};

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 256 * 1024;
const HEAD_MAX: usize = 64 * 1024;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
const REFUSAL: &[u8] = b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// So much that nobody who sends to this upstream ever waits for it.
const WINDOW: u32 = 0x7fff_ffff;
/// A connection's window is renewed when this much of it was used.
const RENEW: u32 = 0x4000_0000;

/// Serves on `port` of loopback until it is ended.
pub(crate) fn run(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("the upstream cannot listen")?;
    listener.set_nonblocking(true)?;
    let reactor = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&reactor, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut served: Vec<Option<Served>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        events.clear();
        epoll::wait(&reactor, spare_capacity(&mut events), None)?;
        for event in &events {
            let which = { event.data }.u64();
            if which == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let place = free.pop().unwrap_or_else(|| {
                        served.push(None);
                        served.len() - 1
                    });
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                    epoll::add(&reactor, &stream, epoll::EventData::new_u64(place as u64), flags)?;
                    served[place] = Some(Served::new(stream));
                }
                continue;
            }
            let place = usize::try_from(which).expect("places are indices");
            let Some(connection) = &mut served[place] else { continue };
            // A connection that ends or does what this server does not speak is closed; the others go on.
            if !connection.go_on(&mut buffer).unwrap_or(false) {
                served[place] = None;
                free.push(place);
            }
        }
    }
}

struct Served {
    stream: TcpStream,
    speaks: Speaks,
    /// Bytes of a head, or of a preface, that has not come whole.
    start: Vec<u8>,
    out: Vec<u8>,
}

enum Speaks {
    Unknown,
    /// So many bytes of the body are still to come; with none, a head is.
    Http1 {
        body: u64,
        answering: bool,
    },
    Http2 {
        frames: Frames,
        used: u32,
    },
}

impl Served {
    fn new(stream: TcpStream) -> Self {
        Self { stream, speaks: Speaks::Unknown, start: Vec::new(), out: Vec::new() }
    }

    /// Reads what has come and answers; `false` at the end of the connection.
    fn go_on(&mut self, buffer: &mut [u8]) -> anyhow::Result<bool> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            self.take(&buffer[..read])?;
            if !self.out.is_empty() {
                // Answers are smaller than any socket's buffer.
                self.stream.write_all(&self.out)?;
                self.out.clear();
            }
            if read < buffer.len() {
                return Ok(true);
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.speaks {
            Speaks::Unknown => {
                self.start.extend_from_slice(bytes);
                let length = self.start.len().min(frames::PREFACE.len());
                if self.start[..length] != frames::PREFACE[..length] {
                    self.speaks = Speaks::Http1 { body: 0, answering: false };
                    self.take(&[])
                } else if length == frames::PREFACE.len() {
                    self.speaks = Speaks::Http2 { frames: Frames::default(), used: 0 };
                    let settings = [(frames::SETTING_STREAMS, 1000), (frames::SETTING_WINDOW, WINDOW)];
                    frames::settings(&mut self.out, &settings);
                    frames::window_update(&mut self.out, 0, WINDOW - 65_535);
                    let rest = self.start.split_off(length);
                    self.start.clear();
                    self.take(&rest)
                } else {
                    Ok(())
                }
            }
            Speaks::Http1 { .. } => self.take_http1(bytes),
            Speaks::Http2 { frames, used } => take_http2(frames, used, bytes, &mut self.out),
        }
    }

    fn take_http1(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        let Speaks::Http1 { body, answering } = &mut self.speaks else { return Ok(()) };
        if *answering {
            let taken = (*body).min(bytes.len() as u64);
            *body -= taken;
            bytes = &bytes[usize::try_from(taken)?..];
            if *body > 0 {
                return Ok(());
            }
            *answering = false;
            self.out.extend_from_slice(ANSWER);
        }
        self.start.extend_from_slice(bytes);
        let Some(end) = head_end(&self.start) else {
            ensure!(self.start.len() <= HEAD_MAX, "a head of {} bytes", self.start.len());
            return Ok(());
        };
        let text = std::str::from_utf8(&self.start[..end]).context("a head that is not text")?;
        if field(text, "transfer-encoding").is_some() {
            self.stream.write_all(REFUSAL)?;
            bail!("this upstream takes no chunked body");
        }
        *body = field(text, "content-length").map_or(Ok(0), str::parse).context("content-length")?;
        *answering = true;
        if *body > 0 && self.start.len() == end {
            self.start.clear();
            return Ok(());
        }
        // A request without a body, or the beginning of its body with its head.
        let rest = self.start.split_off(end);
        self.start.clear();
        self.take_http1(&rest)
    }
}

/// Where the body begins.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a field of a head; names in any case.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn take_http2(frames: &mut Frames, used: &mut u32, bytes: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
    frames.feed(bytes, |frame| {
        match frame.kind {
            Kind::Settings if !frame.has(frames::ACK) => frames::settings_ack(out),
            Kind::Ping if !frame.has(frames::ACK) => frames::pong(out, frame.content),
            Kind::Data | Kind::Headers => {
                if frame.kind == Kind::Data {
                    *used += u32::try_from(frame.length)?;
                    if *used >= RENEW {
                        frames::window_update(out, 0, std::mem::take(used));
                    }
                }
                if frame.has(frames::END_STREAM) {
                    frames::headers(out, frame.stream, &[frames::STATUS_200], false);
                    frames::data(out, frame.stream, b"ok", true);
                }
            }
            _ => {}
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_any_case() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:  17 \r\n\r\n";
        assert_eq!(head_end(head.as_bytes()), Some(head.len()));
        assert_eq!(field(head, "content-length"), Some("17"));
        assert_eq!(field(head, "transfer-encoding"), None);
    }
}
