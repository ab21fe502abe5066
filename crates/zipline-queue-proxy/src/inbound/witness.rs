//! Whoever hears what happens to a request on its way to the function.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use zipline_http::SendError;
use zipline_protocol::{InlineReason, PayloadId, Way};

use crate::telemetry::{CallFailure, TransferNote};

/// Hears it; nothing of it may block.
pub(crate) trait Witness: Send + Sync {
    /// The breaker let it in after `waited`; it holds `in_flight` requests now, waiting ones included.
    fn admitted(&self, waited: Duration, in_flight: usize);
    /// It goes to the function now.
    fn calling(&self);
    /// The function's response has begun, or there is none.
    fn answered(&self, answer: Result<StatusCode, CallFailure>);
    /// Its body has passed, or what of it did.
    fn received(&self, bytes: u64);
    /// A payload moved for it, or might have.
    fn transferred(&self, note: TransferNote);
}

/// A witness, if there is one.
pub(crate) type Witnessed = Option<Arc<dyn Witness>>;

/// Tells of the payload of a deferred request.
pub(super) fn retrieved(witness: &Witnessed, payload: &PayloadId, bytes: Option<u64>) {
    if let Some(witness) = witness {
        witness.transferred(TransferNote {
            part: "request",
            way: Way::Network.as_str(),
            reason: None,
            bytes,
            payload: Some(payload.to_text()),
            peer: None,
        });
    }
}

/// Tells of a response whose caller takes a reference: deferred, or inline for a reason.
pub(super) fn responded(witness: &Witnessed, reason: Option<InlineReason>, bytes: Option<u64>) {
    if let Some(witness) = witness {
        let way = if reason.is_some() { Way::Inline } else { Way::Network };
        let reason = reason.map(InlineReason::as_str);
        witness.transferred(TransferNote {
            part: "response",
            way: way.as_str(),
            reason,
            bytes,
            payload: None,
            peer: None,
        });
    }
}

/// A failed exchange in the words of telemetry.
pub(super) fn failure(error: &SendError) -> CallFailure {
    if error.is_connect() { CallFailure::Connect } else { CallFailure::Exchange }
}
