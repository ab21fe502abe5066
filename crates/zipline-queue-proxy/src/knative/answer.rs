//! The response on its way to the client: its type guessed if it names none, its body ended when its time is over.
//!
//! | state | the next poll gives |
//! |---|---|
//! | running | the function's next frame; over time: *cut* |
//! | cut | the text [`REQUEST_TIMEOUT`] if it fits what was announced: *said*; else *said* at once |
//! | said | nothing yet, so that what was given before goes out first: *over* |
//! | over | the end, and no error |
//!
//! A response that is over time ends cleanly, as Knative has it: clients that read a status before want the body to be
//! readable. One that announced more bytes than come ends short, which closes an HTTP/1.1 connection.
//!
//! # Source
//! knative/serving `pkg/http/handler/timeout.go`; Go's `net/http` server for the media type.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::poll_immediate;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use zipline_http::{Body, BodyError};
use zipline_knative::replies::{REQUEST_TIMEOUT, TEXT_MEDIA_TYPE};

use super::content_type;
use super::passage::Passage;
use super::timeouts::Clock;

/// Frames of a body, read before its head went out.
type Read = VecDeque<Result<Frame<Bytes>, BodyError>>;

/// The 504 of a request that had no response in time.
pub(super) fn timed_out() -> Response<Body> {
    let mut response = Response::new(Body::full(REQUEST_TIMEOUT));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_MEDIA_TYPE));
    response
}

/// Sends a response out under the request's limits; `head`: the request was `HEAD`.
pub(super) async fn finish(
    response: Response<Body>,
    head: bool,
    mut clock: Clock,
    passage: Arc<Passage>,
) -> Response<Body> {
    clock.wrote(Instant::now());
    let (mut parts, mut body) = response.into_parts();
    let mut read = Read::new();
    if !head && is_untyped(parts.status, &parts.headers) && !body.is_end() {
        look_ahead(&mut body, &mut read, clock.due()).await;
        if let Some(media_type) = guess(&read) {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
    }
    passage.responded(parts.status, &parts.headers);
    if body.is_end() && read.is_empty() || head {
        passage.completed();
        return Response::from_parts(parts, body);
    }
    if let (Some(bytes), true) = (body.whole_length(), read.is_empty()) {
        passage.sent(usize::try_from(bytes).unwrap_or(usize::MAX));
        passage.completed();
        return Response::from_parts(parts, body);
    }
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let left = announced.or_else(|| body.exact_length().filter(|_| read.is_empty()));
    let body = Answer { read, body, left, clock, sleep: None, passage: Some(passage), state: State::Running };
    Response::from_parts(parts, Body::wrap(body))
}

/// Whether Go's server would guess the type.
fn is_untyped(status: StatusCode, headers: &HeaderMap) -> bool {
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let encoded = headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.is_empty());
    !bodiless && !encoded && !headers.contains_key(CONTENT_TYPE)
}

/// Reads what the guess needs: of an announced body the first bytes, of any other only what is there already, since its
/// head goes out at once.
async fn look_ahead(body: &mut Body, read: &mut Read, due: Instant) {
    let sized = body.exact_length().is_some();
    let mut bytes = 0;
    while bytes < content_type::LOOKED_AT && !body.is_end() {
        let next = if sized {
            timeout_at(due, body.data()).await.ok()
        } else {
            // Its first bytes often come right after its head.
            tokio::task::yield_now().await;
            poll_immediate(body.data()).await
        };
        match next {
            Some(Some(frame)) => {
                bytes += frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
                let failed = frame.is_err();
                read.push_back(frame);
                if failed || !sized {
                    return;
                }
            }
            Some(None) | None => return,
        }
    }
}

fn guess(read: &Read) -> Option<&'static str> {
    let mut start = Vec::new();
    for data in read.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref()) {
        if start.is_empty() && data.len() >= content_type::LOOKED_AT {
            return Some(content_type::guess(data));
        }
        start.extend_from_slice(&data[..data.len().min(content_type::LOOKED_AT)]);
    }
    (!start.is_empty()).then(|| content_type::guess(&start))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Cut,
    Said,
    Over,
}

struct Answer {
    read: Read,
    body: Body,
    /// Bytes announced and not yet sent; `None`: nothing was announced.
    left: Option<u64>,
    clock: Clock,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Let go at the end.
    passage: Option<Arc<Passage>>,
    state: State,
}

impl Answer {
    fn passed(&mut self, data: &Bytes) {
        self.clock.wrote(Instant::now());
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        if let Some(passage) = &self.passage {
            passage.sent(data.len());
        }
    }

