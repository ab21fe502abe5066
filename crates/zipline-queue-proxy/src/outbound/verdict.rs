//! What the response to a deferred request means (protocol, section 5.3).

use std::sync::Arc;

use http::{Response, StatusCode};
use tokio::time::timeout;
use zipline_http::Body;
use zipline_protocol::limits::PROGRESS_TIMEOUT;
use zipline_protocol::stock::{REFUSAL_BODY_MAX, is_refusal};
use zipline_protocol::{ErrorCode, PayloadId, header};

use crate::headers;
use crate::peek;
use crate::state::Shared;

/// What a response without or with proof means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A queue-proxy opened the reference and this is the answer.
    Opened(Response<Body>),
    /// Software that does not know Zipline refused it; the function did not run.
    Refused,
    /// A queue-proxy could not open or retrieve; the function did not run.
    Unreachable,
    /// The platform's own error; an inline request would have had it too.
    Platform(Response<Body>),
    /// Anything else: the function may have run.
    Unproven {
        /// The response's status.
        status: StatusCode,
    },
}

/// Judges a response. Of one without proof at most [`REFUSAL_BODY_MAX`] bytes and a frame are read.
pub(super) async fn judge(shared: &Arc<Shared>, payload: &PayloadId, response: Response<Body>) -> Verdict {
    let status = response.status();
    let proof = headers::single(response.headers(), header::OPENED);
    if proof.is_some_and(|proof| shared.keyring.verify_opened(payload, status.as_u16(), proof)) {
        return Verdict::Opened(response);
    }
    if headers::single(response.headers(), header::ERROR) == Some(ErrorCode::ResendInline.as_str()) {
        return Verdict::Unreachable;
    }
    let nosniff = headers::single(response.headers(), "x-content-type-options") == Some("nosniff");
    let (parts, body) = response.into_parts();
    let (start, body) = if nosniff && matches!(status.as_u16(), 400 | 503) {
        match timeout(PROGRESS_TIMEOUT, peek::start(body, REFUSAL_BODY_MAX)).await {
            Ok(read) => read,
            Err(_) => return Verdict::Unproven { status },
        }
    } else {
        (Vec::new(), body)
    };
    if is_refusal(status.as_u16(), nosniff, &start) {
        Verdict::Refused
    } else if is_platform_error(status) {
        Verdict::Platform(Response::from_parts(parts, body))
    } else {
        Verdict::Unproven { status }
    }
}

fn is_platform_error(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 404 | 408 | 413 | 414 | 421 | 429 | 431)
}
