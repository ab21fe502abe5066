//! What the small servers of this module answer with, in the form of Go's.

use http::{HeaderValue, Response, StatusCode, header};
use zipline_http::Body;
use zipline_knative::replies::{NOT_FOUND, TEXT_MEDIA_TYPE};

/// A text with `status`, with the headers of Go's error helper.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_MEDIA_TYPE));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The 404 of an unknown path.
pub(super) fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, NOT_FOUND)
}

/// The 405 of a path that only takes `GET`.
pub(super) fn method_not_allowed() -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}
