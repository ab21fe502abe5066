//! The listener for the function itself: local API and forward proxy on one address.

use std::sync::Arc;

use http::{Method, Request, Response, Version};
use zipline_http::{Body, Handler};

use crate::api;
use crate::forward::Forward;
use crate::state::Shared;

/// Answers what the function asks of its queue-proxy.
#[derive(Clone, Debug)]
pub struct Local {
    shared: Arc<Shared>,
    forward: Forward,
}

impl Local {
    /// The function's side of `shared`.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, forward: Forward::new() }
    }
}

impl Handler for Local {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if is_forwarded(&request) {
            Box::pin(self.forward.serve(&self.shared, request)).await
        } else {
            Box::pin(api::serve(&self.shared, request)).await
        }
    }
}

/// HTTP/1 tells the two doors apart by the form of the URI. HTTP/2 has only one form, so there the host decides.
fn is_forwarded(request: &Request<Body>) -> bool {
    let uri = request.uri();
    request.method() == Method::CONNECT
        || uri.scheme().is_some()
            && (request.version() != Version::HTTP_2
                || uri.authority().is_some_and(|authority| !api::is_loopback(authority.as_str())))
}
