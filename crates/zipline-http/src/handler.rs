//! What answers requests.

use crate::body::Body;
use http::{Request, Response};
use std::future::Future;
use std::net::SocketAddr;

/// Answers requests; one clone serves each connection.
///
/// A request carries its [`PeerAddr`] in its extensions when the connection has one. Dropping the future is the sign
/// that the client went away.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. The request body may be read while the response is already streaming.
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// Address of the client that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// A [`Handler`] from a function.
pub fn handler_fn<F, Fut>(function: F) -> impl Handler
where
    F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send,
{
    FunctionHandler { function }
}

#[derive(Clone)]
struct FunctionHandler<F> {
    function: F,
}

impl<F, Fut> Handler for FunctionHandler<F>
where
    F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send,
{
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
        (self.function)(request)
    }
}
