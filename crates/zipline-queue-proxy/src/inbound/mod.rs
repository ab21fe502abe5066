//! Requests to the function.
//!
//! Life of one request: probe? -> reference opened? -> retrieval started -> readiness and breaker -> function -> response,
//! inline or deferred. The slot in the breaker, the retrieval and the deadline last until the response has ended. The function
//! runs at most once for a delivered request, and only after the first bytes of its payload are there.

mod deadline;
pub(crate) mod health;
mod request;
mod response;
mod witness;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;
use zipline_http::{Body, Handler, PeerAddr, Protocol, Target, problem_response};
use zipline_protocol::{ErrorCode, Mode, Nonce, PayloadId, ReferenceKind, Way, header};

use crate::breaker::Slot;
use crate::edges::{Direction, Zones};
use crate::failure::Failure;
use crate::headers;
use crate::state::{Shared, Transfer};
use crate::telemetry::CallFailure;
use crate::upgrade::{self, UpgradeError};
use crate::watched::{Ended, watch};
use request::Incoming;
pub(crate) use witness::{Witness, Witnessed};

/// The door for requests to the function.
pub fn handler(shared: Arc<Shared>) -> impl Handler {
    Inbound { shared }
}

#[derive(Debug, Clone)]
struct Inbound {
    shared: Arc<Shared>,
}

impl Handler for Inbound {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if health::is_probe(request.headers()) {
            let draining = self.shared.lifecycle.is_draining();
            return health::answer(draining, request.headers(), async || self.shared.readiness.is_ready())
                .await;
        }
        let started = Instant::now();
        let response = Box::pin(serve(&self.shared, request, Terms::of(&self.shared))).await;
        self.shared.metrics.request_served(response.status(), started.elapsed());
        response
    }
}

/// How failures that are not Zipline's own are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureForm {
    /// A problem document, or a gRPC status.
    Problem,
    /// A line of text, as Go's reverse proxy and Knative's breaker do.
    Text,
}

/// What one request is served under.
pub(crate) struct Terms {
    /// When the exchange is broken off; `None`: whoever called this ends it.
    deadline: Option<Instant>,
    /// When an upgraded connection is broken off.
    upgraded_until: Option<Instant>,
    /// The form of failures.
    failures: FailureForm,
    /// Whether it waits for a slot of the breaker.
    limited: bool,
    /// Lives as long as an upgraded connection.
    keep: Option<Arc<dyn Any + Send + Sync>>,
    /// Hears what happens.
    pub(crate) witness: Witnessed,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("deadline", &self.deadline)
            .field("failures", &self.failures)
            .field("limited", &self.limited)
            .finish_non_exhaustive()
    }
}

impl Terms {
    /// The standalone ones: one limit on everything, problem documents.
    fn of(shared: &Shared) -> Self {
        let deadline = Some(deadline::of(&shared.config));
        let failures = FailureForm::Problem;
        Self { deadline, upgraded_until: deadline, failures, limited: true, keep: None, witness: None }
    }

    /// Knative's: the caller ends what takes too long, failures are text, and `keep` lives as long as an upgraded
    /// connection.
    pub(crate) fn knative(upgraded_until: Instant, limited: bool, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            deadline: None,
            upgraded_until: Some(upgraded_until),
            failures: FailureForm::Text,
            limited,
            keep: Some(keep),
            witness: None,
        }
    }
}

