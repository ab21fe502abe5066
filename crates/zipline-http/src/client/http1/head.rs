//! The head of a response: what is one, and what it says about the rest. It is as strict as the server's: whoever reads this
//! client's response must not find another body, or another response, in it.
//!
//! # Source
//! RFC 9112 sections 4 and 6.3.

use crate::http1::fields::{
    FEW_FIELDS, HeadLimits, NAME_MAX, digits, has_token, is_complete, room_for_fields,
};
use crate::http1::spare;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderName, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use std::mem::MaybeUninit;

/// Where a response's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// The end of the connection.
    Close,
}

/// What of the request decides about the response's form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) head: bool,
    pub(super) connect: bool,
}

/// A head and what it says about the rest of the message.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// The connection may serve another request.
    pub(super) keep_alive: bool,
    /// What follows is no longer HTTP.
    pub(super) tunnel: bool,
    /// Its length.
    pub(super) bytes: usize,
}

/// What came is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeadError {
    #[error("malformed HTTP response: {0}")]
    Malformed(#[from] httparse::Error),
    #[error("malformed HTTP response: {0}")]
    Field(&'static str),
    #[error("response head is longer than {0} bytes")]
    TooLong(usize),
    #[error("response head has more than {0} fields")]
    TooMany(usize),
}

/// Parses the head at the start of `read` and takes it from there; `None` if it is not there as a whole.
///
/// `seen` are the bytes that an earlier call found to be a partial head; those are not parsed again until the end has come.
pub(super) fn parse(
    read: &mut Bytes,
    seen: usize,
    asked: Asked,
    limits: HeadLimits,
) -> Result<Option<Head>, HeadError> {
    if read.is_empty() {
        return Ok(None);
    }
    if seen > 0 && !is_complete(read, seen) {
        return partial(read, limits);
    }
    let all = read.clone();
    let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let count = FEW_FIELDS.min(limits.fields);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, &all, &mut few[..count]) {
        Err(httparse::Error::TooManyHeaders) if limits.fields > FEW_FIELDS => {
            let mut many = room_for_fields(&all, limits.fields);
            let mut response = httparse::Response::new(&mut many);
            let parsed = response.parse(&all);
            take(parsed, &response, read, asked, limits)
        }
        parsed => take(parsed, &response, read, asked, limits),
    }
}

fn take(
    parsed: httparse::Result<usize>,
    response: &httparse::Response<'_, '_>,
    read: &mut Bytes,
    asked: Asked,
    limits: HeadLimits,
) -> Result<Option<Head>, HeadError> {
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return partial(read, limits),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooMany(limits.fields)),
        Err(error) => return Err(error.into()),
    };
    if length > limits.bytes {
        return Err(HeadError::TooLong(limits.bytes));
    }
    let head = understand(response, read, asked, length)?;
    *read = read.slice(length..);
    Ok(Some(head))
}

fn partial(read: &Bytes, limits: HeadLimits) -> Result<Option<Head>, HeadError> {
    if read.len() >= limits.bytes {
        return Err(HeadError::TooLong(limits.bytes));
    }
    Ok(None)
}

fn understand(
    parsed: &httparse::Response<'_, '_>,
    all: &Bytes,
    asked: Asked,
    length: usize,
) -> Result<Head, HeadError> {
    const FIELD: HeadError = HeadError::Field("a field of its head");
    let (Some(minor), Some(code)) = (parsed.version, parsed.code) else {
        return Err(HeadError::Field("its first line"));
    };
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Field("its status"))?;
    let http11 = minor == 1;
    let mut said = Said { http11, keep_alive: http11, ..Said::default() };
    let mut headers = spare::take();
    headers.try_reserve(parsed.headers.len()).map_err(|_| FIELD)?;
    for field in &*parsed.headers {
        if field.name.len() > NAME_MAX {
            return Err(FIELD);
        }
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| FIELD)?;
        let value = HeaderValue::from_maybe_shared(all.slice_ref(field.value)).map_err(|_| FIELD)?;
        if said.hear(&name, &value, &mut headers)? {
            headers.try_append(name, value).map_err(|_| FIELD)?;
        }
    }
    let tunnel = status == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && status.is_success());
    let bodiless = tunnel
        || asked.head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = if bodiless { Framing::Length(0) } else { said.framing() };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // A version belongs to one hop: a peer of HTTP/1.0 is no reason to speak it to anyone else.
    *response.version_mut() = Version::HTTP_11;
    let reason = parsed.reason.unwrap_or_default();
    if status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let keep_alive = said.keep_alive && framing != Framing::Close && !(said.chunked && said.sized);
    Ok(Head { response, framing, keep_alive, tunnel, bytes: length })
}

