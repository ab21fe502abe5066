//! The chunked coding of bodies, written, and read strictly: CRLF and nothing else ends a line.
//!
//! | state | takes | then |
//! |---|---|---|
//! | start, size | hexadecimal digits, at least one | blanks, extension, size's LF |
//! | blanks | spaces and tabs | extension, size's LF |
//! | extension | anything but LF | size's LF |
//! | size's LF | LF | data, or for size 0 the end's CR |
//! | data, data's CR and LF | as many bytes as announced, CRLF | start |
//! | end's CR | CR, or the first byte of a trailer | end's LF, trailer |
//! | trailer, trailer's LF | bytes to a CR, LF | end's CR |
//! | end's LF | LF | over |
//!
//! # Source
//! RFC 9112 section 7.1.

use super::decode::Decoded;
use super::fields::{self, HeadLimits, NO_TRAILERS};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Most bytes of chunk extensions in one body.
const EXTENSIONS_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Size,
    Blanks,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    EndCr,
    Trailer,
    TrailerLf,
    EndLf,
    Over,
}

/// The line in front of a chunk.
pub(crate) fn chunk(bytes: &mut Vec<u8>, length: usize) {
    use std::io::Write as _;
    // Writing to memory does not fail.
    let _ = write!(bytes, "{length:X}\r\n");
}

/// The end of a chunked body.
pub(crate) fn last_chunk(bytes: &mut Vec<u8>, trailers: Option<&HeaderMap>, title_case: bool) {
    bytes.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if !NO_TRAILERS.contains(&name.as_str()) {
            fields::write(bytes, name, value.as_bytes(), title_case);
        }
    }
    bytes.extend_from_slice(b"\r\n");
}

/// Decodes one body.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    size: u64,
    extensions: usize,
    trailers: Vec<u8>,
    trailer_count: usize,
    limits: HeadLimits,
}

