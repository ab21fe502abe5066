//! The upgrade from HTTP/1.1 to h2c, which old clients use and HTTP/2 itself has given up.
//!
//! The request that asks for it becomes stream 1 of the HTTP/2 connection: the server reads, after the client's settings,
//! frames that stand for it. Its body is read first, into memory, as Go's servers do; without a bound there, here up to
//! [`BODY_MAX`]. A request whose body may be longer is answered as what it is: a server need not follow an upgrade.
//!
//! # Source
//! RFC 7540, 3.2; `golang.org/x/net/http2/h2c`.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use zipline_http::{Body, PeerAddr, Rewind, hop, serve_connection, text_response, upgrade};

use super::chain::Chain;

/// Largest body of a request that asks for the upgrade, in bytes: what stream 1 takes before its first window update.
const BODY_MAX: usize = 65_535;
const SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// Frames are no longer than every peer must take.
const FRAME_MAX: usize = 16 * 1024;
/// The client's first frame.
const SETTINGS_FRAME: u8 = 4;

/// Whether a request asks for h2c in the way of RFC 7540.
pub(super) fn is_upgrade(request: &Request<Body>) -> bool {
    request.version() == Version::HTTP_11
        && request.headers().contains_key(UPGRADE)
        && hop::has_token(request.headers(), &UPGRADE, "h2c")
        && hop::has_token(request.headers(), &CONNECTION, "http2-settings")
        && has_settings(request.headers())
        && fits(request.headers())
}

/// Whether the body is known to be short enough to stand in the first window.
fn fits(headers: &HeaderMap) -> bool {
    !headers.contains_key(TRANSFER_ENCODING)
        && headers.get(CONTENT_LENGTH).is_none_or(|length| {
            length
                .to_str()
                .ok()
                .and_then(|text| text.parse::<usize>().ok())
                .is_some_and(|length| length <= BODY_MAX)
        })
}

/// Whether there are settings, once, that can be read; a request without them is an ordinary one.
fn has_settings(headers: &HeaderMap) -> bool {
    /// An identifier and a value.
    const SETTING: usize = 6;
    let mut values = headers.get_all(&SETTINGS).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    URL_SAFE_NO_PAD.decode(value).is_ok_and(|settings| settings.len() % SETTING == 0)
}

/// Switches the connection over; the request is answered on it.
pub(super) async fn upgrade(chain: &Chain, mut request: Request<Body>) -> Response<Body> {
    let connection = upgrade::on(&mut request);
    let peer = request.extensions().get::<PeerAddr>().copied();
    let (parts, body) = request.into_parts();
    let body = match body.collect_up_to(BODY_MAX).await {
        Ok(body) => body,
        Err(error) => {
            tracing::debug!(%error, "an upgrade to h2c brought a body that cannot be taken");
            let text = format!("an upgrade to h2c takes a body of up to {BODY_MAX} bytes\n");
            return text_response(StatusCode::PAYLOAD_TOO_LARGE, text);
        }
    };
    let first = first_stream(&parts, &body);
    let (chain, tasks) = (chain.clone(), chain.core.requests.clone());
    let (token, limits) = (tasks.token(), chain.core.limits.clone());
    drop(tasks.spawn("upgraded h2c connection", async move {
        let joined = async {
            let mut stream = upgrade::into_stream(connection).await?;
            let head = client_head(&mut stream).await?;
            let before = [PREFACE, &head, &first].concat();
            Ok::<_, io::Error>(Rewind::new(before.into(), stream))
        };
        match joined.await {
            Ok(joined) => serve_connection(joined, peer, chain, &limits, token).await,
            Err(error) => tracing::debug!(%error, "an upgrade to h2c came to nothing"),
        }
    }));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    hop::set_upgrade(response.headers_mut(), HeaderValue::from_static("h2c"));
    response
}

