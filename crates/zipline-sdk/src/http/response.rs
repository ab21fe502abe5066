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
//!
//! A body is kept until all of it is there, or taken in pieces. In pieces nothing is read beyond the head before that was taken, nor
//! while a piece is there that nobody took.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

/// Longest head, and longest line of a chunked body.
const HEAD_MAX: usize = 64 * 1024;
/// Headers of one response.
const HEADERS_MAX: usize = 128;
/// Room for a read of what has no place of its own, and the longest piece of a body.
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

/// What becomes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// It is kept, up to so many bytes.
    Whole(u64),
    /// It is taken as it comes.
    Pieces,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized { left: u64 },
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
    keeps: Keeps,
    /// What came, and how much of it was looked at.
    input: Vec<u8>,
    seen: usize,
    response: Response<()>,
    /// Of a body in pieces: the head is to be taken first.
    head_waits: bool,
    /// All that came of a body that is kept, or its next piece.
    body: Vec<u8>,
    trailers: HeaderMap,
    persistent: bool,
    /// Whether anything came at all.
    begun: bool,
}

impl Reader {
    /// For a response to a HEAD request if `to_head`.
    pub(super) fn new(to_head: bool, keeps: Keeps) -> Self {
        Self {
            state: State::Head,
            to_head,
            keeps,
            input: Vec::new(),
            seen: 0,
            response: Response::new(()),
            head_waits: false,
            body: Vec::new(),
            trailers: HeaderMap::new(),
            persistent: false,
            begun: false,
        }
    }

