//! The local API: what a function asks of its own queue-proxy (`docs/openapi.yaml`).
//!
//! Every request must show a loopback `Host` and the instance's token, so that neither a tricked URL fetch nor another
//! process reaches it. Whether the token is right takes the same time to find out whatever was shown.

use std::fmt::Display;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use zipline_http::Body;
use zipline_protocol::{ErrorCode, header as ours};

use crate::state::Shared;

mod deliver;
mod get;
mod invoke;
#[cfg(test)]
mod openapi_tests;
pub(crate) mod put;
pub(crate) mod query;
mod range;
pub(crate) mod reference;
pub(crate) mod release;
#[cfg(test)]
mod tests;

pub(crate) use invoke::prepare;

/// The description of this API, served as it stands in the repository.
const OPENAPI: &str = include_str!("../../../../docs/openapi.yaml");

/// A request that is answered with a problem document.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: ErrorCode,
    detail: String,
    header: Option<(header::HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, detail: impl Display) -> Self {
        Self { code, detail: detail.to_string(), header: None }
    }

    pub(crate) fn invalid(detail: impl Display) -> Self {
        Self::new(ErrorCode::RequestInvalid, detail)
    }

    /// `what` happened because of `error`, whose whole chain is told.
    pub(crate) fn caused(code: ErrorCode, what: impl Display, error: &dyn std::error::Error) -> Self {
        let mut detail = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            detail.push_str(": ");
            detail.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(code, detail)
    }

    /// The stable code.
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    /// What happened, and what to do.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) fn into_response(self, shared: &Shared) -> Response<Body> {
        shared.metrics.error(self.code);
        let status = self.code.local_status();
        let mut response = zipline_http::problem_response(&HeaderMap::new(), self.code, status, self.detail);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Answers one request of the function in origin form.
pub(crate) async fn serve(shared: &Arc<Shared>, request: Request<Body>) -> Response<Body> {
    match route(shared, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(shared),
    }
}

async fn route(shared: &Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    admit(shared, &request)?;
    let path = request.uri().path();
    if let Some(target) = path.strip_prefix("/v1/invoke/") {
        let target = target.to_owned();
        return invoke::invoke(shared, &target, request).await;
    }
    match (path, request.method()) {
        ("/v1/payloads", &Method::POST) => put::put(shared, request).await,
        ("/v1/payload", &Method::GET) => get::get(shared, &request).await,
        ("/v1/payload", &Method::DELETE) => release::release(shared, &request).await,
        ("/openapi.yaml", &Method::GET) => Ok(openapi()),
        ("/v1/payloads", _) => Err(wrong_method("POST")),
        ("/v1/payload", _) => Err(wrong_method("GET, DELETE")),
        ("/openapi.yaml", _) => Err(wrong_method("GET")),
        _ => Err(Refusal::new(ErrorCode::NotFound, "no such path: see /openapi.yaml")),
    }
}

fn wrong_method(allowed: &'static str) -> Refusal {
    Refusal::invalid(format_args!("this path takes {allowed}"))
        .with_header(header::ALLOW, HeaderValue::from_static(allowed))
}

fn openapi() -> Response<Body> {
    let mut response = Response::new(Body::full(OPENAPI));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    response
}

/// Whether the request may be answered at all.
fn admit(shared: &Shared, request: &Request<Body>) -> Result<(), Refusal> {
    let shown = request.headers().get(ours::TOKEN).map_or(&b""[..], HeaderValue::as_bytes);
    if !shared.config.token.matches(shown) {
        let detail = "the header Zipline-Token must hold the value of the variable ZIPLINE_TOKEN";
        return Err(Refusal::new(ErrorCode::TokenMissing, detail));
    }
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let host = request.uri().authority().map(http::uri::Authority::as_str).or(host).unwrap_or_default();
    if !is_loopback(host) {
        return Err(Refusal::invalid("the Host of the local API is a loopback address or localhost"));
    }
    Ok(())
}

/// Whether `host`, with or without a port, names this machine's loopback.
pub(crate) fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
