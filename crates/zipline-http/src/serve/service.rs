//! From hyper's requests to a [`Handler`]'s and back.

use super::ServeLimits;
use super::check::{Refused, check};
use crate::body::Body;
use crate::error::BodyError;
use crate::handler::{Handler, PeerAddr};
use crate::hop;
use crate::problem::text_response;
use crate::watch::{Unread, Watch};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TE, TRAILER, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(super) struct RequestService<H> {
    handler: H,
    peer: Option<PeerAddr>,
    max_headers: usize,
    max_header_bytes: usize,
    http2: bool,
    watch: Arc<Watch>,
}

impl<H: Handler> RequestService<H> {
    pub(super) fn new(
        handler: H,
        peer: Option<PeerAddr>,
        limits: &ServeLimits,
        http2: bool,
        watch: Arc<Watch>,
    ) -> Self {
        let ServeLimits { max_headers, max_header_bytes, .. } = *limits;
        Self { handler, peer, max_headers, max_header_bytes, http2, watch }
    }
}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for RequestService<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = self.watch.request_started();
        let watch = Arc::clone(&self.watch);
        let handler = self.handler.clone();
        let (http2, peer) = (self.http2, self.peer);
        // HTTP/1.1 refuses these while parsing. HTTP/2 has no limit on their number, and ends the connection over their size.
        let too_large = request.headers().len() > self.max_headers
            || (http2 && hop::header_bytes(request.headers()) > self.max_header_bytes);
        Box::pin(async move {
            let unread = Unread::new(Arc::clone(&in_flight));
            let mut request = request.map(|incoming| Body::received(incoming, http2, Some(unread)));
            let asked = Asked::of(&request);
            let mut response = if too_large {
                text_response(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header fields too large\n")
            } else if let Err(refused) = check(&mut request) {
                refusal(refused, http2)
            } else {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                handler.handle(request).await
            };
            if asked.becomes_tunnel(response.status()) {
                watch.upgraded();
            }
            asked.frame(&mut response, &watch);
            Ok(response.map(|body| body.in_flight(in_flight)))
        })
    }
}

/// Ends the connection as well where the end of the request is part of what cannot be trusted.
fn refusal(refused: Refused, http2: bool) -> Response<Body> {
    let mut response = text_response(refused.status, format!("{}: {}", refused.status, refused.why));
    if !http2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What of the request decides how its response is framed.
struct Asked {
    version: Version,
    connect: bool,
    head: bool,
    trailers: bool,
}

impl Asked {
    fn of(request: &Request<Body>) -> Self {
        Self {
            version: request.version(),
            connect: request.method() == Method::CONNECT,
            head: request.method() == Method::HEAD,
            trailers: hop::has_token(request.headers(), &TE, "trailers"),
        }
    }

    fn becomes_tunnel(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || (self.connect && status.is_success())
    }

    fn drop_body(&self, response: &mut Response<Body>) {
        let body = std::mem::take(response.body_mut());
        if self.head
            && let Some(length) = body.exact_length().filter(|length| *length > 0)
        {
            response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        }
    }

    fn frame(&self, response: &mut Response<Body>, watch: &Arc<Watch>) {
        if self.head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            // hyper's HTTP/2 server would send the body.
            self.drop_body(response);
        }
        let has_body = !response.body().is_end();
        match self.version {
            // hyper sends trailers on chunked bodies only, and a known length would make it a sized one.
            Version::HTTP_11 if has_body && self.trailers && response.headers().contains_key(TRAILER) => {
                response.headers_mut().remove(CONTENT_LENGTH);
                response.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            // There the end of the connection may be the end of the body, so an abort has to be a reset.
            Version::HTTP_10 if has_body => {
                let body = std::mem::take(response.body_mut());
                *response.body_mut() = Body::wrap(ResetOnError { body, watch: Arc::clone(watch) });
            }
            _ => {}
        }
    }
}

struct ResetOnError {
    body: Body,
    watch: Arc<Watch>,
}

impl http_body::Body for ResetOnError {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &frame {
            self.watch.reset();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
