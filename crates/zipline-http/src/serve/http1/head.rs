//! The head of a request: what is one, what it says about the body, and what is refused.
//!
//! The grammar is httparse's, which takes neither folded lines nor a bare CR; what a head means beyond that is decided here
//! once, so that nobody behind this server can read it in another way.
//!
//! # Source
//! RFC 9112 sections 2.2, 3, 6.1 and 6.3.

use crate::http1::fields::{
    FEW_FIELDS, HeadLimits, NAME_MAX, digits, has_token, is_complete, room_for_fields,
};
use crate::http1::spare;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, Method, Request, StatusCode, Uri, Version};
use std::mem::MaybeUninit;

/// Longest target, in bytes: what `http::Uri` can hold.
const TARGET_MAX: usize = 65_534;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Where a request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

/// A head and what it says about the rest of the message.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) request: Request<()>,
    pub(crate) framing: Framing,
    /// The connection may serve another request after this one.
    pub(crate) keep_alive: bool,
    /// The client waits for `100 Continue`.
    pub(crate) expects: bool,
    /// The client offers to change protocol, or asks for a tunnel.
    pub(crate) upgrade: bool,
}

/// What the bytes so far are.
#[derive(Debug)]
pub(crate) enum Parsed {
    Head(Box<Head>),
    Partial,
    /// No request of HTTP/1.1; the client is told, and the connection ends.
    Refused(StatusCode),
    /// The beginning of HTTP/2 where it cannot begin: the connection ends without a word.
    Preface,
}

/// Parses the head at the start of `read` and takes it from there.
///
/// `seen` are the bytes that an earlier call found to be a partial head; those are not parsed again until the end has come.
pub(crate) fn parse(read: &mut Bytes, seen: usize, limits: HeadLimits) -> Parsed {
    if read.is_empty() {
        return Parsed::Partial;
    }
    if seen > 0 && !is_complete(read, seen) {
        return partial(read, limits);
    }
    let all = read.clone();
    let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let count = FEW_FIELDS.min(limits.fields);
    let parsed = match request.parse_with_uninit_headers(&all, &mut few[..count]) {
        Err(httparse::Error::TooManyHeaders) if limits.fields > FEW_FIELDS => {
            return parse_many(read, limits);
        }
        parsed => parsed,
    };
    take(parsed, &request, &all, read, limits)
}

/// As many fields as there are lines, at most.
fn parse_many(read: &mut Bytes, limits: HeadLimits) -> Parsed {
    let mut many = room_for_fields(read, limits.fields);
    let all = read.clone();
    let mut request = httparse::Request::new(&mut many);
    let parsed = request.parse(&all);
    take(parsed, &request, &all, read, limits)
}

fn take(
    parsed: httparse::Result<usize>,
    request: &httparse::Request<'_, '_>,
    all: &Bytes,
    read: &mut Bytes,
    limits: HeadLimits,
) -> Parsed {
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return partial(read, limits),
        Err(_) if read.starts_with(PREFACE) => return Parsed::Preface,
        Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        Err(_) => return Parsed::Refused(StatusCode::BAD_REQUEST),
    };
    if length > limits.bytes {
        return Parsed::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let head = understand(request, all);
    *read = all.slice(length..);
    match head {
        Ok(head) => Parsed::Head(Box::new(head)),
        Err(status) => Parsed::Refused(status),
    }
}

fn partial(read: &Bytes, limits: HeadLimits) -> Parsed {
    if read.len() >= limits.bytes {
        return Parsed::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    Parsed::Partial
}

fn understand(parsed: &httparse::Request<'_, '_>, all: &Bytes) -> Result<Head, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(BAD);
    };
    if target.len() > TARGET_MAX {
        return Err(StatusCode::URI_TOO_LONG);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BAD)?;
    let target = Uri::from_maybe_shared(all.slice_ref(target.as_bytes())).map_err(|_| BAD)?;
    let http11 = minor == 1;
    let mut said = Said { http11, keep_alive: http11, upgrade: method == Method::CONNECT, ..Said::default() };
    let mut headers = spare::take();
    headers.try_reserve(parsed.headers.len()).map_err(|_| StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)?;
    for field in &*parsed.headers {
        if field.name.len() > NAME_MAX {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BAD)?;
        let value = HeaderValue::from_maybe_shared(all.slice_ref(field.value)).map_err(|_| BAD)?;
        if said.hear(&name, &value, &mut headers)? {
            headers.try_append(name, value).map_err(|_| StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)?;
        }
    }
    let framing = said.framing()?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.version_mut() = if http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    *request.headers_mut() = headers;
    Ok(Head {
        request,
        framing,
        // Whoever reads a length and a coding differently must not find a second request behind it.
        keep_alive: said.keep_alive && !(said.coded && said.sized),
        expects: said.expects && http11,
        upgrade: said.upgrade,
    })
}

/// What the fields say about the message and the connection.
#[derive(Debug, Default)]
struct Said {
    http11: bool,
    keep_alive: bool,
    close: bool,
    upgrade: bool,
    expects: bool,
    coded: bool,
    chunked: bool,
    sized: bool,
    length: Option<u64>,
}

