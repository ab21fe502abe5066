//! The time limit of a whole request, its response's body included.

use tokio::time::{Instant, sleep_until};
use zipline_http::{Body, BodyError};

use crate::config::Config;
use crate::cut;

/// When a request that arrives now must have ended.
pub(super) fn of(config: &Config) -> Instant {
    Instant::now() + config.request_timeout
}

/// A body that breaks off at the deadline.
pub(super) fn bound(body: Body, deadline: Instant) -> Body {
    cut::off(body, async move {
        sleep_until(deadline).await;
        BodyError::timeout("the response did not end within the function's timeout")
    })
}