    /// Where the next bytes are to be read to: what has spare capacity. Tell by [`Self::came`] what was read.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        if let State::Sized { left } = self.state {
            if self.keeps == Keeps::Pieces {
                self.body.reserve_exact(usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES));
            }
            return &mut self.body;
        }
        self.input.drain(..self.seen);
        self.seen = 0;
        self.input.reserve(READ_BYTES);
        &mut self.input
    }

    /// So many bytes came into the room; `true` once the response is whole.
    pub(super) fn came(&mut self, count: usize) -> Result<bool, Unreadable> {
        self.begun = true;
        if let State::Sized { left } = &mut self.state {
            let longer = Unreadable::Malformed("a body is longer than its length");
            *left = left.checked_sub(count as u64).ok_or(longer)?;
        }
        self.go_on()
    }

    /// Goes on with what is there; `true` once the response is whole.
    pub(super) fn go_on(&mut self) -> Result<bool, Unreadable> {
        while !self.head_waits && self.step()? {}
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

    /// Whether something is to be taken before anything more is read.
    pub(super) fn is_full(&self) -> bool {
        self.head_waits || (self.keeps == Keeps::Pieces && !self.body.is_empty())
    }

    /// Whether the body is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.keeps != Keeps::Pieces
    }

    /// The head that is to be taken, of a body in pieces.
    pub(super) fn head(&self) -> Option<&Response<()>> {
        self.head_waits.then_some(&self.response)
    }

    /// Takes it, with the length of the body if that is known.
    pub(super) fn take_head(&mut self) -> (Response<()>, Option<u64>) {
        self.head_waits = false;
        let length = match self.state {
            State::Sized { left } => Some(left + self.body.len() as u64),
            State::Done => Some(0),
            _ => None,
        };
        (std::mem::take(&mut self.response), length)
    }

    /// Keeps the body after all, up to `most` bytes.
    pub(super) fn keep(&mut self, most: u64) -> Result<(), Unreadable> {
        (self.head_waits, self.keeps) = (false, Keeps::Whole(most));
        self.make_room()
    }

    /// The next piece of the body, if there is one.
    pub(super) fn take_piece(&mut self) -> Option<Bytes> {
        (!self.body.is_empty()).then(|| std::mem::take(&mut self.body).into())
    }

    /// What stood after the body.
    pub(super) fn take_trailers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.trailers)
    }

    /// Whether the connection can be used for another request, after a response that is whole.
    pub(super) fn persists(&self) -> bool {
        self.persistent && self.seen == self.input.len()
    }

    /// The response.
    pub(super) fn take(&mut self) -> Response<Bytes> {
        let body = Bytes::from(std::mem::take(&mut self.body));
        std::mem::take(&mut self.response).map(|()| body)
    }

    fn unseen(&self) -> &[u8] {
        &self.input[self.seen..]
    }

    /// One step; `false` if it takes more bytes, or there is none.
    fn step(&mut self) -> Result<bool, Unreadable> {
        match self.state {
            State::Head => self.read_head(),
            State::Sized { left } => {
                if left == 0 {
                    self.state = State::Done;
                }
                Ok(false)
            }
            State::Size => {
                let Some((at, size)) = chunk_size(self.unseen())? else { return Ok(false) };
                self.seen += at;
                self.fits(size.saturating_add(self.body.len() as u64), None)?;
                self.state = if size == 0 { State::Trailers } else { State::Chunk { left: size } };
                Ok(true)
            }
            State::Chunk { left } => {
                let left = left - self.take_body(left);
                self.state = State::Chunk { left };
                if left > 0 || self.unseen().len() < 2 {
                    return Ok(false);
                }
                if !self.unseen().starts_with(b"\r\n") {
                    return Err(Unreadable::Malformed("a chunk does not end where it should"));
                }
                self.seen += 2;
                self.state = State::Size;
                Ok(true)
            }
            State::Trailers => {
                let mut trailers = [httparse::EMPTY_HEADER; HEADERS_MAX];
                match httparse::parse_headers(&self.input[self.seen..], &mut trailers) {
                    Ok(httparse::Status::Complete((end, trailers))) => {
                        self.trailers = headers(trailers)?;
                        self.seen += end;
                        self.state = State::Done;
                        Ok(false)
                    }
                    Ok(httparse::Status::Partial) if self.unseen().len() <= HEAD_MAX => Ok(false),
                    Ok(httparse::Status::Partial) => Err(TOO_LONG),
                    Err(_) => Err(Unreadable::Malformed("trailers cannot be read")),
                }
            }
            State::Rest => {
                self.take_body(u64::MAX);
                self.fits(self.body.len() as u64, None)?;
                Ok(false)
            }
            State::Done => Ok(false),
        }
    }

    /// Takes at most `most` bytes of the body from the input; gives their number.
    fn take_body(&mut self, most: u64) -> u64 {
        let here = usize::try_from(most).unwrap_or(usize::MAX).min(self.unseen().len());
        self.body.extend_from_slice(&self.input[self.seen..self.seen + here]);
        self.seen += here;
        here as u64
    }

    fn fits(&self, length: u64, said: Option<u64>) -> Result<(), Unreadable> {
        match self.keeps {
            Keeps::Whole(most) if length > most => Err(Unreadable::TooLarge(said)),
            _ => Ok(()),
        }
    }

    fn read_head(&mut self) -> Result<bool, Unreadable> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        let end = match parsed.parse(&self.input[self.seen..]) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) if self.unseen().len() <= HEAD_MAX => return Ok(false),
            Ok(httparse::Status::Partial) => return Err(TOO_LONG),
            Err(_) => return Err(Unreadable::Malformed("a head cannot be read")),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Unreadable::Malformed("a head has no status"))?;
        let mut kept = headers(parsed.headers)?;
        let persistent = parsed.version == Some(1);
        self.seen += end;
        if status.is_informational() {
            return if status == StatusCode::SWITCHING_PROTOCOLS {
                Err(Unreadable::Malformed("an upgrade that nobody asked for"))
            } else {
                Ok(true)
            };
        }
        let closes = kept.get_all(CONNECTION).iter().any(|value| has_word(value, b"close"));
        self.persistent = persistent && !closes;
        let no_body = self.to_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.state = self.framing(&kept, no_body)?;
        // Of this connection, not of the response.
        kept.remove(CONNECTION);
        kept.remove(TRANSFER_ENCODING);
        *self.response.status_mut() = status;
        *self.response.version_mut() = Version::HTTP_11;
        *self.response.headers_mut() = kept;
        self.head_waits = self.keeps == Keeps::Pieces;
        if let State::Sized { left } = self.state {
            self.make_room()?;
            let left = left - self.take_body(left);
            self.state = State::Sized { left };
        }
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
            self.persistent = false;
            return Ok(State::Rest);
        };
        let length = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let (Some(Ok(left)), None) = (length.map(str::parse::<u64>), lengths.next()) else {
            return Err(Unreadable::Malformed("a length that is none"));
        };
        Ok(State::Sized { left })
    }

    /// Room for all of a body that is kept and whose length was said, which is checked against what is taken at most.
    fn make_room(&mut self) -> Result<(), Unreadable> {
        if let State::Sized { left } = self.state
            && self.is_kept()
        {
            let length = left.saturating_add(self.body.len() as u64);
            self.fits(length, Some(length))?;
            self.body.reserve_exact(usize::try_from(left).map_err(|_| Unreadable::TooLarge(Some(length)))?);
        }
        Ok(())
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

fn headers(parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Unreadable> {
    let mut kept = HeaderMap::with_capacity(parsed.len());
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(header.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Unreadable::Malformed("a header cannot be read"));
        };
        kept.append(name, value);
    }
    Ok(kept)
}

