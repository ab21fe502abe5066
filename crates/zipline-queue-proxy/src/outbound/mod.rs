//! The function invokes another: decides between inline and deferred, and hands the response back (protocol, section 5).
//!
//! One invocation is one `Call`. It sends the request once, deferred or inline; a deferred one that was refused before any
//! function ran is sent once more, inline. Everything that belongs to the invocation (the held payload, the task that
//! fills it) lives in the response's body and ends with it.

mod decision;
mod response;
mod verdict;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, request};
use zipline_http::{Body, HostPort, Protocol, Target};
use zipline_protocol::limits::{PROGRESS_TIMEOUT, REFERENCE_MAX};
use zipline_protocol::{
    ErrorCode, FunctionName, InlineReason, Mode, Nonce, REFERENCE_MEDIA_TYPE, ReferenceKind, Way,
};
use zipline_protocol::{header, user_agent};

use crate::config::Destinations;
use crate::edges::{Direction, Zones};
use crate::failure::Failure;
use crate::hold::{Held, Message, hold};
use crate::state::{Shared, Transfer};
use crate::upgrade::{self, UpgradeError};
use crate::watched::watch;
use crate::{headers, local_body};
use verdict::Verdict;

/// Sends `request` to `function` and gives its response.
///
/// The request's URI is its path and query; its headers are the function's own, without hop-by-hop headers and without what
/// authorised it at the local API. Every failure is a response too: a problem document, or a gRPC status.
///
/// # Cancel safety
/// Dropping the future, or the response's body, ends the invocation and frees what it holds.
pub async fn invoke(shared: &Arc<Shared>, function: FunctionName, request: Request<Body>) -> Response<Body> {
    let form = headers::form(request.headers());
    match Box::pin(run(shared, function, request)).await {
        Ok(response) => response,
        Err(failure) => {
            shared.metrics.error(failure.code);
            failure.into_response(&form)
        }
    }
}

async fn run(
    shared: &Arc<Shared>,
    function: FunctionName,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let (mut parts, body) = request.into_parts();
    shared.metrics.stripped_headers(headers::strip(&mut parts.headers));
    if headers::is_deferred(&parts.headers) {
        return Err(Failure::local(
            ErrorCode::RequestInvalid,
            format!(
                "a request of type {REFERENCE_MEDIA_TYPE} would pass for a deferred one; \
                 to hand a reference on, put it inside a message of another type"
            ),
        ));
    }
    let addr = match shared.config.destinations {
        Destinations::Gateway(gateway) => gateway.into(),
        Destinations::HostNames => HostPort::new(&function.host(), 80),
        Destinations::None => {
            return Err(Failure::local(
                ErrorCode::UpstreamFailed,
                "no gateway is configured: set ZIPLINE_GATEWAY to where functions are reached",
            ));
        }
    };
    let target = Target { addr, protocol: Protocol::like(parts.version) };
    address(&mut parts, &function);
    let request = Request::from_parts(parts, body);
    if zipline_http::hop::is_upgrade(&request) {
        let upgraded = upgrade::forward(shared, target, request, (), None).await;
        return upgraded.map_err(|error| match error {
            UpgradeError::Send(error) => Failure::upstream(&format!("invoking {function}"), &error),
            other => Failure::caller(other.code(), other.to_string()),
        });
    }
    let (mut parts, body) = request.into_parts();
    let call = Call { shared: Arc::clone(shared), function, target, accept: None };
    call.with_accept(&mut parts.headers).run(parts, body).await
}

/// Addresses the request to the function by name.
fn address(parts: &mut request::Parts, function: &FunctionName) {
    let host = function.host();
    let path = parts.uri.path_and_query().cloned();
    let uri = Uri::builder().scheme("http").authority(host.as_str());
    // The authority is made of two checked DNS labels and the path was parsed before, so this cannot fail; the unchanged
    // URI would be sent to the same place under the host header.
    if let Ok(uri) = uri.path_and_query(path.map_or("/".to_owned(), |path| path.to_string())).build() {
        parts.uri = uri;
    }
    if let Ok(host) = HeaderValue::try_from(host) {
        parts.headers.insert(HOST, host);
    }
}

/// One invocation.
#[derive(Debug)]
struct Call {
    shared: Arc<Shared>,
    function: FunctionName,
    target: Target,
    /// What a deferred response must be bound to; `None`: none was asked for.
    accept: Option<Nonce>,
}

impl Call {
    /// Asks for a deferred response if the destination is known to understand that.
    fn with_accept(mut self, headers: &mut HeaderMap) -> Self {
        if self.shared.mode() != Mode::Off && self.shared.capabilities.is_known(&self.function) {
            let nonce = zipline_seal::new_nonce();
            let sealed = self.shared.keyring.seal_accept(&nonce).ok();
            if let Some(value) = sealed.and_then(|sealed| HeaderValue::try_from(sealed).ok()) {
                headers.insert(header::ACCEPT, value);
                self.accept = Some(nonce);
            }
        }
        self
    }

