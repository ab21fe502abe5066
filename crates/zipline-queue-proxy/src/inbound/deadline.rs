//! The time limit of a whole request, its response's body included.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use zipline_http::{Body, BodyError, BodyErrorKind};

use crate::config::Config;

/// When a request that arrives now must have ended.
pub(super) fn of(config: &Config) -> Instant {
    Instant::now() + config.request_timeout
}

/// A body that breaks off at the deadline: never ended as if it were complete.
pub(super) fn bound(body: Body, deadline: Instant) -> Body {
    if body.is_end_stream() {
        body
    } else {
        Body::wrap(Bounded { body, sleep: Box::pin(sleep_until(deadline)) })
    }
}

struct Bounded {
    body: Body,
    sleep: Pin<Box<Sleep>>,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending if self.sleep.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Some(Err(BodyError::new(BodyErrorKind::Timeout, TimedOut))))
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the response did not end within the function's timeout")]
struct TimedOut;
