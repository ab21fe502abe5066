//! A request on its way out. Its body is taken frame by frame, each written before the next is asked for: what the peer does not
//! take stays with its producer.
//!
//! | state | ends with |
//! |---|---|
//! | holding back the body | an invitation (`100 Continue`), or the time it is held |
//! | sending | the end of the body |
//! | sent, cut off, failed | – |

use super::encode::{self, Framing};
use crate::body::Body;
use crate::client::SendError;
use crate::error::BodyError;
use crate::http1::pieces::{self, COPY_BYTES};
use crate::http1::{chunked, spare};
use bytes::Bytes;
use http::header::TRAILER;
use http::{HeaderMap, HeaderName, Request};
use http_body::Body as _;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Sleep, sleep};

pub(super) struct Outgoing {
    body: Body,
    framing: Framing,
    title_case: bool,
    /// Fields that may come behind the body.
    announced: Vec<HeaderName>,
    /// What is written now: what goes in front of some data, the data, and what goes behind it.
    front: Vec<u8>,
    data: Bytes,
    behind: &'static [u8],
    written: usize,
    /// These pieces are the last.
    last: bool,
    /// These pieces have the head; on another connection they would be the first, too.
    first: bool,
    /// They have a frame of the body as well, or the end.
    joined: bool,
    held: Option<Pin<Box<Sleep>>>,
    state: State,
}

#[derive(Debug)]
enum State {
    Sending,
    /// To its end.
    Sent,
    /// The peer takes no more. It may have said why.
    CutOff,
    /// The body broke off.
    Failed(Option<BodyError>),
}

/// Nothing to send.
impl Default for Outgoing {
    fn default() -> Self {
        Self {
            body: Body::empty(),
            framing: Framing::Length(0),
            title_case: false,
            announced: Vec::new(),
            front: Vec::new(),
            data: Bytes::new(),
            behind: b"",
            written: 0,
            last: true,
            first: false,
            joined: true,
            held: None,
            state: State::Sent,
        }
    }
}

impl Outgoing {
    /// Encodes the head; with `hold_back` the body waits for [`Self::invite`], at most that long.
    pub(super) fn new(
        request: Request<Body>,
        title_case: bool,
        hold_back: Option<Duration>,
    ) -> Result<Self, SendError> {
        let (mut front, framing) = encode::head(&request, title_case)?;
        let (parts, mut body) = request.into_parts();
        let announced = announced(&parts.headers);
        spare::give(parts.headers);
        let held = hold_back.map(|wait| Box::pin(sleep(wait)));
        let mut data = Bytes::new();
        let mut last = framing == Framing::Length(0);
        if let (Framing::Length(length), None) = (framing, &held)
            && let Some(whole) = body.take_whole(length)
        {
            data = whole;
            last = true;
        }
        if data.len() <= COPY_BYTES {
            front.extend_from_slice(&std::mem::take(&mut data));
        }
        Ok(Self {
            body,
            framing,
            title_case,
            announced,
            front,
            data,
            behind: b"",
            written: 0,
            last,
            first: true,
            joined: last,
            held,
            state: State::Sending,
        })
    }

