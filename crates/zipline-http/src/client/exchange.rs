//! The two bodies of one exchange over HTTP/2 and what each needs to know of the other.

use crate::body::Body;
use crate::error::{BodyError, BodyErrorKind};
use bytes::Bytes;
use futures_util::stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

/// Shared by the request body (in hyper's hands) and the response body (in the caller's).
#[derive(Debug, Default)]
pub(super) struct Exchange {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sent: bool,
    abandoned: bool,
    failure: Option<BodyError>,
    waker: Option<Waker>,
}

impl Exchange {
    /// Nobody wants the response any more: what is left of the request body becomes an abort.
    pub(super) fn abandon(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.abandoned = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the request body was taken to its end.
    pub(super) fn request_sent(&self) -> bool {
        self.state.lock().sent
    }

    /// Why the request body failed, if it did.
    pub(super) fn request_failure(&self) -> Option<BodyError> {
        self.state.lock().failure.take()
    }
}

/// The request body as hyper reads it.
struct RequestBody {
    body: Body,
    exchange: Arc<Exchange>,
}

/// Wraps a request body.
pub(super) fn request_body(body: Body, exchange: &Arc<Exchange>) -> Body {
    if body.is_end() {
        exchange.state.lock().sent = true;
        return body;
    }
    Body::wrap(RequestBody { body, exchange: Arc::clone(exchange) })
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        {
            let mut state = this.exchange.state.lock();
            if state.abandoned {
                return Poll::Ready(Some(Err(BodyError::aborted("the response is no longer wanted"))));
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let mut state = this.exchange.state.lock();
        match frame {
            None => state.sent = true,
            Some(Ok(ref frame)) => state.sent = frame.is_trailers() || this.body.is_end(),
            Some(Err(error)) => {
                let copy = BodyError::new(error.kind(), crate::error::chain(&error));
                state.failure = Some(error);
                return Poll::Ready(Some(Err(copy)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What becomes of the connection when the response is over. Exactly one of the two is called, once.
pub(super) trait Finish: Send + Unpin + 'static {
    /// The response was read to its end.
    fn complete(self, request_sent: bool);
    /// The response was dropped or broke off.
    fn give_up(self);
}

/// The response body as the caller reads it.
struct ResponseBody<F: Finish> {
    incoming: Incoming,
    exchange: Arc<Exchange>,
    finish: Option<F>,
    /// A frame that was there with the head.
    first: Option<Frame<Bytes>>,
}

/// Wraps a response body. One that is already over, or is there as a whole, completes at once: most are small and come with
/// their head.
pub(super) async fn response_body<F: Finish>(incoming: Incoming, exchange: Arc<Exchange>, finish: F) -> Body {
    if incoming.is_end_stream() {
        complete(&exchange, finish);
        return Body::empty();
    }
    let mut body = ResponseBody { incoming, exchange, finish: Some(finish), first: None };
    let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
    match first {
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            // Its connection was given back with its last frame.
            Ok(data) if body.finish.is_none() => return Body::full(data),
            Ok(data) => body.first = Some(Frame::data(data)),
            Err(trailers) => body.first = Some(trailers),
        },
        Poll::Ready(Some(Err(error))) => return Body::from_frames(stream::iter([Err(error)])),
        Poll::Ready(None) => return Body::empty(),
        Poll::Pending => {}
    }
    Body::wrap(body)
}

fn complete<F: Finish>(exchange: &Exchange, finish: F) {
    finish.complete(exchange.request_sent());
}

impl<F: Finish> HttpBody for ResponseBody<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let frame = match ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
            // hyper ends a body whose stream was reset with NO_ERROR; only END_STREAM is an end.
            None if !this.incoming.is_end_stream() => {
                Some(Err(BodyError::new(BodyErrorKind::Upstream, "stream was reset before its end")))
            }
            other => other.map(|frame| {
                frame.map_err(|error| BodyError::new(BodyErrorKind::Upstream, crate::error::chain(&error)))
            }),
        };
        match &frame {
            Some(Err(_)) => {
                if let Some(finish) = this.finish.take() {
                    this.exchange.abandon();
                    finish.give_up();
                }
            }
            Some(Ok(frame)) if !frame.is_trailers() && !this.incoming.is_end_stream() => {}
            _ => {
                if let Some(finish) = this.finish.take() {
                    complete(&this.exchange, finish);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.incoming.size_hint();
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        match left.exact() {
            Some(left) => SizeHint::with_exact(left + first),
            None => left,
        }
    }
}

impl<F: Finish> Drop for ResponseBody<F> {
    fn drop(&mut self) {
        if let Some(finish) = self.finish.take() {
            self.exchange.abandon();
            finish.give_up();
        }
    }
}
