//! Error answers of Zipline itself.

use crate::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use zipline_protocol::{ErrorCode, PROBLEM_MEDIA_TYPE, Problem, header};

/// An error answer: problem JSON with `Zipline-Error`, or for gRPC requests a trailers-only response.
///
/// `request` are the headers of the request that is answered; gRPC is known by its content type. For gRPC the HTTP
/// status is 200 and `status` is not used: the code's own gRPC status tells what happened.
///
/// # Panics
/// Never for statuses of [`ErrorCode`]; a `status` outside 100-999 becomes 500.
pub fn problem_response(
    request: &HeaderMap,
    code: ErrorCode,
    status: u16,
    detail: impl Into<String>,
) -> Response<Body> {
    let detail = detail.into();
    let mut response = if is_grpc(request) {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(code.grpc_status())));
        if let Ok(message) = HeaderValue::from_str(&percent_encode(&format!("{code}: {detail}"))) {
            headers.insert("grpc-message", message);
        }
        response
    } else {
        let mut response = Response::new(Body::full(Problem::new(code, status, detail).to_json()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        response
    };
    response.headers_mut().insert(header::ERROR, HeaderValue::from_static(code.as_str()));
    response
}

/// A plain text answer in the form Knative's own local replies have.
pub fn text_response(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// `grpc-message` is percent-encoded: printable ASCII but `%` stands for itself.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn problem_and_grpc_forms() {
        let response = problem_response(&HeaderMap::new(), ErrorCode::BufferFull, 507, "waited 5 s");
        assert_eq!(response.status(), 507);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()["zipline-error"], "buffer-full");
        let body = response.into_body().collect_up_to(1000).await.unwrap();
        assert!(body.starts_with(b"{\"type\":\"urn:zipline:error:buffer-full\""));

        let mut request = HeaderMap::new();
        request.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        let response = problem_response(&request, ErrorCode::PayloadLost, 502, "gone\n50% é");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "10");
        assert_eq!(response.headers()["grpc-message"], "payload-lost: gone%0A50%25 %C3%A9");
        assert!(response.body().is_end());
    }
}
