//! The head of a response.

use super::date;
use crate::body::Body;
use crate::http1::fields::{self, FIELD_BYTES, digits, has_token};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderValue, TRAILER, TRANSFER_ENCODING};
use http::{Response, StatusCode};

/// What a head takes besides its fields, in bytes.
const HEAD_BYTES: usize = 128;

/// How the end of a response's body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// It has none.
    Bodiless,
    Length(u64),
    Chunked,
    /// The end of the connection.
    Close,
}

/// What of the request decides about the response's form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) http10: bool,
    pub(crate) head: bool,
    pub(crate) connect: bool,
    pub(crate) keep_alive: bool,
    pub(crate) title_case: bool,
}

/// A head as it is sent, and what follows it.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) framing: Framing,
    /// The connection serves another request afterwards.
    pub(crate) keep_alive: bool,
    /// What follows is no longer HTTP.
    pub(crate) tunnel: bool,
}

/// Encodes the head of `response`.
///
/// # Errors
/// The response contradicts itself about its length; none of it was sent.
pub(crate) fn head(response: &mut Response<Body>, asked: Asked) -> Result<Encoded, &'static str> {
    let status = response.status();
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let tunnel = switches || (asked.connect && status.is_success());
    if status.is_informational() && !switches {
        return Err("an informational response is not the last one");
    }
    let framing = framing(response, asked, tunnel)?;
    let closes = response.headers().get_all(CONNECTION).iter().any(|value| has_token(value, "close"));
    let mut keep_alive = asked.keep_alive && !closes && framing != Framing::Close;
    if !tunnel {
        keep_alive = say_connection(response.headers_mut(), keep_alive, closes, asked);
    }
    let mut bytes = Vec::with_capacity(HEAD_BYTES + response.headers().len() * FIELD_BYTES);
    bytes.extend_from_slice(if asked.http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    status_line(&mut bytes, response);
    let titled = asked.title_case;
    // A length is kept where it tells of a body that is not sent.
    let keeps_length = matches!(framing, Framing::Bodiless) && asked.head;
    for (name, value) in response.headers() {
        let dropped = name == TRANSFER_ENCODING
            || (name == CONTENT_LENGTH && !keeps_length)
            || (name == TRAILER && framing != Framing::Chunked);
        if !dropped {
            fields::write(&mut bytes, name, value.as_bytes(), titled);
        }
    }
    match framing {
        Framing::Length(length) => {
            fields::write(&mut bytes, &CONTENT_LENGTH, decimal(length).as_bytes(), titled)
        }
        Framing::Chunked => fields::write(&mut bytes, &TRANSFER_ENCODING, b"chunked", titled),
        Framing::Bodiless | Framing::Close => {}
    }
    if !response.headers().contains_key(DATE) {
        date::with(|date| fields::write(&mut bytes, &DATE, date, titled));
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(Encoded { bytes, framing, keep_alive, tunnel })
}

/// An informational response.
pub(crate) fn informational(status: StatusCode, headers: &HeaderMap, title_case: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    bytes.extend_from_slice(b"HTTP/1.1 ");
    bytes.extend_from_slice(status.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(reason(status));
    bytes.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            fields::write(&mut bytes, name, value.as_bytes(), title_case);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn framing(response: &Response<Body>, asked: Asked, tunnel: bool) -> Result<Framing, &'static str> {
    let status = response.status();
    if tunnel || asked.head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Framing::Bodiless);
    }
    if response.body().is_end() {
        return Ok(Framing::Length(0));
    }
    let mut announced = None;
    for value in response.headers().get_all(CONTENT_LENGTH) {
        let length = digits(value.as_bytes()).ok_or("its length is no number")?;
        if announced.is_some_and(|before| before != length) {
            return Err("it has two lengths");
        }
        announced = Some(length);
    }
    // Trailers follow chunks only.
    let chunked =
        response.headers().contains_key(TRANSFER_ENCODING) || response.headers().contains_key(TRAILER);
    match announced.or_else(|| response.body().exact_length()) {
        Some(length) if asked.http10 || !chunked => Ok(Framing::Length(length)),
        _ if asked.http10 => Ok(Framing::Close),
        _ => Ok(Framing::Chunked),
    }
}

