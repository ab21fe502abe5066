//! The time limit of a whole request, its response's body included.

use tokio::time::{Instant, sleep_until, timeout_at};
use zipline_http::{Body, BodyError};

use crate::config::Config;
use crate::cut;

/// When a request that arrives now must have ended.
pub(super) fn of(config: &Config) -> Instant {
    Instant::now() + config.request_timeout
}

/// What `work` gives, or `None` at the deadline.
pub(super) async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// A body that breaks off at the deadline, if there is one.
pub(super) fn bound(body: Body, deadline: Option<Instant>) -> Body {
    let Some(deadline) = deadline else { return body };
    cut::off(body, async move {
        sleep_until(deadline).await;
        BodyError::timeout("the response did not end within the function's timeout")
    })
}
