//! A body that can be cut off from outside.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use zipline_http::{Body, BodyError};

/// Breaks `body` off with the error that `signal` gives: it is never ended as if it were complete.
pub(crate) fn off(body: Body, signal: impl Future<Output = BodyError> + Send + 'static) -> Body {
    if body.whole_length().is_some() {
        body
    } else {
        Body::wrap(CutOff { body, signal: Some(Box::pin(signal)) })
    }
}

struct CutOff {
    body: Body,
    signal: Option<Pin<Box<dyn Future<Output = BodyError> + Send>>>,
}

impl http_body::Body for CutOff {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(signal) = &mut self.signal
            && let Poll::Ready(error) = signal.as_mut().poll(cx)
        {
            self.signal = None;
            return Poll::Ready(Some(Err(error)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn is_broken_off_while_nothing_comes() {
        let (sender, body) = Body::channel(1);
        let mut body = off(body, async {
            sleep(Duration::from_secs(1)).await;
            BodyError::timeout("too late")
        });
        sender.send("first".into()).await.unwrap();
        assert_eq!(body.data().await.unwrap().unwrap().into_data().unwrap(), "first");
        assert!(body.data().await.unwrap().is_err());
        assert!(body.data().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_ends_before_is_whole() {
        let body = off(Body::full("all"), std::future::pending());
        assert_eq!(body.collect_up_to(10).await.unwrap(), "all");
    }
}