impl Said {
    /// Takes note of a field; whether it is kept.
    fn hear(
        &mut self,
        name: &HeaderName,
        value: &HeaderValue,
        headers: &mut HeaderMap,
    ) -> Result<bool, StatusCode> {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        if name == TRANSFER_ENCODING {
            if !self.http11 {
                return Err(BAD);
            }
            self.coded = true;
            self.chunked = is_chunked(value);
            headers.remove(CONTENT_LENGTH);
        } else if name == CONTENT_LENGTH {
            self.sized = true;
            if self.coded {
                return Ok(false);
            }
            let length = digits(value.as_bytes()).ok_or(BAD)?;
            if let Some(before) = self.length {
                return if before == length { Ok(false) } else { Err(BAD) };
            }
            self.length = Some(length);
        } else if name == CONNECTION {
            self.close |= has_token(value, "close");
            self.keep_alive = !self.close && (self.keep_alive || has_token(value, "keep-alive"));
        } else if name == EXPECT {
            self.expects = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        } else if name == UPGRADE {
            self.upgrade |= self.http11;
        }
        Ok(true)
    }

    fn framing(&self) -> Result<Framing, StatusCode> {
        match (self.coded, self.chunked) {
            (true, true) => Ok(Framing::Chunked),
            // How it ends cannot be known.
            (true, false) => Err(StatusCode::BAD_REQUEST),
            (false, _) => Ok(Framing::Length(self.length.unwrap_or(0))),
        }
    }
}

/// Whether the last coding is `chunked`.
fn is_chunked(value: &HeaderValue) -> bool {
    let last = value.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 10_000, fields: 200 };

    fn parsed(text: &str) -> (Parsed, Bytes) {
        let mut read = Bytes::copy_from_slice(text.as_bytes());
        let parsed = parse(&mut read, 0, LIMITS);
        (parsed, read)
    }

    fn head(text: &str) -> Head {
        match parsed(text).0 {
            Parsed::Head(head) => *head,
            other => panic!("{other:?}"),
        }
    }

    fn refused(text: &str) -> u16 {
        match parsed(text).0 {
            Parsed::Refused(status) => status.as_u16(),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_head_is_taken_and_the_rest_stays() {
        let (parsed, rest) = parsed("POST /a?b HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi");
        let Parsed::Head(head) = parsed else { panic!("{parsed:?}") };
        assert_eq!(rest, "hi");
        assert_eq!((head.request.method(), head.request.uri().path()), (&Method::POST, "/a"));
        assert_eq!(head.request.headers()["host"], "t");
        assert_eq!(head.framing, Framing::Length(2));
        assert!(head.keep_alive && !head.expects && !head.upgrade);
    }

    #[test]
    fn a_head_in_pieces_is_parsed_when_its_end_has_come() {
        let text = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
        for cut in 1..text.len() {
            let mut read = Bytes::copy_from_slice(&text.as_bytes()[..cut]);
            assert!(matches!(parse(&mut read, 0, LIMITS), Parsed::Partial), "{cut}");
            assert_eq!(read.len(), cut);
            let mut all = Bytes::copy_from_slice(text.as_bytes());
            assert!(matches!(parse(&mut all, cut, LIMITS), Parsed::Head(_)), "{cut}");
        }
        let mut bare = Bytes::from_static(b"GET / HTTP/1.1\nHost: t\n\n");
        assert!(matches!(parse(&mut bare, 10, LIMITS), Parsed::Head(_)));
    }

    #[test]
    fn one_meaning_of_the_end() {
        let chunked = head("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(chunked.framing, Framing::Chunked);
        assert!(!chunked.keep_alive && !chunked.request.headers().contains_key("content-length"));
        let twice = head("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 05\r\n\r\n");
        assert_eq!(twice.framing, Framing::Length(5));
        assert_eq!(twice.request.headers().get_all("content-length").iter().count(), 1);
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: +5",
            "Content-Length: 5 5",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked, gzip",
        ] {
            assert_eq!(refused(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")), 400, "{fields}");
        }
        assert_eq!(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn connections_end_unless_both_want_them() {
        let keeps = |line: &str, fields: &str| head(&format!("GET / {line}\r\n{fields}\r\n")).keep_alive;
        assert!(keeps("HTTP/1.1", ""));
        assert!(!keeps("HTTP/1.1", "Connection: x, Close\r\nConnection: keep-alive\r\n"));
        assert!(!keeps("HTTP/1.0", ""));
        assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    }

    #[test]
    fn limits_and_malformed_heads() {
        let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert_eq!(head(&many(LIMITS.fields)).request.headers().len(), LIMITS.fields);
        assert_eq!(refused(&many(LIMITS.fields + 1)), 431);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(LIMITS.bytes))), 431);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\na: {}", "b".repeat(LIMITS.bytes))), 431);
        for text in [
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / HTTP/1.1\r\na : b\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\rc\r\n\r\n",
            "G@T / HTTP/1.1\r\n\r\n",
            "\0",
        ] {
            assert_eq!(refused(text), 400, "{text:?}");
        }
        assert!(matches!(parsed("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").0, Parsed::Preface));
    }
}
