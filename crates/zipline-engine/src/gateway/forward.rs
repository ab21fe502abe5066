//! One request on its way to an instance and back.

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use tokio::time::timeout;
use zipline_http::{Body, PeerAddr, Protocol, SendError, Target, hop, problem_response, proxy, upgrade};
use zipline_protocol::ErrorCode;

use crate::function::Function;
use crate::manifest::PortProtocol;
use crate::pool::{HoldError, Slot};

use super::Shared;
use super::count::{Counted, Kept};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Instances tried when one after the other cannot be connected to.
const TRIES: usize = 3;

/// Sends a request to an instance of `function` and gives its response, or the gateway's own.
pub(super) async fn forward(
    shared: &Shared,
    function: &Function,
    mut request: Request<Body>,
) -> Response<Body> {
    function.counters.requests.inc();
    function.request();

    let version = request.version();
    let tunnel = hop::is_upgrade(&request).then(|| upgrade::on(&mut request));
    let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0.ip());
    proxy::request_for_upstream(&mut request, peer);
    if !request.headers().contains_key(X_FORWARDED_PROTO) {
        request.headers_mut().insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    let (parts, body) = request.into_parts();
    let headers = parts.headers.clone();
    let refuse = |code, status, detail: String| {
        function.counters.refused.inc();
        problem_response(&headers, code, status, detail)
    };
    let body = Kept::new(match body.is_end() {
        true => body,
        false => Body::wrap(Counted::new(body, function.counters.received.clone())),
    });

    let protocol = if tunnel.is_some() { Protocol::Http1 } else { protocol(function, version) };
    let mut avoid = Vec::new();
    let (slot, response) = loop {
        let slot = match acquire(shared, function, &avoid).await {
            Ok(slot) => slot,
            Err((code, status, detail)) => return refuse(code, status, detail),
        };
        let mut request = Request::new(body.lend());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.headers_mut() = parts.headers.clone();
        let target = Target { addr: slot.address().into(), protocol };
        match shared.client.send(&target, request).await {
            Ok(response) => break (slot, response),
            Err(error) if error.is_connect() && body.is_whole() && avoid.len() + 1 < TRIES => {
                tracing::debug!(function = %function.manifest.name, %error, "another instance is tried");
                avoid.push(slot.instance());
            }
            Err(error) => {
                let (code, status, detail) = explain(function, &slot, &error);
                return refuse(code, status, detail);
            }
        }
    };
    answer(shared, function, slot, response, tunnel)
}

fn protocol(function: &Function, version: Version) -> Protocol {
    match function.manifest.container.protocol {
        PortProtocol::AsReceived => Protocol::like(version),
        PortProtocol::Http1 => Protocol::Http1,
        PortProtocol::H2c => Protocol::Http2,
    }
}

type Refusal = (ErrorCode, u16, String);

async fn acquire(shared: &Shared, function: &Function, avoid: &[u64]) -> Result<Slot, Refusal> {
    let name = &function.manifest.name;
    match timeout(shared.hold, function.pool.acquire(avoid)).await {
        Ok(Ok(slot)) => Ok(slot),
        Ok(Err(HoldError::Full { held_max })) => Err((
            ErrorCode::UpstreamFailed,
            503,
            format!(
                "{held_max} requests to {name} wait for an instance already, which is the limit; raise max-scale or containerConcurrency, or send fewer at a time"
            ),
        )),
        Ok(Err(HoldError::Failed(failure))) => {
            Err((failure.code, failure.code.caller_status(), failure.message.clone()))
        }
        Ok(Err(HoldError::Closed)) => Err((ErrorCode::Draining, 503, "the engine is about to end".into())),
        Err(_) => {
            let last =
                function.last_failure().map(|failure| format!("; its last failure: {}", failure.message));
            let detail = format!(
                "no instance of {name} could take the request within {} s{}",
                shared.hold.as_secs(),
                last.unwrap_or_default()
            );
            Err((ErrorCode::DeadlineExceeded, 504, detail))
        }
    }
}

/// What to tell a caller whose request got no response. It is never sent again: the function may have run.
fn explain(function: &Function, slot: &Slot, error: &SendError) -> Refusal {
    let name = &function.manifest.name;
    if error.is_request_body() {
        return (ErrorCode::RequestInvalid, 400, format!("the request to {name} broke off before its end"));
    }
    if let SendError::Invalid(why) = error {
        return (ErrorCode::RequestInvalid, 400, format!("the request cannot be sent to {name}: {why}"));
    }
    if let Some(failure) = function.failure_of(slot.instance()) {
        return (failure.code, failure.code.caller_status(), failure.message.clone());
    }
    let detail = if error.is_connect() {
        format!("no instance of {name} could be reached; see `zipline status` and `zipline logs {name}`")
    } else {
        format!(
            "an instance of {name} broke off before it answered; the function may have run, so the request is not sent again; see `zipline logs {name}`"
        )
    };
    tracing::debug!(function = %name, %error, "no response");
    (ErrorCode::UpstreamFailed, ErrorCode::UpstreamFailed.caller_status(), detail)
}

fn answer(
    shared: &Shared,
    function: &Function,
    slot: Slot,
    mut response: Response<Body>,
    tunnel: Option<upgrade::OnUpgrade>,
) -> Response<Body> {
    let upstream = (response.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| upgrade::on(&mut response));
    proxy::response_for_downstream(&mut response);
    if let Some(upstream) = upstream {
        let Some(downstream) = tunnel else {
            return problem_response(
                response.headers(),
                ErrorCode::UpstreamFailed,
                502,
                format!("{} changed protocol unasked", function.manifest.name),
            );
        };
        let counters = function.counters.clone();
        let stop = shared.tasks.token();
        shared.tasks.spawn("gateway tunnel", async move {
            let _slot = slot;
            tokio::select! {
                () = stop.cancelled() => {}
                // Errors are either side's breaking off: the other side sees its connection close.
                copied = upgrade::tunnel(downstream, upstream) => if let Ok((received, sent)) = copied {
                    counters.received.inc_by(received);
                    counters.sent.inc_by(sent);
                },
            }
        });
        return response;
    }
    // An empty body, too, holds the slot until it was written: then the request is over.
    response.map(|body| match body.is_end() {
        true => body.holding(slot),
        false => Body::wrap(Counted::new(body, function.counters.sent.clone())).holding(slot),
    })
}