/// What the fields say about the message and the connection.
#[derive(Debug, Default)]
struct Said {
    http11: bool,
    keep_alive: bool,
    close: bool,
    chunked: bool,
    /// It has a length, whether that counts or not.
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
    ) -> Result<bool, HeadError> {
        if name == TRANSFER_ENCODING {
            // Of any other coding, or of two, nobody knows where it ends.
            if !self.http11 || self.chunked || !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
            {
                return Err(HeadError::Field("its Transfer-Encoding"));
            }
            self.chunked = true;
            headers.remove(CONTENT_LENGTH);
        } else if name == CONTENT_LENGTH {
            self.sized = true;
            let length = digits(value.as_bytes()).ok_or(HeadError::Field("its Content-Length"))?;
            return match self.length.replace(length) {
                Some(before) if before != length => Err(HeadError::Field("it has two lengths")),
                Some(_) => Ok(false),
                None => Ok(!self.chunked),
            };
        } else if name == CONNECTION {
            self.close |= has_token(value, "close");
            self.keep_alive = !self.close && (self.keep_alive || has_token(value, "keep-alive"));
        }
        Ok(true)
    }

    fn framing(&self) -> Framing {
        match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Close,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 10_000, fields: 200 };
    const GET: Asked = Asked { head: false, connect: false };

    fn parsed(text: &str, asked: Asked) -> Result<Option<Head>, HeadError> {
        parse(&mut Bytes::copy_from_slice(text.as_bytes()), 0, asked, LIMITS)
    }

    fn head(status: &str, fields: &str) -> Head {
        parsed(&format!("{status}\r\n{fields}\r\n"), GET).unwrap().unwrap()
    }

    fn refused(text: &str) -> HeadError {
        parsed(text, GET).unwrap_err()
    }

    #[test]
    fn a_head_is_taken_when_its_end_has_come() {
        let text = "HTTP/1.1 201 Made so\r\nX-A: 1\r\nContent-Length: 2\r\n\r\n";
        for cut in 1..text.len() {
            let mut read = Bytes::copy_from_slice(&text.as_bytes()[..cut]);
            assert!(matches!(parse(&mut read, 0, GET, LIMITS), Ok(None)), "{cut}");
            let mut all = Bytes::from(format!("{text}hi"));
            let head = parse(&mut all, cut, GET, LIMITS).unwrap().unwrap();
            assert_eq!((all, head.bytes), (Bytes::from_static(b"hi"), text.len()));
            assert_eq!((head.response.status().as_u16(), head.framing), (201, Framing::Length(2)));
            assert_eq!(head.response.headers()["x-a"], "1");
            let reason = head.response.extensions().get::<ReasonPhrase>().unwrap();
            assert_eq!(reason.as_bytes(), b"Made so");
        }
        assert!(head("HTTP/1.1 200 OK", "").response.extensions().get::<ReasonPhrase>().is_none());
    }

    #[test]
    fn where_bodies_end() {
        let framing = |fields: &str| head("HTTP/1.1 200 OK", fields).framing;
        assert_eq!(framing("Content-Length: 5\r\nContent-Length: 5\r\n"), Framing::Length(5));
        assert_eq!(framing("transfer-encoding: Chunked\r\n"), Framing::Chunked);
        assert_eq!(framing(""), Framing::Close);
        for none in ["HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 103 Early Hints"] {
            assert_eq!(head(none, "Content-Length: 5\r\n").framing, Framing::Length(0), "{none}");
        }
        let of_head = parsed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Asked { head: true, ..GET });
        let of_head = of_head.unwrap().unwrap();
        assert_eq!(of_head.framing, Framing::Length(0));
        assert_eq!(of_head.response.headers()["content-length"], "5");
    }

    #[test]
    fn whoever_hides_a_second_response_gets_no_second_request() {
        for both in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ] {
            let head = head("HTTP/1.1 200 OK", both);
            assert_eq!((head.framing, head.keep_alive), (Framing::Chunked, false));
            assert!(!head.response.headers().contains_key("content-length"));
        }
        let keeps = |line: &str, fields: &str| {
            head(&format!("{line} 200 OK"), &format!("Content-Length: 0\r\n{fields}")).keep_alive
        };
        assert!(keeps("HTTP/1.1", "") && keeps("HTTP/1.0", "Connection: x, Keep-Alive\r\n"));
        assert!(
            !keeps("HTTP/1.0", "") && !keeps("HTTP/1.1", "Connection: Close\r\nConnection: keep-alive\r\n")
        );
        assert!(!head("HTTP/1.1 200 OK", "").keep_alive);
    }

    #[test]
    fn what_is_no_response() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "a : b",
            "a: b\r\n c",
        ] {
            refused(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
        }
        refused("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        refused("what?\r\n\r\n");
        refused("HTTP/1.1 20 OK\r\n\r\n");
        let many = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert_eq!(parsed(&many(200), GET).unwrap().unwrap().response.headers().len(), 200);
        assert!(matches!(refused(&many(201)), HeadError::TooMany(200)));
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(10_000));
        assert!(matches!(refused(&long), HeadError::TooLong(10_000)));
        assert!(matches!(refused(&format!("{long}\r\n\r\n")), HeadError::TooLong(10_000)));
    }

    #[test]
    fn tunnels() {
        assert!(head("HTTP/1.1 101 Switching Protocols", "").tunnel);
        let connect = Asked { connect: true, ..GET };
        assert!(parsed("HTTP/1.1 200 OK\r\n\r\n", connect).unwrap().unwrap().tunnel);
        assert!(!parsed("HTTP/1.1 407 No\r\n\r\n", connect).unwrap().unwrap().tunnel);
    }
}
