//! Reads one response of HTTP/1.1 out of bytes as they come, without I/O.
//!
//! | state | event | next |
//! |---|---|---|
//! | `Head` | the end of a head, 1xx | `Head` |
//! | `Head` | the end of a head | `Sized`, `Size`, `Rest`; `Done` if there is no body |
//! | `Sized` | its last byte | `Done` |
//! | `Size` | a chunk's size | `Chunk`; `Trailers` for the last |
//! | `Chunk` | its last byte and the line's end | `Size` |
//! | `Trailers` | an empty line | `Done` |
//! | `Rest` | the end of the connection | `Done` |

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

/// Longest head, and longest line of a chunked body.
const HEAD_MAX: usize = 64 * 1024;
/// Headers of one response.
const HEADERS_MAX: usize = 128;
/// Room for a read of what has no place of its own.
const READ_BYTES: usize = 64 * 1024;

/// Why no response can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is none.
    Malformed(&'static str),
    /// Its body is longer than is taken. `None`: as far as it came.
    TooLarge(Option<u64>),
    /// The connection ended before it.
    BrokeOff,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized,
    Size,
    Chunk { left: u64 },
    Trailers,
    Rest,
    Done,
}

/// One response, as far as it has come.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    to_head: bool,
    most: u64,
    /// Bytes that were not looked at yet.
    input: Vec<u8>,
    response: Response<()>,
    body: Vec<u8>,
    /// Bytes of a body whose length was said.
    length: usize,
    keeps: bool,
    /// Whether anything came at all.
    begun: bool,
}

impl Reader {
    /// For a response to a HEAD request if `to_head`, of a body of at most `most` bytes.
    pub(super) fn new(to_head: bool, most: u64) -> Self {
        Self {
            state: State::Head,
            to_head,
            most,
            input: Vec::new(),
            response: Response::new(()),
            body: Vec::new(),
            length: 0,
            keeps: false,
            begun: false,
        }
    }

    /// Where the next bytes are to be read to: what has spare capacity. Tell by [`Self::came`] what was read.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        if self.state == State::Sized {
            return &mut self.body;
        }
        self.input.reserve(READ_BYTES);
        &mut self.input
    }

    /// Bytes came into the room; `true` once the response is whole.
    pub(super) fn came(&mut self) -> Result<bool, Unreadable> {
        self.begun = true;
        while self.step()? {}
        Ok(self.state == State::Done)
    }

    /// The connection ended.
    pub(super) fn ended(&mut self) -> Result<(), Unreadable> {
        if self.state == State::Rest {
            self.state = State::Done;
        }
        if self.state == State::Done { Ok(()) } else { Err(Unreadable::BrokeOff) }
    }

    /// Whether anything of it has come.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The response, and whether the connection can be used for another one.
    pub(super) fn take(&mut self) -> (Response<Bytes>, bool) {
        let response = std::mem::take(&mut self.response);
        let body = Bytes::from(std::mem::take(&mut self.body));
        (response.map(|()| body), self.keeps && self.input.is_empty())
    }

    /// One step; `false` if it takes more bytes, or there is none.
    fn step(&mut self) -> Result<bool, Unreadable> {
        match self.state {
            State::Head => self.head(),
            State::Sized => {
                if self.body.len() > self.length {
                    return Err(Unreadable::Malformed("a body is longer than its length"));
                }
                if self.body.len() == self.length {
                    self.state = State::Done;
                }
                Ok(false)
            }
            State::Size => {
                let Some((at, size)) = chunk_size(&self.input)? else { return Ok(false) };
                self.input.drain(..at);
                self.fits(size.saturating_add(self.body.len() as u64), None)?;
                self.state = if size == 0 { State::Trailers } else { State::Chunk { left: size } };
                Ok(true)
            }
            State::Chunk { left } => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
                self.body.extend(self.input.drain(..here));
                let left = left - here as u64;
                self.state = State::Chunk { left };
                if left > 0 || self.input.len() < 2 {
                    return Ok(false);
                }
                if !self.input.starts_with(b"\r\n") {
                    return Err(Unreadable::Malformed("a chunk does not end where it should"));
                }
                self.input.drain(..2);
                self.state = State::Size;
                Ok(true)
            }
            State::Trailers => {
                let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") else {
                    return if self.input.len() > HEAD_MAX { Err(TOO_LONG) } else { Ok(false) };
                };
                self.input.drain(..end + 2);
                if end == 0 {
                    self.state = State::Done;
                }
                Ok(end > 0)
            }
            State::Rest => {
                self.body.append(&mut self.input);
                self.fits(self.body.len() as u64, None)?;
                Ok(false)
            }
            State::Done => Ok(false),
        }
    }

    fn fits(&self, length: u64, said: Option<u64>) -> Result<(), Unreadable> {
        if length > self.most { Err(Unreadable::TooLarge(said)) } else { Ok(()) }
    }

    fn head(&mut self) -> Result<bool, Unreadable> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let end = match parsed.parse(&self.input) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) if self.input.len() <= HEAD_MAX => return Ok(false),
            Ok(httparse::Status::Partial) => return Err(TOO_LONG),
            Err(_) => return Err(Unreadable::Malformed("a head cannot be read")),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Unreadable::Malformed("a head has no status"))?;
        let mut kept = HeaderMap::with_capacity(parsed.headers.len());
        for header in &*parsed.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let value = HeaderValue::from_bytes(header.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Unreadable::Malformed("a header cannot be read"));
            };
            kept.append(name, value);
        }
        let persistent = parsed.version == Some(1);
        self.input.drain(..end);
        if status.is_informational() {
            return if status == StatusCode::SWITCHING_PROTOCOLS {
                Err(Unreadable::Malformed("an upgrade that nobody asked for"))
            } else {
                Ok(true)
            };
        }
        let closes = kept.get_all(CONNECTION).iter().any(|value| has_word(value, b"close"));
        self.keeps = persistent && !closes;
        let no_body = self.to_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.state = self.framing(&kept, no_body)?;
        // Of this connection, not of the response.
        kept.remove(CONNECTION);
        kept.remove(TRANSFER_ENCODING);
        *self.response.status_mut() = status;
        *self.response.version_mut() = Version::HTTP_11;
        *self.response.headers_mut() = kept;
        Ok(true)
    }

    fn framing(&mut self, headers: &HeaderMap, no_body: bool) -> Result<State, Unreadable> {
        if no_body {
            return Ok(State::Done);
        }
        if headers.contains_key(TRANSFER_ENCODING) {
            let mut values = headers.get_all(TRANSFER_ENCODING).iter();
            return match (values.next(), values.next()) {
                (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(State::Size),
                _ => Err(Unreadable::Malformed("an unknown transfer encoding")),
            };
        }
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        let Some(length) = lengths.next() else {
            self.keeps = false;
            return Ok(State::Rest);
        };
        let length = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let (Some(Ok(length)), None) = (length.map(str::parse::<u64>), lengths.next()) else {
            return Err(Unreadable::Malformed("a length that is none"));
        };
        self.fits(length, Some(length))?;
        self.length = usize::try_from(length).map_err(|_| Unreadable::TooLarge(Some(length)))?;
        // It was checked against what is taken at most.
        self.body.reserve_exact(self.length);
        let here = self.length.min(self.input.len());
        self.body.extend(self.input.drain(..here));
        Ok(State::Sized)
    }
}

