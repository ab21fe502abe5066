//! Receivers that do not know Zipline: one that refuses deferred messages as stock Knative's queue-proxy does, and one
//! that passes everything on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use http::header::{CONTENT_TYPE, USER_AGENT, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::net::TcpListener;

use crate::body::{self, AnyBody};
use crate::forward;
use crate::owner::Owner;

/// What it does with the probe User-Agent of the activator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// Answers 400 without running the function, as Knative's queue-proxy.
    Refuse,
    /// Answers 503 `shutting down`, as Knative's queue-proxy while it drains.
    ShuttingDown,
    /// Passes it on, as any reverse proxy.
    Pass,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct StockProxy {
    /// Where it listens.
    pub address: SocketAddr,
    refused: Arc<AtomicU64>,
    _owner: Owner,
}

impl StockProxy {
    /// Starts a proxy in front of `target`.
    ///
    /// # Errors
    /// No port.
    pub async fn start(target: SocketAddr, manners: Manners) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, owner, refused) =
            (listener.local_addr()?, Owner::default(), Arc::<AtomicU64>::default());
        let (spawner, count) = (owner.spawner(), Arc::clone(&refused));
        forward::serve(listener, &owner.spawner(), Arc::default(), move |request| {
            let (spawner, count) = (spawner.clone(), Arc::clone(&count));
            async move {
                match manners {
                    Manners::Refuse if is_probe(&request) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        refusal(StatusCode::BAD_REQUEST, "unexpected probe header value: \n")
                    }
                    Manners::ShuttingDown if is_probe(&request) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        refusal(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
                    }
                    _ => forward::forward(request, target, spawner).await,
                }
            }
        });
        Ok(Self { address, refused, _owner: owner })
    }

    /// How many requests it refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

fn is_probe<B>(request: &Request<B>) -> bool {
    let agent = request.headers().get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    agent.starts_with(b"Knative-Activator-Probe")
}

fn refusal(status: StatusCode, content: &'static str) -> Response<AnyBody> {
    let mut response = Response::new(body::full(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
