//! What hyper lets through and nobody behind this server should have to read: requests whose meaning depends on who reads
//! them are refused, as Go's server refuses them, before a handler sees them.
//!
//! # Source
//! RFC 9112 sections 3.2, 6.1 and 6.3; RFC 9110 sections 6.5.1 and 10.1.1; RFC 9113 section 8.3.1. Go: `net/http` `server.go`
//! (`readRequest`, `expectsContinue`), `transfer.go` (`parseTransferEncoding`, `fixLength`, `fixTrailer`).

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderValue, TRAILER, TRANSFER_ENCODING};
use http::{Method, Request, StatusCode, Version};

/// Names that must not come after the body, where whoever has framed and routed the message cannot have known them.
const NO_TRAILERS: [http::HeaderName; 4] = [CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING];

/// Why a request is refused. It is answered with `Connection: close`, since its end cannot be trusted either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const fn bad(why: &'static str) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, why }
}

/// Checks the head of a request and makes it say one thing once: equal lengths become one, and the host of an absolute
/// target takes the place of `Host`.
pub(super) fn check<B>(request: &mut Request<B>) -> Result<(), Refused> {
    escapes(request.uri().path())?;
    if request.version() == Version::HTTP_2 {
        return same_host(request);
    }
    target_and_host(request)?;
    coding(request.headers())?;
    length(request.headers_mut())?;
    trailer(request.headers())?;
    expectation(request.headers())
}

/// Removes from a trailer section what it must not have.
pub(crate) fn check_trailers(trailers: &mut HeaderMap) {
    for name in &NO_TRAILERS {
        trailers.remove(name);
    }
}

/// A `%` that escapes nothing is read differently by every function's library.
fn escapes(path: &str) -> Result<(), Refused> {
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        rest = match &rest[at + 1..] {
            [high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            _ => return Err(bad("invalid URL escape")),
        };
    }
    Ok(())
}

fn same_host<B>(request: &Request<B>) -> Result<(), Refused> {
    let authority = request.uri().authority().map_or("", http::uri::Authority::as_str);
    if authority.contains('@') {
        return Err(bad("a user in :authority"));
    }
    let mut hosts = request.headers().get_all(HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => Ok(()),
        (Some(host), None) if host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => Ok(()),
        (Some(host), None) if authority.is_empty() => valid_host(host),
        _ => Err(bad("Host is not :authority")),
    }
}

fn target_and_host<B>(request: &mut Request<B>) -> Result<(), Refused> {
    let connect = *request.method() == Method::CONNECT;
    let mut hosts = request.headers().get_all(HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(bad("too many Host headers")),
        (Some(host), None) => valid_host(host)?,
        (None, _) if request.version() == Version::HTTP_11 && !connect => {
            return Err(bad("missing required Host header"));
        }
        (None, _) => {}
    }
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    if connect {
        return Ok(());
    }
    if request.uri().scheme().is_none() {
        return Err(bad("the target is a host, which only CONNECT may ask for"));
    }
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|_| bad("malformed host in the target"))?;
    request.headers_mut().insert(HOST, host);
    Ok(())
}

/// The characters that Go takes: those of RFC 3986 without the ones that end an authority.
fn valid_host(host: &HeaderValue) -> Result<(), Refused> {
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&()*+,-.:;='[]_~".contains(byte);
    if host.as_bytes().iter().all(valid) { Ok(()) } else { Err(bad("malformed Host header")) }
}

/// Chunked, once, and nothing else: what another coding has done to the body would be lost with the field.
fn coding(headers: &HeaderMap) -> Result<(), Refused> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refused { status: StatusCode::NOT_IMPLEMENTED, why: "unsupported transfer encoding" }),
    }
}

fn length(headers: &mut HeaderMap) -> Result<(), Refused> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    let Some(first) = lengths.next().cloned() else { return Ok(()) };
    if lengths.any(|other| other != first) {
        return Err(bad("lengths that differ"));
    }
    // Many functions count in signed numbers.
    let value = first.to_str().ok().and_then(|text| text.parse::<i64>().ok());
    if value.is_none_or(|value| value < 0) {
        return Err(bad("bad Content-Length"));
    }
    headers.insert(CONTENT_LENGTH, first);
    Ok(())
}