impl Chunked {
    /// `limits` are those of the trailer section.
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { state: State::Start, size: 0, extensions: 0, trailers: Vec::new(), trailer_count: 0, limits }
    }

    /// Bytes that are certainly still to come.
    pub(crate) fn left(&self) -> u64 {
        if self.state == State::Data { self.size } else { 0 }
    }

    /// Takes note of `length` bytes, at most [`Self::left`], that were read past it.
    pub(crate) fn took(&mut self, length: u64) {
        self.size -= length;
        if self.size == 0 {
            self.state = State::DataCr;
        }
    }

    /// Takes from `read` what belongs to the body.
    ///
    /// # Errors
    /// Why this is no chunked body; nothing after it can be trusted.
    pub(crate) fn decode(&mut self, read: &mut Bytes) -> Result<Decoded, &'static str> {
        while self.state != State::Over {
            if self.state == State::Data {
                if read.is_empty() {
                    return Ok(Decoded::More);
                }
                let length = read.len().min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.took(length as u64);
                return Ok(Decoded::Data(read.split_to(length)));
            }
            let Some(byte) = read.first().copied() else { return Ok(Decoded::More) };
            read.advance(1);
            self.state = self.step(byte)?;
        }
        if self.trailers.is_empty() {
            Ok(Decoded::End(None))
        } else {
            self.end_of_trailers().map(Decoded::End)
        }
    }

    /// Takes the end of the body, if it is there as a whole and has no trailers.
    pub(crate) fn take_plain_end(&mut self, read: &mut Bytes) -> bool {
        const PLAIN_END: &[u8] = b"\r\n0\r\n\r\n";
        if self.state == State::DataCr && read.starts_with(PLAIN_END) {
            read.advance(PLAIN_END.len());
            self.state = State::Over;
        }
        self.state == State::Over
    }

    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        Ok(match (self.state, byte) {
            (State::Start | State::Size, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.size = self
                    .size
                    .checked_mul(16)
                    .and_then(|size| size.checked_add(digit))
                    .ok_or("a chunk's size is too large")?;
                State::Size
            }
            (State::Size | State::Blanks, b' ' | b'\t') => State::Blanks,
            (State::Size | State::Blanks, b';') => State::Extension,
            (State::Size | State::Blanks | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, byte) if byte != b'\n' => {
                self.extensions += 1;
                if self.extensions >= EXTENSIONS_MAX {
                    return Err("too many chunk extensions");
                }
                State::Extension
            }
            (State::SizeLf, b'\n') if self.size == 0 => State::EndCr,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::EndCr, b'\r') => State::EndLf,
            // As the first byte LF begins a trailer that none can be, which shows at its end.
            (State::EndCr, byte) | (State::Trailer, byte @ (..=0x09 | 0x0b..)) => {
                self.keep(byte)?;
                if byte == b'\r' { State::TrailerLf } else { State::Trailer }
            }
            (State::TrailerLf, b'\n') => {
                self.trailer_count += 1;
                if self.trailer_count > self.limits.fields {
                    return Err("too many trailers");
                }
                self.keep(byte)?;
                State::EndCr
            }
            (State::EndLf, b'\n') => State::Over,
            _ => return Err("malformed chunk"),
        })
    }

    fn keep(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.trailers.len() >= self.limits.bytes {
            return Err("trailers are too large");
        }
        self.trailers.push(byte);
        Ok(())
    }

    fn end_of_trailers(&mut self) -> Result<Option<HeaderMap>, &'static str> {
        const MALFORMED: &str = "malformed trailers";
        let mut text = std::mem::take(&mut self.trailers);
        text.extend_from_slice(b"\r\n");
        let mut fields = vec![httparse::EMPTY_HEADER; self.trailer_count];
        let parsed = httparse::parse_headers(&text, &mut fields);
        let Ok(httparse::Status::Complete((_, fields))) = parsed else { return Err(MALFORMED) };
        if fields.len() != self.trailer_count {
            return Err(MALFORMED);
        }
        let mut trailers = HeaderMap::new();
        for field in fields {
            let name = HeaderName::try_from(field.name).map_err(|_| MALFORMED)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| MALFORMED)?;
            trailers.try_append(name, value).map_err(|_| "too many trailers")?;
        }
        Ok(Some(trailers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 100, fields: 2 };

    /// Decodes `text` in pieces of `step` bytes.
    fn decoded(text: &str, step: usize) -> Result<(String, Option<HeaderMap>, Bytes), &'static str> {
        let (mut coding, mut data) = (Chunked::new(LIMITS), String::new());
        let mut left = Bytes::copy_from_slice(text.as_bytes());
        let mut read = Bytes::new();
        loop {
            match coding.decode(&mut read)? {
                Decoded::Data(bytes) => data.push_str(std::str::from_utf8(&bytes).unwrap()),
                Decoded::End(trailers) => {
                    let rest = [read, left].concat();
                    return Ok((data, trailers, rest.into()));
                }
                Decoded::More if left.is_empty() => return Err("more"),
                Decoded::More => read = left.split_to(step.min(left.len())),
            }
        }
    }

    #[test]
    fn bodies_in_whatever_pieces_they_come() {
        let text = "3\r\nabc\r\n00A; ext=\"\r\"\r\n"; // a CR in an extension must be followed by LF
        assert!(decoded(text, 100).is_err());
        let text = "3 \t\r\nabc\r\n00A;ext=1\r\n0123456789\r\n0\r\nX-A: 1\r\nx-b:2\r\n\r\nGET";
        for step in 1..text.len() {
            let (data, trailers, rest) = decoded(text, step).unwrap();
            assert_eq!(data, "abc0123456789");
            let trailers = trailers.unwrap();
            assert_eq!((&trailers["x-a"], &trailers["x-b"]), (&"1".parse().unwrap(), &"2".parse().unwrap()));
            assert_eq!(rest, "GET");
        }
        assert_eq!(decoded("0\r\n\r\n", 1).unwrap(), (String::new(), None, Bytes::new()));
    }

    #[test]
    fn what_is_no_chunked_body() {
        for text in [
            "\r\nabc",
            "g\r\n",
            "-1\r\n",
            "0x1\r\na\r\n",
            " 1\r\na\r\n",
            "1\na\r\n",
            "1\r\na\n",
            "1\r\nab\r\n",
            "1;a\nb\r\n",
            "1 1\r\na",
            "10000000000000000\r\n",
            "0\r\n\n\r\n\r\n",
            "0\r\nx: 1\n\r\n",
            "0\r\nx : 1\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\na:1\r\nb:2\r\nc:3\r\n\r\n",
        ] {
            let error = decoded(text, 100).unwrap_err();
            assert_ne!(error, "more", "{text:?}");
        }
        let long = format!("0\r\na: {}\r\n\r\n", "b".repeat(LIMITS.bytes));
        assert_eq!(decoded(&long, 7).unwrap_err(), "trailers are too large");
        let extension = format!("1;{}\r\n", "b".repeat(EXTENSIONS_MAX));
        assert_eq!(decoded(&extension, 1000).unwrap_err(), "too many chunk extensions");
        assert_eq!(decoded("5\r\nab", 100).unwrap_err(), "more");
    }

    #[test]
    fn what_is_written() {
        let mut trailers = HeaderMap::new();
        trailers.append("grpc-status", HeaderValue::from_static("0"));
        trailers.append("content-length", HeaderValue::from_static("9"));
        let mut bytes = Vec::new();
        chunk(&mut bytes, 26);
        last_chunk(&mut bytes, Some(&trailers), true);
        assert_eq!(String::from_utf8(bytes).unwrap(), "1A\r\n0\r\nGrpc-Status: 0\r\n\r\n");
    }

    #[test]
    fn a_plain_end_is_taken_with_the_last_data() {
        let mut read = Bytes::from_static(b"3\r\nabc\r\n0\r\n\r\nGET");
        let mut chunked = Chunked::new(LIMITS);
        assert_eq!(chunked.decode(&mut read), Ok(Decoded::Data(Bytes::from_static(b"abc"))));
        assert!(chunked.take_plain_end(&mut read));
        assert_eq!(read, "GET");
        for more in [
            "3\r\nabc\r\n0\r\n",
            "3\r\nabc\r\n0\r\na: b\r\n\r\n",
            "3\r\nabc\r\n1\r\nd\r\n",
            "4\r\nabc\r\n0\r\n\r\n",
        ] {
            let mut read = Bytes::copy_from_slice(more.as_bytes());
            let mut chunked = Chunked::new(LIMITS);
            assert!(matches!(chunked.decode(&mut read), Ok(Decoded::Data(_))));
            let left = read.clone();
            assert!(!chunked.take_plain_end(&mut read), "{more:?}");
            assert_eq!(read, left);
        }
    }
}
