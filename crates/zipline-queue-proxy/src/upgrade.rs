//! Requests that change protocol (WebSocket and the like): never deferred, joined to their upstream as they are.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use zipline_http::{Body, SendError, Target, upgrade};

use crate::state::Shared;

/// Sends an upgrade request on and joins the two connections if the upstream agrees. `keep` lives as long as they do, and
/// no longer than `deadline`.
///
/// # Errors
/// As the client. A refusal of the upstream is an ordinary response.
pub(crate) async fn forward<K: Send + 'static>(
    shared: &Arc<Shared>,
    target: Target,
    mut request: Request<Body>,
    keep: K,
    deadline: Option<Instant>,
) -> Result<Response<Body>, SendError> {
    let downstream = upgrade::on(&mut request);
    let mut response = shared.client.send(&target, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|body| body.holding(keep)));
    }
    let upstream = upgrade::on(&mut response);
    shared.tasks.spawn("upgraded connection", async move {
        let _keep = keep;
        let joined = upgrade::tunnel(downstream, upstream);
        let ended = match deadline {
            Some(deadline) => timeout_at(deadline, joined).await,
            None => Ok(joined.await),
        };
        match ended {
            Ok(Ok((sent, received))) => tracing::debug!(sent, received, "upgraded connection ended"),
            Ok(Err(error)) => tracing::debug!(%error, "upgraded connection broke off"),
            Err(_) => tracing::debug!("upgraded connection reached the function's timeout"),
        }
    });
    Ok(response)
}