fn has_word(value: &HeaderValue, word: &[u8]) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives the reader what it has room for; `false` if it has none for all.
    fn feed(reader: &mut Reader, mut bytes: &[u8]) -> Result<bool, Unreadable> {
        while !bytes.is_empty() {
            let room = reader.room();
            let here = bytes.len().min(room.capacity() - room.len());
            if here == 0 {
                // As a socket would be left unread.
                return Ok(false);
            }
            room.extend_from_slice(&bytes[..here]);
            bytes = &bytes[here..];
            reader.came(here)?;
        }
        Ok(true)
    }

    fn read(bytes: &[u8], parts: usize, to_head: bool) -> Result<(Response<Bytes>, bool), Unreadable> {
        let mut reader = Reader::new(to_head, Keeps::Whole(1_000));
        for part in bytes.chunks(parts.max(1)) {
            if !feed(&mut reader, part)? {
                return Ok((reader.take(), reader.persists()));
            }
        }
        if reader.state != State::Done {
            reader.ended()?;
        }
        Ok((reader.take(), reader.persists()))
    }

    /// What comes of a body in pieces: all of it, its length, its trailers.
    type Pieces = (u16, Vec<u8>, Option<u64>, HeaderMap);

    fn in_pieces(bytes: &[u8], parts: usize) -> Result<Pieces, Unreadable> {
        let mut reader = Reader::new(false, Keeps::Pieces);
        let (mut head, mut body) = (None, Vec::new());
        for part in bytes.chunks(parts) {
            assert!(feed(&mut reader, part)?, "there is always room");
            if reader.head().is_some() {
                assert!(reader.is_full(), "the head is to be taken first");
                head = Some(reader.take_head());
                reader.go_on()?;
            }
            while let Some(piece) = reader.take_piece() {
                assert!(head.is_some() && piece.len() <= 2 * READ_BYTES);
                body.extend_from_slice(&piece);
                reader.go_on()?;
            }
        }
        if !reader.go_on()? {
            reader.ended()?;
        }
        let (head, length) = head.expect("a head");
        Ok((head.status().as_u16(), body, length, reader.take_trailers()))
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
    fn bodies_are_taken_in_pieces_however_they_come() {
        for (text, status, body, _) in CASES {
            for parts in 1..text.len() + 1 {
                let (seen, pieces, length, trailers) = in_pieces(text.as_bytes(), parts).unwrap();
                assert_eq!((seen, &pieces[..]), (status, body.as_bytes()), "{text} in {parts}");
                let said = text.contains("Length") || status == 204;
                assert_eq!(length, said.then_some(body.len() as u64), "{text}");
                assert_eq!(trailers.len(), usize::from(text.contains("T: 1")), "{text}");
            }
        }
        // More than is ever kept at a time, and each piece of a bounded size.
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n{}", "x".repeat(500_000));
        assert_eq!(in_pieces(long.as_bytes(), 70_000).unwrap().1.len(), 500_000);
        for cut in ["Content-Length: 9\r\n\r\nfour", "Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n"] {
            let text = format!("HTTP/1.1 200 OK\r\n{cut}");
            assert_eq!(in_pieces(text.as_bytes(), 9).err(), Some(Unreadable::BrokeOff), "{text}");
        }
    }

    #[test]
    fn a_body_in_pieces_is_kept_after_all_up_to_a_limit() {
        for framing in
            ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
        {
            let text = format!("HTTP/1.1 502 Oh\r\n{framing}");
            for most in [4, 5] {
                let mut reader = Reader::new(false, Keeps::Pieces);
                feed(&mut reader, text.as_bytes()).unwrap();
                let kept = reader.keep(most).and_then(|()| reader.go_on());
                assert_eq!(kept.is_ok(), most == 5, "{text} {kept:?}");
                assert!(most == 4 || reader.take().body() == "hello");
            }
        }
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
