//! The client's side of one connection: a request at a time, HTTP/1.1 or h2c, its body the same bytes over and over.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::frames::{self, Frames, Kind};
use super::upstream::{field, head_end};

/// Bytes that bodies are made of; what one write can take at most.
const PATTERN: usize = 256 * 1024;
const HEAD_MAX: usize = 64 * 1024;
/// HTTP/2 frames that wait to be written: enough for one large write.
const QUEUED: usize = 256 * 1024;

/// What to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 in clear with prior knowledge.
    H2c,
}

impl Protocol {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::H2c => "h2c",
        }
    }
}

/// What every request of a run has in common.
pub(super) struct Message {
    pub(super) body: u64,
    /// HTTP/1.1: the head and the beginning of the body. HTTP/2: the field block.
    start: Vec<u8>,
    head: usize,
    pattern: Vec<u8>,
}

impl Message {
    pub(super) fn new(protocol: Protocol, address: SocketAddr, body: u64) -> Self {
        let pattern = vec![b'z'; PATTERN];
        let method = if body == 0 { "GET" } else { "POST" };
        let mut start = Vec::new();
        let head = match protocol {
            Protocol::Http1 => {
                let length = if body == 0 { String::new() } else { format!("Content-Length: {body}\r\n") };
                start.extend_from_slice(
                    format!("{method} / HTTP/1.1\r\nHost: {address}\r\n{length}\r\n").as_bytes(),
                );
                let head = start.len();
                let first = usize::try_from(body).unwrap_or(usize::MAX).min(PATTERN);
                start.extend_from_slice(&pattern[..first]);
                head
            }
            Protocol::H2c => {
                // From the static table: the method, http, the path /.
                start.extend_from_slice(&[if body == 0 { 0x82 } else { 0x83 }, 0x86, 0x84]);
                frames::field(&mut start, 1, &address.to_string());
                if body > 0 {
                    frames::field(&mut start, 28, &body.to_string());
                }
                start.len()
            }
        };
        Self { body, start, head, pattern }
    }
}

/// One connection.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    /// Bytes of this request's body that were given to the kernel.
    pub(super) sent: u64,
    speaks: Speaks,
}

enum Speaks {
    /// Bytes of the request written so far, and of the response read so far.
    Http1 {
        written: u64,
        read: Vec<u8>,
    },
    Http2(Box<Http2>),
}

struct Http2 {
    frames: Frames,
    out: Vec<u8>,
    written: usize,
    stream: u32,
    queued: u64,
    /// What the peer takes: on the connection, on this stream, on a new stream.
    connection_window: i64,
    stream_window: i64,
    initial_window: i64,
    answered: bool,
}

impl Wire {
    /// Connects; sends nothing of a request.
    pub(super) fn open(address: SocketAddr, protocol: Protocol) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let speaks = match protocol {
            Protocol::Http1 => Speaks::Http1 { written: 0, read: Vec::new() },
            Protocol::H2c => {
                let mut out = frames::PREFACE.to_vec();
                frames::settings(&mut out, &[]);
                // Answers are two bytes long: no run reads this much.
                frames::window_update(&mut out, 0, 0x3fff_ffff);
                Speaks::Http2(Box::new(Http2 {
                    frames: Frames::default(),
                    out,
                    written: 0,
                    stream: u32::MAX,
                    queued: 0,
                    connection_window: frames::WINDOW_DEFAULT,
                    stream_window: 0,
                    initial_window: frames::WINDOW_DEFAULT,
                    answered: false,
                }))
            }
        };
        Ok(Self { stream, sent: 0, speaks })
    }

    /// Starts the next request; writes what can be written.
    pub(super) fn begin(&mut self, message: &Message) -> anyhow::Result<()> {
        self.sent = 0;
        match &mut self.speaks {
            Speaks::Http1 { written, read } => {
                *written = 0;
                read.clear();
            }
            Speaks::Http2(http2) => {
                http2.stream = http2.stream.wrapping_add(2);
                ensure!(http2.stream < 0x7fff_ffff, "this connection is out of streams");
                http2.stream_window = http2.initial_window;
                http2.queued = 0;
                http2.answered = false;
                frames::headers(&mut http2.out, http2.stream, &message.start, message.body == 0);
            }
        }
        self.write(message)
    }

    /// Writes until the request is out or the kernel takes no more.
    pub(super) fn write(&mut self, message: &Message) -> anyhow::Result<()> {
        let Self { stream, sent, speaks } = self;
        match speaks {
            Speaks::Http1 { written, .. } => {
                let head = message.head as u64;
                while *written < head + message.body {
                    let at = usize::try_from(*written)?;
                    let piece = match message.start.get(at..) {
                        Some(piece) if !piece.is_empty() => piece,
                        _ => {
                            let left = usize::try_from(head + message.body - *written)?;
                            &message.pattern[..left.min(PATTERN)]
                        }
                    };
                    let Some(count) = write_some(stream, piece)? else { return Ok(()) };
                    *written += count as u64;
                    *sent = written.saturating_sub(head);
                }
            }
            Speaks::Http2(http2) => loop {
                http2.queue(message)?;
                if http2.written == http2.out.len() {
                    return Ok(());
                }
                let Some(count) = write_some(stream, &http2.out[http2.written..])? else { return Ok(()) };
                http2.written += count;
                *sent = http2.queued;
                if http2.written == http2.out.len() {
                    http2.out.clear();
                    http2.written = 0;
                }
            },
        }
        Ok(())
    }

    /// Reads what has come; `true` once the response to this request is complete.
    ///
    /// # Errors
    /// A connection that broke off, or any answer but 200.
    pub(super) fn read(&mut self, message: &Message, buffer: &mut [u8]) -> anyhow::Result<bool> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => bail!("the connection was closed"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("reading"),
            };
            let done = match &mut self.speaks {
                Speaks::Http1 { read, .. } => {
                    read.extend_from_slice(&buffer[..count]);
                    is_whole(read)?
                }
                Speaks::Http2(http2) => http2.take(&buffer[..count])?,
            };
            if matches!(self.speaks, Speaks::Http2(_)) && !done {
                // Windows may have opened, settings want their acknowledgement.
                self.write(message)?;
            }
            if done || count < buffer.len() {
                return Ok(done);
            }
        }
    }
}