const TOO_LONG: Unreadable = Unreadable::Malformed("a head is longer than 64 KiB");

/// A chunk's size, and where its bytes start.
fn chunk_size(input: &[u8]) -> Result<Option<(usize, u64)>, Unreadable> {
    match httparse::parse_chunk_size(input) {
        Ok(httparse::Status::Complete(found)) => Ok(Some(found)),
        Ok(httparse::Status::Partial) if input.len() <= HEAD_MAX => Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => Err(Unreadable::Malformed("a chunk has no size")),
    }
}

fn has_word(value: &HeaderValue, word: &[u8]) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], parts: usize, to_head: bool) -> Result<(Response<Bytes>, bool), Unreadable> {
        let mut reader = Reader::new(to_head, 1_000);
        for part in bytes.chunks(parts.max(1)) {
            let mut part = part;
            while !part.is_empty() {
                let room = reader.room();
                let here = part.len().min(room.capacity() - room.len());
                if here == 0 {
                    // As a socket would be left unread.
                    return Ok(reader.take());
                }
                room.extend_from_slice(&part[..here]);
                part = &part[here..];
                reader.came()?;
            }
        }
        if reader.state != State::Done {
            reader.ended()?;
        }
        Ok(reader.take())
    }

    const CASES: [(&str, u16, &str, bool); 6] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello", 200, "hello", true),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
            404,
            "abcde",
            true,
        ),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", false),
        ("HTTP/1.1 500 Oh\r\n\r\nuntil the end", 500, "until the end", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", false),
    ];

    #[test]
    fn responses_are_read_however_they_come() {
        for (text, status, body, keeps) in CASES {
            for parts in 1..text.len() + 1 {
                let (response, kept) = read(text.as_bytes(), parts, false).unwrap();
                assert_eq!(
                    (response.status().as_u16(), &response.body()[..], kept),
                    (status, body.as_bytes(), keeps)
                );
                assert!(!response.headers().contains_key(TRANSFER_ENCODING));
            }
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n";
        assert_eq!(read(head.as_bytes(), 7, true).unwrap().0.headers()[CONTENT_LENGTH], "50");
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for text in [
            "SSH-2.0-server\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ] {
            assert!(matches!(read(text.as_bytes(), 5, false), Err(Unreadable::Malformed(_))), "{text}");
        }
        for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"] {
            assert_eq!(read(text.as_bytes(), 5, false).err(), Some(Unreadable::BrokeOff), "{text}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * HEAD_MAX));
        assert_eq!(read(endless.as_bytes(), 9_999, false).err(), Some(TOO_LONG));
    }

    #[test]
    fn bodies_have_a_limit_before_they_have_memory() {
        let said = read(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", 99, false);
        assert_eq!(said.err(), Some(Unreadable::TooLarge(Some(1_001))));
        for head in ["Transfer-Encoding: chunked\r\n\r\n3e9\r\n", "\r\n"] {
            let text = format!("HTTP/1.1 200 OK\r\n{head}{}", "x".repeat(1_001));
            assert_eq!(read(text.as_bytes(), 99, false).err(), Some(Unreadable::TooLarge(None)));
        }
        let most =
            read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 99, false);
        assert!(most.is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), parts in 1..50_usize) {
            for head in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
                let _ = read(&[head.as_bytes(), &bytes].concat(), parts, false);
            }
        }
    }
}