    fn end(&mut self, whole: bool) {
        if let Some(passage) = self.passage.take()
            && whole
        {
            passage.completed();
        }
    }

    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.clock.due();
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
            ready!(sleep.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            // Writes have moved the limit on since the timer was set.
            sleep.as_mut().reset(due);
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.passed(data);
                }
                if frame.is_trailers() || (self.read.is_empty() && self.body.is_end()) {
                    self.end(true);
                }
            }
            Poll::Ready(Some(Err(_))) => self.end(false),
            Poll::Ready(None) => self.end(true),
            Poll::Pending => {
                ready!(self.poll_overdue(cx));
                tracing::warn!("a response did not end within its time limit");
                // The function's side is broken off here, and its slot in the breaker is free.
                self.body = Body::empty();
                self.state = State::Cut;
            }
        }
        polled
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.state == State::Running {
            let polled = self.poll_running(cx);
            if self.state == State::Running {
                return polled;
            }
        }
        match self.state {
            State::Cut => {
                self.state = State::Said;
                let text = Bytes::from_static(REQUEST_TIMEOUT.as_bytes());
                // Go's server refuses a write that does not fit as a whole.
                if self.left.is_none_or(|left| left >= text.len() as u64) {
                    self.passed(&text);
                    return Poll::Ready(Some(Ok(Frame::data(text))));
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            State::Said => {
                self.state = State::Over;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            State::Running | State::Over => {
                self.end(false);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Running => self.read.is_empty() && self.body.is_end(),
            State::Over => true,
            State::Cut | State::Said => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeouts::Timeouts;
    use super::*;
    use std::time::Duration;

    fn clock(whole: u64, idle: u64) -> Clock {
        let idle = (idle > 0).then(|| Duration::from_secs(idle));
        let limits = Timeouts { whole: Duration::from_secs(whole), response_start: None, idle };
        Clock::start(limits, Instant::now())
    }

    async fn finished(response: Response<Body>, clock: Clock) -> Response<Body> {
        let passage = Passage::begin(&Arc::default(), false, Instant::now(), None);
        finish(response, false, clock, passage).await
    }

    fn typed(body: Body) -> Response<Body> {
        Response::builder().header("content-type", "a/b").body(body).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_started_response_ends_with_the_text_and_without_an_error() {
        let (sender, body) = Body::channel(4);
        sender.send("begun ".into()).await.unwrap();
        let begun = Instant::now();
        let response = finished(typed(body), clock(10, 0)).await;
        let body = response.into_body().collect_up_to(100).await.unwrap();
        assert_eq!(body, "begun request timeout");
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        sender.closed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_length_is_never_exceeded() {
        for (length, wanted) in [(100, "begun request timeout"), (20, "begun ")] {
            let (sender, body) = Body::channel(4);
            sender.send("begun ".into()).await.unwrap();
            let mut response = typed(body);
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            let mut body = finished(response, clock(10, 0)).await.into_body();
            let mut all = Vec::new();
            while let Some(frame) = body.data().await {
                all.extend_from_slice(frame.unwrap().data_ref().unwrap());
            }
            assert_eq!(String::from_utf8(all).unwrap(), wanted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_write_restarts_idle() {
        let (sender, body) = Body::channel(4);
        let begun = Instant::now();
        let writes = async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                sender.send(".".into()).await.unwrap();
            }
            sender.closed().await;
        };
        let reads = async {
            let response = finished(typed(body), clock(60, 5)).await;
            response.into_body().collect_up_to(100).await.unwrap()
        };
        let (body, ()) = tokio::join!(reads, writes);
        assert_eq!(body, "...request timeout");
        assert_eq!(begun.elapsed(), Duration::from_secs(17));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_stays_one() {
        let (sender, body) = Body::channel(4);
        sender.send("begun".into()).await.unwrap();
        drop(sender);
        let response = finished(typed(body), clock(10, 0)).await;
        assert!(response.into_body().collect_up_to(100).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_type_is_guessed_where_go_does() {
        let plain = || Response::new(Body::full("<html>"));
        let response = finished(plain(), clock(10, 0)).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(response.into_body().collect_up_to(100).await.unwrap(), "<html>");

        let mut encoded = plain();
        encoded.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(!finished(encoded, clock(10, 0)).await.headers().contains_key(CONTENT_TYPE));
        let empty = finished(Response::new(Body::empty()), clock(10, 0)).await;
        assert!(!empty.headers().contains_key(CONTENT_TYPE));
        // The head of a stream is not held back for its first bytes.
        let (_sender, body) = Body::channel(4);
        let streamed = finished(Response::new(body), clock(10, 0)).await;
        assert!(!streamed.headers().contains_key(CONTENT_TYPE));
    }
}