    async fn run(self, parts: request::Parts, body: Body) -> Result<Response<Body>, Failure> {
        if body.is_end() {
            return self.inline(parts, body, None, None).await;
        }
        let (reason, body) = match decision::decide(&self, &parts, body).await {
            Ok(body) => {
                let message = Message {
                    kind: ReferenceKind::Request,
                    body,
                    content_type: parts.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_vec()),
                    binding: None,
                    peer: Some(self.function.clone()),
                };
                match hold(&self.shared, message).await {
                    Ok(held) => return self.deferred(parts, held).await,
                    Err(inline) => inline,
                }
            }
            Err(inline) => inline,
        };
        self.inline(parts, body, Some(reason), None).await
    }

    /// Sends the payload in the message; `held` is what its body is read from, if it was held before.
    async fn inline(
        self,
        mut parts: request::Parts,
        body: Body,
        reason: Option<InlineReason>,
        held: Option<Held>,
    ) -> Result<Response<Body>, Failure> {
        parts.headers.remove(EXPECT);
        let (shared, peer) = (Arc::clone(&self.shared), self.function.clone());
        let body = watch(body, (), move |ended| {
            if ended.whole && ended.bytes > 0 {
                shared.record(Transfer {
                    direction: Direction::Sent,
                    kind: ReferenceKind::Request,
                    peer: Some(peer),
                    way: Way::Inline,
                    reason,
                    zones: Zones::Unknown,
                    bytes: ended.bytes,
                    elapsed: ended.elapsed,
                });
            }
        });
        let response = self.send(parts, body).await?;
        self.learn(&response);
        response::receive(self, response, held).await
    }

    async fn deferred(self, parts: request::Parts, held: Held) -> Result<Response<Body>, Failure> {
        let wire = defer(&parts, &held);
        let response = tokio::select! {
            response = self.send(wire, Body::full(held.reference.as_str().to_owned())) => response?,
            () = held.abandoned() => return Err(Failure::caller(ErrorCode::UpstreamFailed, self.silent())),
        };
        let reason = match verdict::judge(&self.shared, held.id(), response).await {
            Verdict::Opened(response) => {
                held.proven();
                self.learn(&response);
                return response::receive(self, response, Some(held)).await;
            }
            Verdict::Platform(response) => {
                self.shared.capabilities.forget(&self.function);
                return response::receive(self, response, None).await;
            }
            Verdict::Unproven { status } => {
                self.shared.capabilities.forget(&self.function);
                return Err(Failure::caller(
                    ErrorCode::ReceiverUnproven,
                    format!(
                        "{} answered a deferred request with {status} without proof that a queue-proxy opened it; \
                         the function may have run; the next payload goes inline",
                        self.function
                    ),
                ));
            }
            Verdict::Refused => {
                self.shared.capabilities.forget(&self.function);
                InlineReason::UnknownReceiver
            }
            Verdict::Unreachable => {
                self.shared.capabilities.unreachable(&self.function);
                InlineReason::Unreachable
            }
        };
        tracing::warn!(function = %self.function, reason = reason.as_str(), "deferred request refused, sent again inline");
        let Some(reader) = held.read_from_start() else {
            return Err(Failure::caller(
                ErrorCode::PayloadLost,
                format!(
                    "{} refused the deferred request, and the payload's first bytes have left the window; \
                     invoke it again, which goes inline",
                    self.function
                ),
            ));
        };
        self.inline(parts, local_body::from_reader(reader), Some(reason), Some(held)).await
    }

    async fn send(&self, parts: request::Parts, body: Body) -> Result<Response<Body>, Failure> {
        let sent = self.shared.client.send(&self.target, Request::from_parts(parts, body)).await;
        sent.map_err(|error| Failure::upstream(&format!("invoking {}", self.function), &error))
    }

    fn silent(&self) -> String {
        format!(
            "the receiver of {} fell silent for {} s while it retrieved the payload; the function may have run",
            self.function,
            PROGRESS_TIMEOUT.as_secs()
        )
    }

    fn learn(&self, response: &Response<Body>) {
        if headers::single(response.headers(), header::VERSION) == Some(header::VERSION_VALUE) {
            self.shared.capabilities.learned(&self.function);
        }
    }
}

/// The deferred form of a request (protocol, section 5.1).
fn defer(parts: &request::Parts, held: &Held) -> request::Parts {
    let mut wire = parts.clone();
    let length = held.reference.as_str().len();
    debug_assert!(length <= REFERENCE_MAX, "seals are bounded by their record");
    wire.headers.remove(EXPECT);
    wire.headers.insert(CONTENT_TYPE, HeaderValue::from_static(REFERENCE_MEDIA_TYPE));
    wire.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let agent = user_agent::defer(parts.headers.get(USER_AGENT).map(HeaderValue::as_bytes));
    if let Ok(agent) = HeaderValue::from_bytes(&agent) {
        wire.headers.insert(USER_AGENT, agent);
    }
    wire
}