/// Makes `Connection` say what will be; gives whether the connection stays.
fn say_connection(headers: &mut HeaderMap, keep_alive: bool, closes: bool, asked: Asked) -> bool {
    if asked.http10 {
        // There it has to be said that a connection stays.
        let said = headers.get_all(CONNECTION).iter().any(|value| has_token(value, "keep-alive"));
        if keep_alive && !said {
            headers.append(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
    } else if !keep_alive && !closes {
        headers.append(CONNECTION, HeaderValue::from_static("close"));
    }
    keep_alive
}

fn status_line(bytes: &mut Vec<u8>, response: &Response<Body>) {
    bytes.extend_from_slice(response.status().as_str().as_bytes());
    bytes.push(b' ');
    match response.extensions().get::<hyper::ext::ReasonPhrase>() {
        Some(own) => bytes.extend_from_slice(own.as_bytes()),
        None => bytes.extend_from_slice(reason(response.status())),
    }
    bytes.extend_from_slice(b"\r\n");
}

fn reason(status: StatusCode) -> &'static [u8] {
    status.canonical_reason().unwrap_or("<none>").as_bytes()
}

fn decimal(number: u64) -> HeaderValue {
    HeaderValue::from(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked =
        Asked { http10: false, head: false, connect: false, keep_alive: true, title_case: false };

    fn encoded(response: &mut Response<Body>, asked: Asked) -> (Encoded, String) {
        let encoded = head(response, asked).unwrap();
        let text = String::from_utf8(encoded.bytes.clone()).unwrap();
        (encoded, text)
    }

    fn response(status: u16, fields: &[(&'static str, &'static str)], body: Body) -> Response<Body> {
        let mut response = Response::builder().status(status);
        for (name, value) in [("date", "now")].iter().chain(fields) {
            response = response.header(*name, *value);
        }
        response.body(body).unwrap()
    }

    fn streamed() -> Body {
        Body::channel(1).1
    }

    #[test]
    fn lengths_chunks_and_no_bodies() {
        let (full, text) = encoded(&mut response(200, &[], Body::full("abc")), ASKED);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 3\r\n\r\n");
        assert!(full.keep_alive && full.framing == Framing::Length(3));

        let (chunked, text) = encoded(&mut response(201, &[("trailer", "x")], streamed()), ASKED);
        assert!(text.ends_with("trailer: x\r\ntransfer-encoding: chunked\r\n\r\n"), "{text}");
        assert_eq!(chunked.framing, Framing::Chunked);
        let (_, text) = encoded(&mut response(200, &[("content-length", "9")], streamed()), ASKED);
        assert!(text.ends_with("content-length: 9\r\n\r\n"), "{text}");
        let trailing = &[("content-length", "3"), ("trailer", "x")];
        assert_eq!(
            encoded(&mut response(200, trailing, Body::full("abc")), ASKED).0.framing,
            Framing::Chunked
        );

        let of_head = Asked { head: true, ..ASKED };
        let (none, text) = encoded(&mut response(200, &[("content-length", "9")], Body::empty()), of_head);
        assert!(text.ends_with("content-length: 9\r\n\r\n") && none.framing == Framing::Bodiless);
        let (_, text) = encoded(&mut response(204, &[("content-length", "9")], Body::empty()), ASKED);
        assert_eq!(text, "HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n");
        let (_, text) = encoded(&mut response(404, &[("content-length", "9")], Body::empty()), ASKED);
        assert!(
            text.ends_with("content-length: 0\r\n\r\n"),
            "a body that is not there has no length: {text}"
        );
    }

    #[test]
    fn a_response_cannot_have_two_lengths() {
        let twice = &[("content-length", "3"), ("content-length", "4")];
        assert!(head(&mut response(200, twice, Body::full("abc")), ASKED).is_err());
        assert!(head(&mut response(200, &[("content-length", "3,3")], Body::full("abc")), ASKED).is_err());
        assert!(head(&mut response(103, &[], Body::empty()), ASKED).is_err());
    }

    #[test]
    fn connections() {
        let closing = Asked { keep_alive: false, ..ASKED };
        let (_, text) = encoded(&mut response(200, &[], Body::empty()), closing);
        assert!(text.contains("connection: close\r\n"));
        let (closes, text) = encoded(&mut response(200, &[("connection", "close")], Body::empty()), ASKED);
        assert!(!closes.keep_alive && text.matches("connection").count() == 1);

        let old = Asked { http10: true, ..ASKED };
        let (stays, text) = encoded(&mut response(200, &[], Body::full("a")), old);
        assert!(stays.keep_alive && text.starts_with("HTTP/1.0 200 OK\r\n"));
        assert!(text.contains("connection: keep-alive\r\n"));
        let (ends, text) = encoded(&mut response(200, &[("trailer", "x")], streamed()), old);
        assert!(!ends.keep_alive && ends.framing == Framing::Close && !text.contains("trailer"), "{text}");
    }

    #[test]
    fn tunnels_have_no_framing() {
        let switch = &[("connection", "Upgrade"), ("upgrade", "x"), ("content-length", "0")];
        let (tunnel, text) = encoded(&mut response(101, switch, Body::empty()), ASKED);
        assert!(tunnel.tunnel && !text.contains("length"), "{text}");
        let connect = Asked { connect: true, ..ASKED };
        assert!(encoded(&mut response(200, &[], Body::empty()), connect).0.tunnel);
        assert!(!encoded(&mut response(502, &[], Body::empty()), connect).0.tunnel);
    }

    #[test]
    fn names_of_informational_responses() {
        let mut hints = HeaderMap::new();
        hints.append("link", HeaderValue::from_static("</a>"));
        hints.append("content-length", HeaderValue::from_static("9"));
        let interim = informational(StatusCode::EARLY_HINTS, &hints, false);
        assert_eq!(interim, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    }
}
