//! What becomes of a request's body when its response starts first.
//!
//! Over HTTP/1.1 Go's server does not answer while it reads, unless full duplex was asked for: before the head of the
//! response it reads what is left of the request, up to [`DRAIN_MAX`] bytes, and throws it away; with more than that to
//! come the connection closes after the response. Here the function's side of the upload then ends as broken off, never
//! with a hole in it. HTTP/2 is always full duplex.
//!
//! # Source
//! Go's `net/http` server, `chunkWriter.writeHeader`; knative/serving `pkg/queue/sharedmain/handlers.go`, `withFullDuplex`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use zipline_http::{Body, BodyError};

/// Most bytes of a request that are read only to be thrown away.
const DRAIN_MAX: u64 = 256 * 1024;

/// The upload of one request, watched from beside.
#[derive(Debug)]
pub(super) struct Upload {
    state: Arc<Mutex<State>>,
    expects_continue: bool,
}

#[derive(Debug)]
struct State {
    /// `None` once it was taken from the function.
    body: Option<Body>,
    begun: bool,
    ended: bool,
    waker: Option<Waker>,
}

impl Upload {
    /// Puts itself between a body and whoever reads it; `None` for a body that has nothing to read.
    pub(super) fn watch(body: Body, expects_continue: bool) -> (Body, Option<Self>) {
        if body.is_end() {
            return (body, None);
        }
        let state = State { body: Some(body), begun: false, ended: false, waker: None };
        let state = Arc::new(Mutex::new(state));
        let upload = Self { state: Arc::clone(&state), expects_continue };
        (Body::wrap(Watched { state }), Some(upload))
    }

    /// Called before the response's head: whether the connection can serve another request.
    pub(super) async fn settle(self, deadline: Instant) -> bool {
        let (mut body, waker) = {
            let mut state = self.state.lock();
            if state.ended || state.body.as_ref().is_none_or(Body::is_end) {
                return true;
            }
            // Reading now would tell the client to send what nobody wants.
            if self.expects_continue && !state.begun {
                return false;
            }
            let left = state.body.as_ref().and_then(Body::exact_length);
            if left.is_some_and(|left| left >= DRAIN_MAX) {
                return false;
            }
            match state.body.take() {
                Some(body) => (body, state.waker.take()),
                None => return true,
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        timeout_at(deadline, drain(&mut body)).await.unwrap_or(false)
    }
}

/// Whether the body ended within the bound.
async fn drain(body: &mut Body) -> bool {
    let mut read = 0;
    while let Some(frame) = body.data().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len) as u64;
        if read > DRAIN_MAX {
            return false;
        }
    }
    true
}

struct Watched {
    state: Arc<Mutex<State>>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state.lock();
        state.begun = true;
        let Some(body) = &mut state.body else {
            return Poll::Ready(Some(Err(BodyError::aborted(
                "the response started before the request ended",
            ))));
        };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => state.ended = true,
            Poll::Ready(Some(_)) => {}
            Poll::Pending => state.waker = Some(cx.waker().clone()),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.state.lock().body.as_ref().is_some_and(Body::is_end)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.lock();
        state.body.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_read_keeps_the_connection() {
        let (body, upload) = Upload::watch(Body::full("all"), false);
        assert_eq!(body.collect_up_to(10).await.unwrap(), "all");
        assert!(upload.unwrap().settle(soon()).await);
        assert!(Upload::watch(Body::empty(), false).1.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_thrown_away_and_the_function_sees_an_abort() {
        let (sender, body) = Body::channel(4);
        let (mut body, upload) = Upload::watch(body, false);
        sender.send("first".into()).await.unwrap();
        assert!(body.data().await.unwrap().is_ok());
        sender.send("late".into()).await.unwrap();
        sender.finish(None).await.unwrap();
        assert!(upload.unwrap().settle(soon()).await);
        assert!(body.data().await.unwrap().is_err(), "never an end");
    }

    #[tokio::test(start_paused = true)]
    async fn too_much_closes_the_connection() {
        let length = usize::try_from(DRAIN_MAX).unwrap();
        let (mut body, upload) = Upload::watch(Body::full(vec![0; length]), false);
        assert!(!upload.unwrap().settle(soon()).await);
        assert!(body.data().await.unwrap().is_ok(), "the function may still read it");

        let (sender, body) = Body::channel(4);
        let (_body, upload) = Upload::watch(body, false);
        sender.send(vec![0; length].into()).await.unwrap();
        sender.send("one more".into()).await.unwrap();
        assert!(!upload.unwrap().settle(soon()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_was_not_told_to_go_on_is_not_told_so_late() {
        let (sender, body) = Body::channel(4);
        let (_body, upload) = Upload::watch(body, true);
        assert!(!upload.unwrap().settle(soon()).await);
        drop(sender);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stalls_is_not_waited_for_beyond_the_deadline() {
        let (_sender, body) = Body::channel(4);
        let (_body, upload) = Upload::watch(body, false);
        let begun = Instant::now();
        assert!(!upload.unwrap().settle(soon()).await);
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }
}