impl Http2 {
    /// Puts as much of the body into frames as the peer takes.
    fn queue(&mut self, message: &Message) -> anyhow::Result<()> {
        while self.queued < message.body && self.out.len() < QUEUED {
            let left = usize::try_from(message.body - self.queued)?;
            let window = self.connection_window.min(self.stream_window).max(0);
            let length = left.min(frames::FRAME_MAX).min(usize::try_from(window)?);
            if length == 0 {
                return Ok(());
            }
            frames::data(&mut self.out, self.stream, &message.pattern[..length], length == left);
            self.queued += length as u64;
            self.connection_window -= i64::try_from(length)?;
            self.stream_window -= i64::try_from(length)?;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        let Self { frames, out, stream, connection_window, stream_window, initial_window, answered, .. } =
            self;
        let mut done = false;
        frames.feed(bytes, |frame| {
            match frame.kind {
                Kind::Settings if !frame.has(frames::ACK) => {
                    for (name, value) in frame.settings() {
                        if name == frames::SETTING_WINDOW {
                            *stream_window += i64::from(value) - *initial_window;
                            *initial_window = i64::from(value);
                        }
                    }
                    frames::settings_ack(out);
                }
                Kind::WindowUpdate if frame.stream == 0 => *connection_window += i64::from(frame.number(0)),
                Kind::WindowUpdate if frame.stream == *stream => *stream_window += i64::from(frame.number(0)),
                Kind::Ping if !frame.has(frames::ACK) => frames::pong(out, frame.content),
                Kind::Headers if frame.stream == *stream && !*answered => {
                    // A peer may first tell the size of its table.
                    let status = frame.content.iter().find(|byte| **byte & 0xe0 != 0x20);
                    ensure!(status == Some(&frames::STATUS_200), "an answer other than 200");
                    *answered = true;
                    done |= frame.has(frames::END_STREAM);
                }
                Kind::Headers | Kind::Data if frame.stream == *stream => {
                    done |= frame.has(frames::END_STREAM)
                }
                Kind::Reset if frame.stream == *stream => bail!("stream reset, code {}", frame.number(0)),
                Kind::GoAway => bail!("connection ended by the peer, code {}", frame.number(4)),
                _ => {}
            }
            Ok(())
        })?;
        Ok(done)
    }
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    match stream.write(bytes) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("writing"),
    }
}

/// Whether an HTTP/1.1 response has come to its end.
fn is_whole(response: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = head_end(response) else {
        ensure!(response.len() <= HEAD_MAX, "a response head of {} bytes", response.len());
        return Ok(false);
    };
    let head = std::str::from_utf8(&response[..end]).context("a response head that is not text")?;
    ensure!(head.get(9..12) == Some("200"), "answered {}", head.lines().next().unwrap_or_default());
    let length = field(head, "content-length").context("an answer without a length")?;
    Ok(response.len() - end >= length.parse::<usize>().context("content-length of the answer")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_end_with_their_length() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert!(is_whole(whole).unwrap());
        assert!(!is_whole(&whole[..whole.len() - 1]).unwrap());
        assert!(!is_whole(&whole[..20]).unwrap());
        assert!(is_whole(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
