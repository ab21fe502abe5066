//! From hyper's HTTP/2 requests to a [`Handler`]'s and back.

use super::ServeLimits;
use super::check::{Refused, check};
use crate::body::Body;
use crate::handler::{Handler, PeerAddr};
use crate::hop;
use crate::problem::text_response;
use crate::watch::Watch;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub(super) struct RequestService<H> {
    handler: H,
    peer: Option<PeerAddr>,
    max_headers: usize,
    max_header_bytes: usize,
    watch: Arc<Watch>,
}

impl<H: Handler> RequestService<H> {
    pub(super) fn new(handler: H, peer: Option<PeerAddr>, limits: &ServeLimits, watch: Arc<Watch>) -> Self {
        let ServeLimits { max_headers, max_header_bytes, .. } = *limits;
        Self { handler, peer, max_headers, max_header_bytes, watch }
    }
}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for RequestService<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = self.watch.request_started();
        let handler = self.handler.clone();
        let peer = self.peer;
        // HTTP/2 has no limit on their number, and ends the connection over their size.
        let too_large = request.headers().len() > self.max_headers
            || hop::header_bytes(request.headers()) > self.max_header_bytes;
        Box::pin(async move {
            let mut request = request.map(|incoming| Body::received(incoming, true));
            let head = request.method() == Method::HEAD;
            let mut response = if too_large {
                text_response(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header fields too large\n")
            } else if let Err(refused) = check(&mut request) {
                refusal(refused, true)
            } else {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                handler.handle(request).await
            };
            drop_body(&mut response, head);
            Ok(response.map(|body| body.in_flight(in_flight)))
        })
    }
}

/// Ends the connection as well where the end of the request is part of what cannot be trusted.
pub(super) fn refusal(refused: Refused, http2: bool) -> Response<Body> {
    let mut response = text_response(refused.status, format!("{}: {}", refused.status, refused.why));
    if !http2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Takes the body from a response that has none; one to `HEAD` tells how long it would be.
pub(super) fn drop_body(response: &mut Response<Body>, head: bool) {
    if !head && !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return;
    }
    let body = std::mem::take(response.body_mut());
    if head && let Some(length) = body.exact_length().filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}
