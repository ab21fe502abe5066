//! The head of a request.

use crate::body::Body;
use crate::client::SendError;
use crate::http1::fields::{self, FIELD_BYTES, digits};
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{Method, Request};

/// What a head takes besides its fields and its target, in bytes.
const HEAD_BYTES: usize = 64;

/// How the end of a request's body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Encodes the head of `request`, which has the form of [`super::super::request::for_http1`].
///
/// # Errors
/// The request contradicts itself about its length.
pub(super) fn head(request: &Request<Body>, title_case: bool) -> Result<(Vec<u8>, Framing), SendError> {
    let framing = framing(request)?;
    let target = request.uri().path_and_query().map_or_else(
        || request.uri().authority().map_or("/", |authority| authority.as_str()),
        |path| path.as_str(),
    );
    let headers = request.headers();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + target.len() + headers.len() * FIELD_BYTES);
    bytes.extend_from_slice(request.method().as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(target.as_bytes());
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        let dropped = name == TRANSFER_ENCODING
            || name == CONTENT_LENGTH
            || (name == TRAILER && framing != Framing::Chunked);
        if !dropped {
            fields::write(&mut bytes, name, value.as_bytes(), title_case);
        }
    }
    // Where a body is usual it is said that there is none.
    let says_none = headers.contains_key(CONTENT_LENGTH)
        || matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    match framing {
        Framing::Length(0) if !says_none => {}
        Framing::Length(length) => {
            let length = length.to_string();
            fields::write(&mut bytes, &CONTENT_LENGTH, length.as_bytes(), title_case);
        }
        Framing::Chunked => fields::write(&mut bytes, &TRANSFER_ENCODING, b"chunked", title_case),
    }
    bytes.extend_from_slice(b"\r\n");
    Ok((bytes, framing))
}

fn framing(request: &Request<Body>) -> Result<Framing, SendError> {
    if request.body().is_end() {
        return Ok(Framing::Length(0));
    }
    let mut announced = None;
    for value in request.headers().get_all(CONTENT_LENGTH) {
        let length = digits(value.as_bytes()).ok_or(SendError::Invalid("its Content-Length is no number"))?;
        if announced.is_some_and(|before| before != length) {
            return Err(SendError::Invalid("it has two lengths"));
        }
        announced = Some(length);
    }
    // Trailers follow chunks only.
    let chunked = [TRANSFER_ENCODING, TRAILER].iter().any(|name| request.headers().contains_key(name));
    Ok(match announced.or_else(|| request.body().exact_length()) {
        Some(length) if !chunked => Framing::Length(length),
        _ => Framing::Chunked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(request: http::request::Builder, body: Body) -> (String, Framing) {
        let (bytes, framing) = head(&request.body(body).unwrap(), false).unwrap();
        (String::from_utf8(bytes).unwrap(), framing)
    }

    fn streamed() -> Body {
        Body::channel(1).1
    }

    #[test]
    fn lengths_and_chunks() {
        let (text, framing) = encoded(Request::get("/a?b").header("host", "t"), Body::empty());
        assert_eq!((text.as_str(), framing), ("GET /a?b HTTP/1.1\r\nhost: t\r\n\r\n", Framing::Length(0)));
        for (method, says) in
            [("POST", true), ("PUT", true), ("PATCH", true), ("DELETE", false), ("HEAD", false)]
        {
            let (text, _) = encoded(Request::builder().method(method).uri("/"), Body::empty());
            assert_eq!(text.contains("content-length: 0\r\n"), says, "{text}");
        }
        let (text, framing) = encoded(Request::delete("/").header("content-length", "7"), Body::empty());
        assert!(text.contains("content-length: 0\r\n") && framing == Framing::Length(0), "{text}");
        let (text, framing) = encoded(Request::get("/"), Body::full("abc"));
        assert!(text.contains("content-length: 3\r\n") && framing == Framing::Length(3), "{text}");
        let (text, framing) = encoded(Request::post("/").header("content-length", "9"), streamed());
        assert!(text.contains("content-length: 9\r\n") && framing == Framing::Length(9), "{text}");
        let (text, framing) = encoded(Request::post("/"), streamed());
        assert!(
            text.ends_with("transfer-encoding: chunked\r\n\r\n") && framing == Framing::Chunked,
            "{text}"
        );
        let trailing = Request::post("/").header("content-length", "3").header("trailer", "x");
        let (text, framing) = encoded(trailing, Body::full("abc"));
        assert!(!text.contains("content-length") && framing == Framing::Chunked, "{text}");
    }

    #[test]
    fn targets() {
        let line = |method: Method, uri: &str| {
            let (text, _) = encoded(Request::builder().method(method).uri(uri), Body::empty());
            text.lines().next().unwrap().to_owned()
        };
        assert_eq!(line(Method::CONNECT, "a.example:80"), "CONNECT a.example:80 HTTP/1.1");
        assert_eq!(line(Method::OPTIONS, "*"), "OPTIONS * HTTP/1.1");
        assert_eq!(line(Method::GET, "/%20?"), "GET /%20? HTTP/1.1");
    }

    #[test]
    fn a_request_cannot_have_two_lengths() {
        let twice = Request::post("/").header("content-length", "3").header("content-length", "4");
        assert!(head(&twice.body(Body::full("abc")).unwrap(), false).is_err());
        let odd = Request::post("/").header("content-length", "3,3");
        assert!(head(&odd.body(Body::full("abc")).unwrap(), false).is_err());
    }
}
