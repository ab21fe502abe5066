//! HTTP/1.1 as a data port speaks it, from the receiver's side.
//!
//! The general client reads into fresh memory and lets the kernel fault it in, which costs more than the transfer itself
//! (`docs/adr/0013`). Here the bytes of a payload go from the socket into buffers that were used before, and from there to
//! the consumer without a copy.
//!
//! One exchange at a time: [`Wire::ask`] sends a request and reads the head of its answer, [`Wire::poll_frame`] reads the
//! body. A connection is used again only if the body was read to its end and neither side wants to close.
//!
//! | framing | bytes are expected to be | next |
//! |---|---|---|
//! | `None` | – | – |
//! | `Sized(n)` | n bytes of body | `None` |
//! | `ChunkHead` | `size[;extension] CRLF` | `Chunk`, or after size 0 `Trailers` |
//! | `Chunk(n)` | n bytes of body | `ChunkEnd` |
//! | `ChunkEnd` | `CRLF` | `ChunkHead` |
//! | `Trailers` | fields, then an empty line | `None` |
//!
//! Everything that is not of this form is an error: nothing is skipped, guessed or repaired.

use super::connect::Stream;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;
use zipline_buffer::{Passage, Recycler};

/// Longest head of an answer, and longest trailer section: the longest trailers in base64url and the final record's line.
const SECTION_MAX: usize = 64 * 1024;
/// Most header fields of an answer.
const FIELDS_MAX: usize = 64;
/// Longest line that begins a chunk.
const CHUNK_LINE_MAX: usize = 256;
/// Heads and chunk lines are read in pieces of this size. What follows them in the same piece is copied once.
const PIECE: usize = 4 * 1024;
/// So many bytes of body are handed on before more are read, so that the consumer works meanwhile.
const HAND_ON: usize = 256 * 1024;