/// Reads the client's preface and its settings, and gives the settings' frame.
async fn client_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = [0; PREFACE.len() + FRAME_HEAD];
    stream.read_exact(&mut head).await?;
    let (preface, frame) = head.split_at(PREFACE.len());
    let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
    if preface != PREFACE || frame[3] != SETTINGS_FRAME || length > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the client did not begin with its settings"));
    }
    let mut settings = frame.to_vec();
    settings.resize(FRAME_HEAD + length, 0);
    stream.read_exact(&mut settings[FRAME_HEAD..]).await?;
    Ok(settings)
}

/// The frames of stream 1.
fn first_stream(parts: &http::request::Parts, body: &Bytes) -> Vec<u8> {
    let mut block = Vec::new();
    // The server has put the host of an absolute target there.
    let host = parts.headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    field(&mut block, b":method", parts.method.as_str().as_bytes());
    field(&mut block, b":scheme", b"http");
    field(&mut block, b":authority", host);
    field(&mut block, b":path", path.as_bytes());
    let mut headers = parts.headers.clone();
    hop::strip_request(&mut headers);
    headers.remove(HOST);
    headers.remove(&SETTINGS);
    for (name, value) in &headers {
        field(&mut block, name.as_str().as_bytes(), value.as_bytes());
    }
    let mut frames = Vec::new();
    let blocks = block.chunks(FRAME_MAX).count();
    for (at, part) in block.chunks(FRAME_MAX).enumerate() {
        let kind = if at == 0 { 1 } else { 9 };
        let ends_headers = if at + 1 == blocks { 4 } else { 0 };
        let ends_stream = u8::from(at == 0 && body.is_empty());
        frame(&mut frames, kind, ends_headers | ends_stream, part);
    }
    let parts = body.chunks(FRAME_MAX).count();
    for (at, part) in body.chunks(FRAME_MAX).enumerate() {
        frame(&mut frames, 0, u8::from(at + 1 == parts), part);
    }
    frames
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("it was cut to less than 2^24 bytes");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A literal header field, neither indexed nor compressed (RFC 7541, 6.2.2).
fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    for text in [name, value] {
        integer(out, text.len());
        out.extend_from_slice(text);
    }
}

/// A length in front of a text that is not compressed: seven bits, then seven at a time (RFC 7541, 5.1).
fn integer(out: &mut Vec<u8>, length: usize) {
    const FIRST_MAX: u8 = 0x7f;
    let mut rest = match u8::try_from(length) {
        Ok(short) if short < FIRST_MAX => return out.push(short),
        _ => length - usize::from(FIRST_MAX),
    };
    out.push(FIRST_MAX);
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_complete_form_is_an_upgrade() {
        let full =
            [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")];
        let build = |headers: &[(&'static str, &'static str)]| {
            let mut request = Request::new(Body::empty());
            for (name, value) in headers {
                request.headers_mut().insert(*name, HeaderValue::from_static(value));
            }
            request
        };
        assert!(is_upgrade(&build(&full)));
        assert!(!is_upgrade(&build(&full[..2])));
        for (name, value, expected) in [
            ("content-length", "65535", true),
            ("content-length", "65536", false),
            ("transfer-encoding", "chunked", false),
        ] {
            let [one, two, three] = full;
            assert_eq!(is_upgrade(&build(&[one, two, three, (name, value)])), expected, "{name}: {value}");
        }
        for settings in ["!!!", "AAMAAAB", "AAMAAABkAA"] {
            assert!(!is_upgrade(&build(&[full[0], full[1], ("http2-settings", settings)])), "{settings}");
        }
        assert!(!is_upgrade(&build(&[("connection", "Upgrade"), ("upgrade", "websocket")])));
    }

    #[test]
    fn long_texts_have_long_lengths() {
        let mut out = Vec::new();
        field(&mut out, b"n", &[b'v'; 300]);
        assert_eq!(out[..6], [0, 1, b'n', 0x7f, 0xad, 0x01]);
        assert_eq!(out.len(), 6 + 300);
    }
}