    /// The peer said `100 Continue`; whether that was waited for.
    pub(super) fn invite(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// Whether nothing was written.
    pub(super) const fn is_untouched(&self) -> bool {
        self.first && self.written == 0
    }

    pub(super) const fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent)
    }

    /// Whether there is nothing left to do, for whatever reason.
    pub(super) const fn is_over(&self) -> bool {
        !matches!(self.state, State::Sending)
    }

    /// Why the body broke off, if it did.
    pub(super) fn take_failure(&mut self) -> Option<BodyError> {
        match &mut self.state {
            State::Failed(error) => error.take(),
            _ => None,
        }
    }

    /// Makes it ready for another connection, if all that was written can be written again: `replayable`, or nothing.
    pub(super) fn rewind(&mut self, replayable: bool) -> bool {
        let again = self.is_untouched() || (self.first && self.last && replayable);
        if again && !matches!(self.state, State::Failed(_)) {
            self.written = 0;
            self.state = State::Sending;
            return true;
        }
        false
    }

    /// Sends on, until nothing is left to do.
    pub(super) fn poll(&mut self, io: &mut OwnedWriteHalf, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_over() {
            if !self.joined && self.written == 0 && self.held.is_none() {
                // What is there already goes out with the head.
                let _ = self.poll_next(cx);
                if self.is_over() {
                    break;
                }
            }
            let pieces = [&self.front[..], &self.data[..], self.behind];
            if ready!(pieces::poll_write(Pin::new(io), pieces, &mut self.written, cx)).is_err() {
                // A peer that answers early and closes makes writing fail while its answer waits to be read. So reading says
                // whether there is a response or an error.
                self.state = State::CutOff;
                if !self.is_untouched() {
                    self.body = Body::empty();
                }
                break;
            }
            if self.last {
                self.state = State::Sent;
                // Whoever waits for the end of the body learns it now.
                self.body = Body::empty();
                break;
            }
            ready!(self.poll_held(cx));
            ready!(self.poll_next(cx));
        }
        Poll::Ready(())
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(held) = &mut self.held {
            ready!(held.as_mut().poll(cx));
            self.held = None;
        }
        Poll::Ready(())
    }

    /// Takes the next frame of the body.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let frame = loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                frame => break frame,
            }
        };
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            None => self.end(None),
            Some(Ok(Ok(data))) => self.data(data),
            Some(Ok(Err(frame))) => self.end(frame.into_trailers().ok()),
            Some(Err(error)) => self.state = State::Failed(Some(error)),
        }
        Poll::Ready(())
    }

    fn data(&mut self, data: Bytes) {
        self.clear();
        let over = self.body.is_end();
        match &mut self.framing {
            Framing::Length(left) => {
                let Some(now) = left.checked_sub(data.len() as u64).filter(|now| *now == 0 || !over) else {
                    return self.mismatch();
                };
                *left = now;
                self.last = now == 0;
            }
            Framing::Chunked => {
                chunked::chunk(&mut self.front, data.len());
                self.behind = if over { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                self.last = over;
            }
        }
        self.data = data;
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        self.clear();
        match self.framing {
            Framing::Length(0) => {}
            Framing::Length(_) => return self.mismatch(),
            Framing::Chunked => {
                let trailers = trailers.map(|trailers| only(&self.announced, &trailers));
                chunked::last_chunk(&mut self.front, trailers.as_ref(), self.title_case);
            }
        }
        self.last = true;
    }

    /// Makes room for the next pieces; a head that has not been written stays in front of them.
    fn clear(&mut self) {
        if self.written > 0 {
            self.front.clear();
            self.first = false;
            self.written = 0;
        }
        self.joined = true;
        self.data = Bytes::new();
        self.behind = b"";
    }

    fn mismatch(&mut self) {
        self.state = State::Failed(Some(BodyError::aborted("it is not as long as it announced")));
    }
}

/// The names in `Trailer`.
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(TRAILER).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// What was announced of `trailers`: nobody has checked the request for anything else.
fn only(announced: &[HeaderName], trailers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in trailers {
        if announced.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// A connection that takes nothing, and says so at once.
    async fn broken() -> TcpStream {
        let (mut near, far) = pair().await;
        socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        near.read(&mut [0]).await.unwrap_err();
        near
    }

    #[tokio::test]
    async fn nothing_is_lost_on_a_connection_that_takes_nothing() {
        for joined in [false, true] {
            let (sender, body) = Body::channel(4);
            let mut request = Request::new(body);
            *request.method_mut() = http::Method::POST;
            let mut outgoing = Outgoing::new(request, false, None).unwrap();
            if joined {
                sender.send(Bytes::from_static(b"abc")).await.unwrap();
            }
            let (_read, mut write) = broken().await.into_split();
            poll_fn(|cx| outgoing.poll(&mut write, cx)).await;
            assert!(outgoing.is_over() && !outgoing.is_sent() && outgoing.rewind(false), "{joined}");
            if !joined {
                sender.send(Bytes::from_static(b"abc")).await.unwrap();
            }
            sender.send(Bytes::from_static(b"de")).await.unwrap();
            sender.finish(None).await.unwrap();
            let (near, mut far) = pair().await;
            let (read, mut write) = near.into_split();
            poll_fn(|cx| outgoing.poll(&mut write, cx)).await;
            assert!(outgoing.is_sent());
            drop((read, write));
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            let body = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
            assert!(text.ends_with(body), "{text:?}");
        }
    }

    #[tokio::test]
    async fn what_was_written_is_not_written_again_unless_it_may_be() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"abc"))), Err(BodyError::aborted("enough"))];
        for (body, replayable, again) in [
            (Body::empty(), true, true),
            (Body::empty(), false, false),
            (Body::from_frames(futures_util::stream::iter(frames)), true, false),
        ] {
            let (near, _far) = pair().await;
            let (_read, mut write) = near.into_split();
            let mut outgoing = Outgoing::new(Request::new(body), false, None).unwrap();
            poll_fn(|cx| outgoing.poll(&mut write, cx)).await;
            assert_eq!(outgoing.rewind(replayable), again);
        }
    }
}