/// An answer broke off, or is not HTTP.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// What came is not HTTP as a data port speaks it.
    #[error("not an answer of a data port: {0}")]
    NotHttp(&'static str),
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Sized(u64),
    ChunkHead,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// What comes next of a body.
enum Step {
    /// So many bytes, at least one.
    Body(u64),
    Trailers(HeaderMap),
    End,
}

/// What came of a body.
#[derive(Debug)]
pub(super) enum Arrived {
    /// So many bytes were written.
    Bytes(usize),
    Trailers(HeaderMap),
    End,
}

/// One connection to a data port.
#[derive(Debug)]
pub(super) struct Wire {
    io: Stream,
    /// What was read and is not body, or not known to be.
    inbox: BytesMut,
    passage: Passage,
    framing: Framing,
    keep_alive: bool,
}

impl Wire {
    /// Speaks over `io`; bodies are read into buffers of `recycler`.
    pub(super) fn new(io: Stream, recycler: &Recycler) -> Self {
        Self {
            io,
            inbox: BytesMut::new(),
            passage: recycler.passage(),
            framing: Framing::None,
            keep_alive: true,
        }
    }

    /// Whether the last exchange has ended well and another one may follow.
    pub(super) fn is_reusable(&self) -> bool {
        self.keep_alive
            && self.framing == Framing::None
            && self.inbox.is_empty()
            && self.passage.pending() == 0
    }

    /// Whether an idle connection was not closed by the holder meanwhile, nor written to without being asked.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_reusable() && self.io.is_quiet()
    }

    /// Sends `request`, whole, and reads the head of its answer.
    ///
    /// # Errors
    /// [`WireError`]: the connection is of no use any more.
    /// # Cancel safety
    /// None: drop the connection with the future.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<Head, WireError> {
        // Cleared by the body's end.
        let was_reusable = std::mem::replace(&mut self.keep_alive, false);
        debug_assert!(was_reusable, "one exchange follows another");
        self.io.write_all(request).await?;
        self.io.flush().await?;
        let Parsed { head, bytes, keep_alive } = loop {
            if let Some(found) = parse_head(&self.inbox)? {
                break found;
            }
            if self.inbox.len() >= SECTION_MAX {
                return Err(WireError::NotHttp("its head is too long"));
            }
            if std::future::poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        self.inbox.advance(bytes);
        self.framing = framing(&head)?;
        self.keep_alive = keep_alive && !has_token(&head.headers, "connection", "close");
        Ok(head)
    }

    /// The next piece of the body; at the end of a chunked one its trailers, if there are any, then `None`.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        let frame = match ready!(self.poll_step(cx)) {
            Ok(Step::Body(left)) => Some(ready!(self.poll_bytes(cx, left)).map(Frame::data)),
            Ok(Step::Trailers(map)) => Some(Ok(Frame::trailers(map))),
            Ok(Step::End) => None,
            Err(error) => Some(Err(error)),
        };
        if matches!(frame, Some(Err(_))) {
            self.keep_alive = false;
        }
        Poll::Ready(frame)
    }

    /// As [`Wire::poll_frame`], but bytes of the body go to `room`, which is not empty, and nowhere else before.
    pub(super) fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<Result<Arrived, WireError>> {
        let arrived = match ready!(self.poll_step(cx)) {
            Ok(Step::Body(left)) => ready!(self.poll_room(cx, left, room)).map(Arrived::Bytes),
            Ok(Step::Trailers(map)) => Ok(Arrived::Trailers(map)),
            Ok(Step::End) => Ok(Arrived::End),
            Err(error) => Err(error),
        };
        if arrived.is_err() {
            self.keep_alive = false;
        }
        Poll::Ready(arrived)
    }

    /// Reads framing up to the next bytes of body, the trailers or the end.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, WireError>> {
        loop {
            match self.framing {
                Framing::None => return Poll::Ready(Ok(Step::End)),
                Framing::Sized(0) => self.framing = Framing::None,
                Framing::Sized(left) | Framing::Chunk(left) if left > 0 => {
                    return Poll::Ready(Ok(Step::Body(left)));
                }
                Framing::Sized(_) | Framing::Chunk(_) => self.framing = Framing::ChunkEnd,
                Framing::ChunkEnd => match self.inbox.get(..2) {
                    Some(b"\r\n") => {
                        self.inbox.advance(2);
                        self.framing = Framing::ChunkHead;
                    }
                    Some(_) => return Poll::Ready(Err(WireError::NotHttp("a chunk is too long"))),
                    None => ready!(self.poll_more(cx))?,
                },
                Framing::ChunkHead => match chunk_line(&self.inbox)? {
                    Some((line, size)) => {
                        self.inbox.advance(line);
                        self.framing = if size == 0 { Framing::Trailers } else { Framing::Chunk(size) };
                    }
                    None => ready!(self.poll_more(cx))?,
                },
                Framing::Trailers => match trailers(&self.inbox)? {
                    Some((section, map)) => {
                        self.inbox.advance(section);
                        self.framing = Framing::None;
                        if !map.is_empty() {
                            return Poll::Ready(Ok(Step::Trailers(map)));
                        }
                    }
                    None if self.inbox.len() >= SECTION_MAX => {
                        return Poll::Ready(Err(WireError::NotHttp("its trailers are too long")));
                    }
                    None => ready!(self.poll_more(cx))?,
                },
            }
        }
    }

    /// Bytes of the body into `room`, at least one and at most `left`.
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        left: u64,
        room: &mut [u8],
    ) -> Poll<Result<usize, WireError>> {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
        let got = if self.inbox.is_empty() {
            let mut buffer = ReadBuf::new(&mut room[..wanted]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            buffer.filled().len()
        } else {
            let got = wanted.min(self.inbox.len());
            room[..got].copy_from_slice(&self.inbox[..got]);
            self.inbox.advance(got);
            got
        };
        if got == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        self.took(left, got);
        Poll::Ready(Ok(got))
    }

    /// Bytes of body that can be read by [`Wire::take_now`] before anything else comes.
    pub(super) fn bare_bytes(&self) -> u64 {
        match self.framing {
            Framing::Sized(left) | Framing::Chunk(left)
                if self.inbox.is_empty() && self.io.plain().is_some() =>
            {
                left
            }
            _ => 0,
        }
    }

    /// Lets `take` take bytes of body that are there from the socket, past the reactor, in whatever thread; it is told how many
    /// there may be, and says how many it took. `None`: none is there, or there are none to be taken so; 0 is the end of the
    /// connection.
    pub(super) fn take_now(
        &mut self,
        take: impl FnOnce(&TcpStream, usize) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let left = self.bare_bytes();
        let (Some(tcp), true) = (self.io.plain(), left > 0) else { return Ok(None) };
        let got = match take(tcp, usize::try_from(left).unwrap_or(usize::MAX)) {
            Ok(got) => got,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.took(left, got);
        Ok(Some(got))
    }

    /// Waits in this thread until something can be read, at most `timeout`. False if nothing came.
    pub(super) fn wait_now(&self, timeout: std::time::Duration) -> bool {
        let Some(tcp) = self.io.plain() else { return false };
        let timeout = rustix::event::Timespec::try_from(timeout).ok();
        let mut fds = [rustix::event::PollFd::new(tcp, rustix::event::PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, timeout.as_ref()), Ok(ready) if ready > 0)
    }

    fn took(&mut self, left: u64, got: usize) {
        let rest = left - got as u64;
        self.framing = match self.framing {
            Framing::Chunk(_) => Framing::Chunk(rest),
            _ => Framing::Sized(rest),
        };
    }

    /// Bytes of the body, at least one and at most `left`.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, left: u64) -> Poll<Result<Bytes, WireError>> {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(HAND_ON);
        let mut read = 0;
        while read < wanted && !self.passage.is_full() {
            let mut room = self.passage.room(wanted - read);
            let got = if self.inbox.is_empty() {
                match poll_read_buf(Pin::new(&mut self.io), cx, &mut room) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                    }
                    Poll::Ready(Ok(got)) => got,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending if read == 0 => return Poll::Pending,
                    Poll::Pending => break,
                }
            } else {
                let got = bytes::BufMut::remaining_mut(&room).min(self.inbox.len());
                bytes::BufMut::put_slice(&mut room, &self.inbox[..got]);
                self.inbox.advance(got);
                got
            };
            read += got;
        }
        self.took(left, read);
        Poll::Ready(Ok(self.passage.take()))
    }

    /// Reads more of what is no body. The end of the connection is an error here.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        match ready!(self.poll_fill(cx)) {
            Ok(0) => Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbox.reserve(PIECE);
        let mut room = bytes::BufMut::limit(&mut self.inbox, PIECE);
        poll_read_buf(Pin::new(&mut self.io), cx, &mut room)
    }
}

