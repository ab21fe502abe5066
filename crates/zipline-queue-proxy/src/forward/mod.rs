//! The forward proxy, for functions that nobody changes: with `http_proxy` set, plain requests to functions are invokes,
//! everything else passes through untouched.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tokio::sync::Semaphore;
use zipline_http::Body;
use zipline_protocol::ErrorCode;

use crate::config::Token;
use crate::state::Shared;

mod connect;
mod destination;
mod plain;
mod sniff;
#[cfg(test)]
mod tests;
mod tunnel;

/// Tunnels open at once; further ones are refused with `buffer-full`.
const MAX_TUNNELS: usize = 1024;

/// The user name that goes with the token in `Proxy-Authorization`.
const USER: &[u8] = b"zipline";

/// The forward proxy of one queue-proxy.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    tunnels: Arc<Semaphore>,
}

impl Forward {
    pub(crate) fn new() -> Self {
        Self { tunnels: Arc::new(Semaphore::new(MAX_TUNNELS)) }
    }

    /// Answers a `CONNECT`, or a request with an absolute URI.
    pub(crate) async fn serve(&self, shared: &Arc<Shared>, request: Request<Body>) -> Response<Body> {
        if !is_authorised(&shared.config.token, request.headers()) {
            return unauthorised(shared);
        }
        let answered = if request.method() == http::Method::CONNECT {
            connect::connect(shared, &self.tunnels, request).await
        } else {
            plain::pass(shared, request).await
        };
        answered.unwrap_or_else(|refusal| refusal.into_response(shared))
    }
}

fn is_authorised(token: &Token, headers: &HeaderMap) -> bool {
    let shown = headers.get(header::PROXY_AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, credentials)) = shown.and_then(|value| value.split_once(' ')) else { return false };
    let Ok(credentials) = STANDARD.decode(credentials.trim()) else { return false };
    match credentials.iter().position(|byte| *byte == b':') {
        Some(colon) => {
            scheme.eq_ignore_ascii_case("basic")
                && &credentials[..colon] == USER
                && token.matches(&credentials[colon + 1..])
        }
        None => false,
    }
}

fn unauthorised(shared: &Shared) -> Response<Body> {
    shared.metrics.error(ErrorCode::TokenMissing);
    let status = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    let detail = "use the proxy's address with user zipline and the value of ZIPLINE_TOKEN as password";
    let mut response =
        zipline_http::problem_response(&HeaderMap::new(), ErrorCode::TokenMissing, status.as_u16(), detail);
    response
        .headers_mut()
        .insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"zipline\""));
    response
}