fn trailer(headers: &HeaderMap) -> Result<(), Refused> {
    let mut names =
        headers.get_all(TRAILER).into_iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let named = names.any(|name| {
        NO_TRAILERS.iter().any(|no| name.trim_ascii().eq_ignore_ascii_case(no.as_str().as_bytes()))
    });
    if named { Err(bad("bad trailer key")) } else { Ok(()) }
}

fn expectation(headers: &HeaderMap) -> Result<(), Refused> {
    let known =
        |value: &HeaderValue| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).into_iter().all(known) {
        return Ok(());
    }
    Err(Refused { status: StatusCode::EXPECTATION_FAILED, why: "unknown expectation" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http1(target: &str, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn refused(target: &str, fields: &[(&'static str, &'static str)]) -> Option<u16> {
        check(&mut http1(target, fields)).err().map(|refused| refused.status.as_u16())
    }

    #[test]
    fn one_host_of_the_right_form() {
        assert_eq!(refused("/", &[("host", "t")]), None);
        assert_eq!(refused("/", &[("host", "")]), None);
        assert_eq!(refused("/", &[]), Some(400));
        assert_eq!(refused("/", &[("host", "t"), ("host", "t")]), Some(400));
        for host in ["a b", "t/b", "u@t", "t?b", "t#b", "t\\b", "t\"b"] {
            assert_eq!(refused("/", &[("host", host)]), Some(400), "{host}");
        }
    }

    #[test]
    fn the_target_decides_about_the_host() {
        let mut request = http1("http://user@other/a", &[("host", "t")]);
        check(&mut request).unwrap();
        assert_eq!(request.headers()[HOST], "other");
        assert_eq!(refused("t:80", &[("host", "t")]), Some(400));
    }

    #[test]
    fn one_coding_one_length() {
        let framed = |name, values: &[&'static str]| {
            let mut fields = vec![("host", "t")];
            fields.extend(values.iter().map(|value| (name, *value)));
            refused("/", &fields)
        };
        assert_eq!(framed("transfer-encoding", &["Chunked"]), None);
        for codings in
            [&["gzip, chunked"][..], &["chunked, chunked"], &[",chunked"], &["identity", "chunked"]]
        {
            assert_eq!(framed("transfer-encoding", codings), Some(501), "{codings:?}");
        }
        assert_eq!(framed("content-length", &["5", "5"]), None);
        assert_eq!(framed("content-length", &["5", "05"]), Some(400));
        assert_eq!(framed("content-length", &["9223372036854775808"]), Some(400));
        assert_eq!(framed("trailer", &["x, Content-Length"]), Some(400));
        assert_eq!(framed("expect", &["100-Continue"]), None);
        assert_eq!(framed("expect", &["wait"]), Some(417));
    }

    #[test]
    fn escapes_are_two_digits() {
        assert_eq!(refused("/a%2fb?c=%zz", &[("host", "t")]), None);
        assert_eq!(refused("/a%zz", &[("host", "t")]), Some(400));
        assert_eq!(refused("/a%2", &[("host", "t")]), Some(400));
    }

    #[test]
    fn http2_says_its_host_once() {
        let over_http2 = |target: &str, fields: &[(&'static str, &'static str)]| {
            let mut request = http1(target, fields);
            *request.version_mut() = Version::HTTP_2;
            check(&mut request).is_err()
        };
        assert!(!over_http2("http://t/a", &[]));
        assert!(!over_http2("http://t/a", &[("host", "T")]));
        assert!(!over_http2("/a", &[("host", "t")]));
        assert!(over_http2("http://t/a", &[("host", "other")]));
        assert!(over_http2("http://t/a", &[("host", "t"), ("host", "other")]));
        assert!(over_http2("http://u@t/a", &[]));
    }
}
