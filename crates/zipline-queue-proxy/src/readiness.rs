//! Whether the function answers its readiness probe.
//!
//! The probe is Kubernetes' own form, as Knative hands it to its queue-proxy. Until the first success it is tried every
//! 50 ms; afterwards, if it names a period, once per period, and the function is unready again after
//! `failureThreshold` failures in a row.

mod probe;

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use zipline_http::{Body, Client, Target};

pub use probe::{Check, Probe, ProbeError};

/// Pause between attempts until the first success.
const EAGER_PERIOD: Duration = Duration::from_millis(50);

/// The state, observable by all parts. Clones share it.
#[derive(Debug, Clone)]
pub struct Readiness {
    ready: Arc<watch::Sender<bool>>,
}

impl Readiness {
    /// A function that is not ready yet, or one that needs no probe.
    #[must_use]
    pub fn new(ready: bool) -> Self {
        Self { ready: Arc::new(watch::Sender::new(ready)) }
    }

    /// Whether the function is ready now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Resolves when the function is ready. Cancel safe.
    pub async fn ready(&self) {
        self.becomes(true).await;
    }

    /// Resolves when the function is ready, or is not. Cancel safe.
    pub async fn becomes(&self, ready: bool) {
        // An error means that the sender is gone, which `self` prevents.
        let _ = self.ready.subscribe().wait_for(|present| *present == ready).await;
    }

    /// Probes the function for ever; the caller owns this as a task.
    pub async fn run(self, probe: Probe, client: Client) {
        let mut failures = 0;
        let mut successes = 0;
        loop {
            let passed = matches!(timeout(probe.timeout, attempt(&probe.check, &client)).await, Ok(true));
            (failures, successes) = if passed { (0, successes + 1) } else { (failures + 1, 0) };
            if passed && successes >= probe.success_threshold {
                self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
            } else if !passed && failures >= probe.failure_threshold {
                self.ready.send_if_modified(|ready| std::mem::replace(ready, false));
            }
            match probe.period {
                _ if !self.is_ready() => sleep(EAGER_PERIOD).await,
                Some(period) => sleep(period).await,
                None => std::future::pending().await,
            }
        }
    }
}

async fn attempt(check: &Check, client: &Client) -> bool {
    match check {
        // Where nobody listens on an ephemeral port, the kernel may connect the socket to itself.
        Check::Tcp { address } => TcpStream::connect(address)
            .await
            .is_ok_and(|stream| stream.local_addr().ok() != stream.peer_addr().ok()),
        Check::Http { address, path, headers } => {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = path.clone();
            for (name, value) in headers {
                request.headers_mut().append(name.clone(), value.clone());
            }
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("kube-probe//"));
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            if let Ok(host) = HeaderValue::try_from(address.to_string()) {
                request.headers_mut().insert(HOST, host);
            }
            let sent = client.send(&Target::http1(*address), request).await;
            sent.is_ok_and(|response| (200..400).contains(&response.status().as_u16()))
        }
    }
}

#[cfg(test)]
mod tests;
