//! A body that counts its bytes, keeps things alive until it ends, and tells once how it ended.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use zipline_http::{Body, BodyError};

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Bytes that passed.
    pub(crate) bytes: u64,
    /// From the making of the watch to the end.
    pub(crate) elapsed: Duration,
    /// Whether it ended as a whole; false if it failed or was dropped before.
    pub(crate) whole: bool,
}

/// Wraps `body`: `keep` lives until it ends, fails or is dropped; then `told` is called, once.
pub(crate) fn watch<K: Send + 'static>(
    body: Body,
    keep: K,
    told: impl FnOnce(Ended) + Send + 'static,
) -> Body {
    let whole = body.is_end_stream();
    let expected = body.exact_length();
    let state = State { keep, told, bytes: 0, expected, started: Instant::now(), whole };
    let mut watched = Watched { inner: body, state: Some(state) };
    if whole {
        watched.end();
    }
    Body::wrap(watched)
}

struct State<K, F: FnOnce(Ended)> {
    keep: K,
    told: F,
    bytes: u64,
    expected: Option<u64>,
    started: Instant,
    whole: bool,
}

struct Watched<K, F: FnOnce(Ended)> {
    inner: Body,
    state: Option<State<K, F>>,
}

impl<K, F: FnOnce(Ended)> Watched<K, F> {
    fn end(&mut self) {
        if let Some(State { keep, told, bytes, expected, started, whole }) = self.state.take() {
            drop(keep);
            // A body of known length is not always read past its last byte.
            let whole = whole || expected == Some(bytes);
            told(Ended { bytes, elapsed: started.elapsed(), whole });
        }
    }
}

impl<K, F: FnOnce(Ended)> Drop for Watched<K, F> {
    fn drop(&mut self) {
        self.end();
    }
}

// Nothing in it is ever pinned in place.
impl<K, F: FnOnce(Ended)> Unpin for Watched<K, F> {}

impl<K: Send, F: FnOnce(Ended) + Send> http_body::Body for Watched<K, F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let end_stream = self.inner.is_end_stream();
        if let (Some(state), Poll::Ready(polled)) = (&mut self.state, &polled) {
            match polled {
                Some(Ok(frame)) => {
                    state.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                    // hyper may not poll again once the end of the stream is known.
                    state.whole = end_stream || frame.is_trailers();
                    if state.whole {
                        self.end();
                    }
                }
                Some(Err(_)) => self.end(),
                None => {
                    state.whole = true;
                    self.end();
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    fn watched(body: Body) -> (Body, Arc<Mutex<Vec<Ended>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = {
            let seen = seen.clone();
            move |ended| seen.lock().push(ended)
        };
        (watch(body, (), Box::new(told)), seen)
    }

    #[tokio::test]
    async fn tells_the_whole_once() {
        let (body, seen) = watched(Body::full("12345"));
        assert_eq!(body.collect_up_to(10).await.unwrap(), "12345");
        let seen = seen.lock();
        assert_eq!((seen.len(), seen[0].bytes, seen[0].whole), (1, 5, true));
    }

    #[tokio::test]
    async fn a_dropped_body_is_not_whole() {
        let (body, seen) = watched(Body::full("12345"));
        drop(body);
        let seen = seen.lock();
        assert_eq!((seen.len(), seen[0].whole), (1, false));
    }

    #[tokio::test]
    async fn an_empty_body_is_told_at_once() {
        let (_body, seen) = watched(Body::empty());
        let seen = seen.lock();
        assert_eq!((seen[0].bytes, seen[0].whole), (0, true));
    }
}
