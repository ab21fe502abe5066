//! Requests that change protocol (WebSocket and the like): never deferred, joined to their upstream as they are.

use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use zipline_http::{Body, SendError, Target, hop, upgrade};
use zipline_protocol::ErrorCode;

use crate::state::Shared;

/// Why an upgrade request got no answer to pass on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The upstream did not answer.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The upstream switched to something else; in the words of Go's reverse proxy.
    #[error("backend tried to switch protocol {agreed:?} when {asked:?} was requested")]
    OtherProtocol {
        /// What the request asked for.
        asked: String,
        /// What the upstream agreed to.
        agreed: String,
    },
}

impl UpgradeError {
    /// The stable code.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Send(error) => error.code(),
            Self::OtherProtocol { .. } => ErrorCode::UpstreamFailed,
        }
    }
}

/// Sends an upgrade request on and joins the two connections if the upstream agrees. `keep` lives as long as they do, and
/// no longer than `deadline`.
///
/// # Errors
/// As the client, and [`UpgradeError::OtherProtocol`]. A refusal of the upstream is an ordinary response.
pub(crate) async fn forward<K: Send + 'static>(
    shared: &Arc<Shared>,
    target: Target,
    mut request: Request<Body>,
    keep: K,
    deadline: Option<Instant>,
) -> Result<Response<Body>, UpgradeError> {
    let asked = protocol(request.headers());
    let downstream = upgrade::on(&mut request);
    let mut response = shared.client.send(&target, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|body| body.holding(keep)));
    }
    let agreed = protocol(response.headers());
    if !asked.eq_ignore_ascii_case(&agreed) {
        return Err(UpgradeError::OtherProtocol { asked, agreed });
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

fn protocol(headers: &HeaderMap) -> String {
    let protocol = hop::upgrade_protocol(headers);
    protocol.map(|protocol| String::from_utf8_lossy(protocol.as_bytes()).into_owned()).unwrap_or_default()
}
