//! A function as a tower service.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use zipline_protocol::FunctionName;

use crate::{Body, Client, Error, Invocation, Result};

impl Client {
    /// A function as a [`tower_service::Service`] of requests, to be wrapped in tower's layers.
    ///
    /// # Errors
    /// `request-invalid`: no function can have this name.
    pub fn function(&self, name: &str) -> Result<Function> {
        Ok(Function { client: self.clone(), name: self.named(name)? })
    }
}

/// A function that is invoked by each call ([`Client::invoke`]). It is always ready: whoever wants fewer invokes at the same time puts a
/// layer around it.
#[derive(Clone, Debug)]
pub struct Function {
    client: Client,
    name: FunctionName,
}

impl<B: Into<Body>> tower_service::Service<Request<B>> for Function {
    type Response = Response<Bytes>;
    type Error = Error;
    type Future = Invocation;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Invocation {
        self.client.start(&self.name, request)
    }
}
