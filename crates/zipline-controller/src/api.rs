//! What queue-proxies ask: keys, the mode, and to be marked as holding.
//!
//! Every answer is audited: who, what, and the reason of a refusal. Tokens and keys are never logged.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use zipline_http::{Body, Handler, PeerAddr};
use zipline_protocol::controller::{
    HoldingReport, KeysAnswer, KeysRequest, MODE_WAIT, REQUEST_MAX, TOKEN_MAX,
};

use crate::guards::Guards;
use crate::metrics::ControllerMetrics;
use crate::modes::Board;
use crate::rates::Rates;
use crate::refusal::Refusal;
use crate::verify::{Admitted, Verifier};
use crate::zones::Zones;

/// Queue-proxies ask for keys again after this long; changes are told earlier by the mode's answer.
const REFRESH: Duration = Duration::from_secs(300);
/// Longest time for a request's body.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// Queue-proxies that may wait for a change at a time; further ones are told to come back.
const WAITING_MAX: usize = 16_384;
/// Longest name in an audit line that a client chose.
const SHOWN_MAX: usize = 253;

/// What all requests share.
pub struct Doors {
    /// What holds now.
    pub board: Board,
    /// Who asks.
    pub verifier: Verifier,
    /// Where pods are.
    pub zones: Zones,
    /// What pods hold.
    pub guards: Arc<Guards>,
    /// How often one address may ask.
    pub rates: Rates,
    /// The counters.
    pub metrics: ControllerMetrics,
    /// Ends long polls when the controller drains.
    pub stop: CancellationToken,
    waiting: Semaphore,
}

impl Doors {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        board: Board,
        verifier: Verifier,
        zones: Zones,
        guards: Arc<Guards>,
        metrics: ControllerMetrics,
        stop: CancellationToken,
    ) -> Self {
        let rates = Rates::new(5.0, 30.0);
        Self { board, verifier, zones, guards, rates, metrics, stop, waiting: Semaphore::new(WAITING_MAX) }
    }

    async fn keys(&self, request: Request<Body>) -> Result<Response<Body>, Refused> {
        let started = Instant::now();
        let token = bearer(request.headers())?.to_owned();
        let KeysRequest { revision } = read(request.into_body()).await?;
        let images = self.images()?;
        let admitted = self
            .verifier
            .verify(&token, Some(&revision), &images)
            .await
            .map_err(|refusal| Refused { refusal, claimed: revision.chars().take(SHOWN_MAX).collect() })?;
        let zone = self.zones.of(&admitted.node).await;
        let (answer, serials) = {
            let state = self.board.subscribe();
            let state = state.borrow();
            let answer = KeysAnswer {
                tenant: admitted.namespace.clone(),
                namespace: admitted.namespace.clone(),
                keys: state.keys(&admitted.namespace),
                refresh_seconds: REFRESH.as_secs(),
                valid_seconds: state.plan().valid.as_secs(),
                modes: state.modes(&admitted.namespace, admitted.mode),
                zone,
            };
            (answer, state.plan().serials())
        };
        let Admitted { namespace, pod, uid, account, revision, node, .. } = &admitted;
        tracing::info!(
            target: "zipline_controller::audit",
            namespace, pod, uid, account, revision, node, ?serials, "keys given"
        );
        self.metrics.keys_answered(started.elapsed().as_secs_f64());
        Ok(json(&answer))
    }

    async fn mode(&self, request: Request<Body>) -> Result<Response<Body>, Refused> {
        let token = bearer(request.headers())?;
        let known = asked_revision(request.uri().query())?;
        let images = self.images()?;
        let admitted = self.verifier.recognise(token, &images).await?;
        let _waiting = self.waiting.try_acquire().map_err(|_| Refusal::Busy)?;
        let _counted = Counted::new(&self.metrics);
        let deadline = Instant::now() + MODE_WAIT;
        let mut changes = self.board.subscribe();
        loop {
            let answer = changes.borrow_and_update().answer(&admitted.namespace, admitted.mode);
            if known != Some(answer.revision) {
                return Ok(json(&answer));
            }
            let waited = async {
                tokio::select! {
                    changed = changes.changed() => changed.is_ok(),
                    () = self.stop.cancelled() => false,
                }
            };
            if !timeout_at(deadline, waited).await.unwrap_or(false) {
                return Ok(json(&answer));
            }
        }
    }

    async fn holding(&self, request: Request<Body>) -> Result<Response<Body>, Refused> {
        let token = bearer(request.headers())?.to_owned();
        let HoldingReport { holding } = read(request.into_body()).await?;
        let images = self.images()?;
        let admitted = self.verifier.recognise(&token, &images).await?;
        self.guards.report(&admitted, holding).map_err(|_| Refusal::Busy)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    fn images(&self) -> Result<Vec<String>, Refusal> {
        let state = self.board.subscribe();
        let state = state.borrow();
        if state.is_complete() { Ok(state.images()) } else { Err(Refusal::Starting) }
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

/// Answers queue-proxies.
#[derive(Clone, Debug)]
pub struct Api {
    doors: Arc<Doors>,
}

impl Api {
    /// Answers from `doors`.
    #[must_use]
    pub fn new(doors: Arc<Doors>) -> Self {
        Self { doors }
    }
}

impl Handler for Api {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let doors = &self.doors;
        let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0.ip());
        let peer = peer.unwrap_or(IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let path = match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/keys") => "/v1/keys",
            (&Method::GET, "/v1/mode") => "/v1/mode",
            (&Method::POST, "/v1/holding") => "/v1/holding",
            _ => "other",
        };
        let answered = match path {
            _ if !doors.rates.allows(peer) => Err(Refusal::TooManyRequests.into()),
            "/v1/keys" => doors.keys(request).await,
            "/v1/mode" => doors.mode(request).await,
            "/v1/holding" => doors.holding(request).await,
            _ => Err(Refusal::NotFound.into()),
        };
        match answered {
            Ok(response) => {
                doors.metrics.request(path, "ok");
                response
            }
            Err(Refused { refusal, claimed }) => {
                let reason = refusal.as_str();
                doors.metrics.request(path, reason);
                tracing::warn!(
                    target: "zipline_controller::audit",
                    path, reason, %peer, ?claimed, "refused"
                );
                refusal.to_response()
            }
        }
    }
}

/// A refusal, with the Revision that was claimed, if any.
struct Refused {
    refusal: Refusal,
    claimed: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, claimed: String::new() }
    }
}

/// One queue-proxy that waits, in the metrics.
struct Counted<'a>(&'a ControllerMetrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a ControllerMetrics) -> Self {
        metrics.waiting.inc();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Refusal::TokenMissing) };
    let text = value.to_str().map_err(|_| Refusal::TokenMalformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refusal::TokenMissing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::TokenMissing);
    }
    if token.is_empty() || token.len() > TOKEN_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::TokenMalformed);
    }
    Ok(token)
}

fn asked_revision(query: Option<&str>) -> Result<Option<u64>, Refusal> {
    let Some(query) = query else { return Ok(None) };
    let revision = query.strip_prefix("revision=").ok_or(Refusal::RequestInvalid)?;
    revision.parse().map(Some).map_err(|_| Refusal::RequestInvalid)
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let body = timeout(BODY_LIMIT, body.collect_up_to(REQUEST_MAX)).await;
    let body = body.map_err(|_| Refusal::RequestInvalid)?.map_err(|_| Refusal::RequestInvalid)?;
    serde_json::from_slice(&body).map_err(|_| Refusal::RequestInvalid)
}

fn json(answer: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(answer).expect("strings and numbers always serialise");
    let mut response = Response::new(Body::full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
