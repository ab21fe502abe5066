//! `grpc.health.v1.Health/Check` in plain HTTP/2. Its two messages are small enough to be written by hand.
//!
//! # Source
//! The gRPC project's "GRPC Health Checking Protocol" and "gRPC over HTTP2".

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request};
use zipline_http::{Body, Client, ClientConfig, HostPort, Target};
use zipline_knative::contract::OWN_PROBE_AGENT;

use super::attempt::Means;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.status` of a server that serves.
const SERVING: u64 = 1;
/// Longest answer; a health answer has a few bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// Whether the service serves; else why not.
pub(super) async fn check(means: &Means, port: u16, service: &str) -> Result<(), String> {
    let address = HostPort::new(&Ipv4Addr::LOCALHOST.to_string(), port);
    let mut request = Request::new(Body::full(frame(service)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(PATH);
    let host = HeaderValue::try_from(address.to_string()).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static(OWN_PROBE_AGENT));
    let client = Client::new(ClientConfig::default(), means.tasks.clone());
    let response = client.send(&Target::http2(address), request).await.map_err(|error| error.to_string())?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("status {}", response.status()));
    }
    let mut status = grpc_status(response.headers());
    let mut body = response.into_body();
    let mut message = Vec::new();
    while let Some(part) = body.data().await {
        match part.map_err(|error| error.to_string())?.into_data() {
            Ok(data) if message.len() + data.len() <= ANSWER_MAX => message.extend_from_slice(&data),
            Ok(_) => return Err(format!("the answer is longer than {ANSWER_MAX} bytes")),
            Err(end) => {
                status = end.into_trailers().ok().as_ref().and_then(grpc_status).or(status);
            }
        }
    }
    match (status, serving(&message)) {
        (Some(0), Some(SERVING)) => Ok(()),
        (Some(0), Some(other)) => Err(format!("the service's health is {other}, not {SERVING} (SERVING)")),
        (Some(0), None) => Err("the answer is no HealthCheckResponse".to_owned()),
        (Some(code), _) => Err(format!("gRPC status {code}")),
        (None, _) => Err("the answer has no gRPC status".to_owned()),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `HealthCheckRequest{service}` with gRPC's length in front.
fn frame(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut rest = service.len();
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                message.push(low & 0x7f);
                break;
            }
            message.push(low | 0x80);
        }
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

/// The status in a framed `HealthCheckResponse`; 0 is what proto3 leaves out.
fn serving(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || message.len() != length {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while let Some((&tag, after)) = rest.split_first() {
        let (value, after) = varint(after)?;
        match tag {
            0x08 => (status, rest) = (value, after),
            // Fields of later versions: numbers, and bytes with a length.
            tag if tag & 7 == 0 => rest = after,
            tag if tag & 7 == 2 => rest = after.get(usize::try_from(value).ok()?..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(at).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_protobuf_writes_them() {
        assert_eq!(&frame("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&frame("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "s".repeat(200);
        assert_eq!(frame(&long)[5..8], [0x0a, 0xc8, 0x01]);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving(&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 2]), Some(2));
        for broken in [&[0, 0, 0, 0, 9, 8, 1][..], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 2, 8, 0x80], &[]] {
            assert_eq!(serving(broken), None, "{broken:?}");
        }
    }
}