/// A head that was read.
struct Parsed {
    head: Head,
    bytes: usize,
    keep_alive: bool,
}

/// The head, once all of it is there.
fn parse_head(bytes: &[u8]) -> Result<Option<Parsed>, WireError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(bytes).map_err(|_| WireError::NotHttp("its head is malformed"))?;
    let httparse::Status::Complete(end) = parsed else { return Ok(None) };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(WireError::NotHttp("its head has no status"))?;
    let keep_alive = response.version == Some(1);
    let head = Head { status, headers: header_map(response.headers)? };
    Ok(Some(Parsed { head, bytes: end, keep_alive }))
}

fn header_map(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, WireError> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok();
        let value = HeaderValue::from_bytes(field.value).ok();
        let (Some(name), Some(value)) = (name, value) else {
            return Err(WireError::NotHttp("a field is malformed"));
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// How the body of an answer is framed. A body that only the connection's end would end is none that is taken.
fn framing(head: &Head) -> Result<Framing, WireError> {
    if head.status.is_informational() {
        return Err(WireError::NotHttp("an informational answer"));
    }
    let mut lengths = head.headers.get_all("content-length").iter();
    let mut codings = head.headers.get_all("transfer-encoding").iter();
    match (lengths.next(), codings.next()) {
        _ if head.status == StatusCode::NO_CONTENT => Ok(Framing::None),
        (None, Some(coding))
            if codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(Framing::ChunkHead)
        }
        (Some(length), None) if lengths.next().is_none() => {
            let length = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = length.and_then(|text| text.parse().ok());
            length.map(Framing::Sized).ok_or(WireError::NotHttp("its length is malformed"))
        }
        _ => Err(WireError::NotHttp("its body has no one length")),
    }
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// The line that begins a chunk: its length with the line's end, and the chunk's size.
fn chunk_line(bytes: &[u8]) -> Result<Option<(usize, u64)>, WireError> {
    let malformed = WireError::NotHttp("a chunk's size is malformed");
    let Some(end) = bytes.iter().take(CHUNK_LINE_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= CHUNK_LINE_MAX { Err(malformed) } else { Ok(None) };
    };
    let Some(line) = bytes[..end].strip_suffix(b"\r") else { return Err(malformed) };
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(malformed);
    }
    let size = std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    Ok(Some((end + 1, size.ok_or(malformed)?)))
}

/// The trailer section: its length with the empty line, and its fields.
fn trailers(bytes: &[u8]) -> Result<Option<(usize, HeaderMap)>, WireError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((end, fields))) => Ok(Some((end, header_map(fields)?))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(WireError::NotHttp("its trailers are malformed")),
    }
}

#[cfg(test)]
mod tests;
