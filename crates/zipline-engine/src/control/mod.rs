//! The control socket: HTTP on a Unix socket that only the engine's user can reach.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/payloads` | [`Payloads`]: what each queue-proxy says about itself |
//! | `GET /v1/logs?service=S[.N]&follow=true` | a [`crate::LogLine`] per line |
//! | `POST /v1/down` | 202 at once; the engine then ends |
//! | `POST /v1/guests?namespace=N` | [`GuestAccess`] as one line, then an empty line every second; the guest ends with the connection |
//! | `POST /v1/keys/rotate` | [`Rotation`], once every new reference is sealed with the new keys |
//! | `GET /metrics` | the gateway's metrics |

mod logs;
mod payloads;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use zipline_http::{Body, Client, Frame, Handler, problem_response};
use zipline_protocol::{ErrorCode, FunctionName};
use zipline_runtime::Metrics;

use crate::context::Context;
use crate::gateway::Functions;
use crate::instance::start_guest;
use crate::keys::Keys;
use crate::metrics::GatewayMetrics;

pub use crate::instance::GuestAccess;
pub use payloads::{InstancePayloads, Payloads};
pub use status::{EngineStatus, FunctionStatus, InstanceStatus, ScaleStatus, Status};

/// How often a guest's connection is written to, so that a client that is gone is noticed.
const GUEST_PULSE: Duration = Duration::from_secs(1);

/// Answer to `POST /v1/keys/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Serial of the new key, by tenant (namespace).
    pub tenants: BTreeMap<String, u32>,
}

/// Answers the control socket.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) context: Arc<Context>,
    pub(crate) functions: Functions,
    pub(crate) client: Client,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) started_unix_ms: u64,
}

impl Handler for Control {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/status") => json(StatusCode::OK, &status::status(self)),
            (&Method::GET, "/v1/payloads") => json(StatusCode::OK, &payloads::payloads(self).await),
            (&Method::GET, "/v1/logs") => logs::logs(self, &request),
            (&Method::GET, "/metrics") => {
                let mut response = Response::new(Body::full(self.metrics.encode(&self.functions)));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Metrics::CONTENT_TYPE));
                response
            }
            (&Method::POST, "/v1/down") => {
                self.shutdown.cancel();
                json(StatusCode::ACCEPTED, &serde_json::json!({ "pid": std::process::id() }))
            }
            (&Method::POST, "/v1/guests") => self.guest(&request).await,
            (&Method::POST, "/v1/keys/rotate") => self.rotate(&request).await,
            (method, path) => {
                let detail = format!("the control socket has no {method} {}", path.escape_debug());
                problem_response(request.headers(), ErrorCode::NotFound, 404, detail)
            }
        }
    }
}

impl Control {
    async fn guest(&self, request: &Request<Body>) -> Response<Body> {
        let namespace = query(request, "namespace").unwrap_or("default");
        if let Err(error) = FunctionName::new("guest", namespace) {
            return problem_response(request.headers(), ErrorCode::RequestInvalid, 400, error.to_string());
        }
        if self.shutdown.is_cancelled() {
            return problem_response(
                request.headers(),
                ErrorCode::Draining,
                503,
                "the engine is about to end",
            );
        }
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        let access = match start_guest(&self.context, namespace, gone).await {
            Ok(access) => access,
            Err(error) => {
                return problem_response(
                    request.headers(),
                    ErrorCode::UpstreamFailed,
                    502,
                    error.to_string(),
                );
            }
        };
        let mut first = serde_json::to_vec(&access).expect("strings always serialise");
        first.push(b'\n');
        let mut pulse = interval(GUEST_PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = self.context.tasks.token();
        let frames = futures_util::stream::unfold((Some(first), pulse), move |(first, mut pulse)| {
            let end = end.clone();
            async move {
                if let Some(first) = first {
                    return Some((Ok(Frame::data(Bytes::from(first))), (None, pulse)));
                }
                tokio::select! {
                    () = end.cancelled() => None,
                    _ = pulse.tick() => Some((Ok(Frame::data(Bytes::from_static(b"\n"))), (None, pulse))),
                }
            }
        });
        let mut response = Response::new(Body::from_frames(frames).holding(guard));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        response
    }

    async fn rotate(&self, request: &Request<Body>) -> Response<Body> {
        match self.context.keys.rotate().await {
            Ok(rotated) => {
                let answer = Rotation { tenants: rotated.serials.clone() };
                let (context, end) = (self.context.clone(), self.context.tasks.token());
                self.context.tasks.spawn("key removal", async move {
                    tokio::select! {
                        () = end.cancelled() => {}
                        () = tokio::time::sleep(Keys::overlap()) => context.keys.forget_before(&rotated),
                    }
                });
                json(StatusCode::OK, &answer)
            }
            Err(error) => {
                problem_response(request.headers(), ErrorCode::RequestInvalid, 409, error.to_string())
            }
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("status types always serialise");
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A query parameter. Values are names and truth values, which need no decoding.
fn query<'a>(request: &'a Request<Body>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}