/// Why the function did not answer.
#[derive(Debug)]
enum Refusal {
    /// The function has not run; the sender is asked to send the payload inline.
    ResendInline(String),
    /// An error for the caller.
    Failure(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Serves one request that is no probe.
pub(crate) async fn serve(shared: &Arc<Shared>, mut request: Request<Body>, terms: Terms) -> Response<Body> {
    let (deadline, failures) = (terms.deadline, terms.failures);
    let accept = take_accept(shared, &mut request);
    let deferred = headers::is_deferred(request.headers());
    if deferred && shared.mode() == Mode::Off {
        return resend_inline(shared, "this queue-proxy's mode is off");
    }
    let opened = if deferred {
        match Box::pin(request::open(shared, request)).await {
            Ok(incoming) => incoming,
            Err(detail) => return resend_inline(shared, &detail),
        }
    } else {
        Incoming::ordinary(request)
    };
    let payload = opened.payload();
    let form = headers::form(opened.headers());
    let answered = deadline::within(deadline, Box::pin(answer(shared, opened, accept, terms))).await;
    let outcome = answered.unwrap_or_else(|| {
        let limit = shared.config.request_timeout.as_secs();
        let detail = format!("the function did not answer within its timeout of {limit} s");
        Err(Failure::caller(ErrorCode::DeadlineExceeded, detail).into())
    });
    let mut response = match outcome {
        Ok(response) => response,
        Err(Refusal::ResendInline(detail)) => return resend_inline(shared, &detail),
        Err(Refusal::Failure(failure)) => {
            shared.metrics.error(failure.code);
            match failures {
                FailureForm::Problem => failure.into_response(&form),
                FailureForm::Text => failure.into_text_response(),
            }
        }
    };
    sign(shared, payload.as_ref(), &mut response);
    response
}

/// The nonce a deferred response is to be bound to. Removes all Zipline headers and counts those that do not belong.
fn take_accept(shared: &Shared, request: &mut Request<Body>) -> Option<Nonce> {
    let value = headers::single(request.headers(), header::ACCEPT);
    let nonce = value.and_then(|value| shared.keyring.open_accept(value).ok());
    let stripped = headers::strip(request.headers_mut());
    shared.metrics.stripped_headers(stripped - usize::from(nonce.is_some()));
    nonce.filter(|_| shared.mode() == Mode::On)
}

/// Tells the sender that this is a queue-proxy, and proves that the reference was opened.
fn sign(shared: &Shared, payload: Option<&PayloadId>, response: &mut Response<Body>) {
    if shared.mode() != Mode::Off {
        response.headers_mut().insert(header::VERSION, HeaderValue::from_static(header::VERSION_VALUE));
    }
    let Some(payload) = payload else { return };
    let proof = shared.keyring.proof_opened(payload, response.status().as_u16());
    if let Some(proof) = proof.and_then(|proof| HeaderValue::try_from(proof).ok()) {
        response.headers_mut().insert(header::OPENED, proof);
    }
}

fn resend_inline(shared: &Shared, detail: &str) -> Response<Body> {
    tracing::warn!(detail, "deferred request not taken, the sender is asked to send it inline");
    shared.metrics.error(ErrorCode::ResendInline);
    // Never the gRPC form: this goes to a queue-proxy, and none of it reaches the function that sent the request.
    let form = HeaderMap::new();
    problem_response(&form, ErrorCode::ResendInline, ErrorCode::ResendInline.local_status(), detail)
}

async fn answer(
    shared: &Arc<Shared>,
    incoming: Incoming,
    accept: Option<Nonce>,
    terms: Terms,
) -> Result<Response<Body>, Refusal> {
    let (way, zones) = (incoming.way(), incoming.zones(shared));
    if *incoming.method() == http::Method::CONNECT {
        return Err(no_tunnels().into());
    }
    let function = shared.function.clone().ok_or_else(|| {
        Failure::caller(
            ErrorCode::NotFound,
            "this queue-proxy has no function; it serves a process started by zipline run",
        )
    })?;
    let witness = terms.witness;
    let payload = incoming.payload();
    let (mut request, slot, broken) =
        incoming.when(gate(shared, terms.limited, witness.as_deref()), shared).await?;
    if let Some(payload) = payload {
        witness::retrieved(&witness, &payload, request.body().exact_length());
    }
    if let Some(witness) = &witness {
        witness.calling();
    }
    let target = Target { addr: function, protocol: Protocol::like(request.version()) };
    let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0.ip());
    zipline_http::proxy::request_for_upstream(&mut request, peer);
    if zipline_http::hop::is_upgrade(&request) {
        let upgraded =
            Box::pin(upgrade::forward(shared, target, request, (slot, terms.keep), terms.upgraded_until))
                .await;
        if let Some(witness) = &witness {
            witness.answered(match &upgraded {
                Ok(response) => Ok(response.status()),
                Err(UpgradeError::Send(error)) => Err(witness::failure(error)),
                Err(_) => Err(CallFailure::Exchange),
            });
        }
        return upgraded.map_err(|error| match error {
            UpgradeError::Send(error) => failed(&error).into(),
            other => Failure::caller(ErrorCode::UpstreamFailed, other.to_string()).into(),
        });
    }
    let (parts, body) = request.into_parts();
    let head = parts.method == http::Method::HEAD;
    let body = watch(body, (), record(shared, (way, zones), witness.clone()));
    let sent = shared.client.send(&target, Request::from_parts(parts, body)).await;
    if let Some(witness) = &witness {
        witness.answered(sent.as_ref().map(Response::status).map_err(witness::failure));
    }
    let response = match (sent, broken.get()) {
        (Ok(response), _) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let detail = "the function switched protocols although the request did not ask for it";
            return Err(Failure::caller(ErrorCode::UpstreamFailed, detail).into());
        }
        (Ok(response), _) => response,
        (Err(_), Some(error)) => {
            let detail = format!("the request's payload broke off after the function had started: {error}");
            return Err(Failure::caller(error.code, detail).into());
        }
        (Err(error), None) => return Err(failed(&error).into()),
    };
    Ok(response::finish(shared, response, response::Wanted { accept, head, witness }, (slot, terms.deadline))
        .await)
}

/// A function that agreed to a tunnel would get bytes that nobody here can tell from requests.
fn no_tunnels() -> Failure {
    Failure {
        code: ErrorCode::UpstreamFailed,
        status: StatusCode::BAD_GATEWAY.as_u16(),
        detail: "CONNECT is not passed to functions".into(),
        text: None,
    }
}

fn failed(error: &zipline_http::SendError) -> Failure {
    Failure::upstream("the function could not answer", error)
}

/// The function is ready and has a free slot.
async fn gate(shared: &Arc<Shared>, limited: bool, witness: Option<&dyn Witness>) -> Result<Slot, Failure> {
    shared.readiness.ready().await;
    if !limited || !shared.breaker.is_limited() {
        return Ok(shared.breaker.pass());
    }
    let asked = witness.map(|_| Instant::now());
    let slot = shared.breaker.acquire().await.map_err(|_| Failure {
        code: ErrorCode::BufferFull,
        status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
        detail: "pending request queue full".into(),
        text: None,
    })?;
    if let (Some(witness), Some(asked)) = (witness, asked) {
        witness.admitted(asked.elapsed(), shared.breaker.in_flight() + shared.breaker.queued());
    }
    Ok(slot)
}

fn record(
    shared: &Arc<Shared>,
    (way, zones): (Way, Zones),
    witness: Witnessed,
) -> impl FnOnce(Ended) + Send + use<> {
    let shared = Arc::clone(shared);
    move |ended: Ended| {
        if let Some(witness) = &witness {
            witness.received(ended.bytes);
        }
        if ended.whole && ended.bytes > 0 {
            shared.record(Transfer {
                direction: Direction::Received,
                kind: ReferenceKind::Request,
                peer: None,
                way,
                reason: None,
                zones,
                bytes: ended.bytes,
                elapsed: ended.elapsed,
            });
        }
    }
}
