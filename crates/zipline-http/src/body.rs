//! The one body type that crosses crate borders.

mod channel;

use crate::client::ResponseBody;
use crate::error::{BodyError, BodyErrorKind};
use crate::serve::RequestBody;
use crate::watch::InFlight;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pub use channel::{BodySender, SendClosed};

type Boxed = Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>;

/// A streaming message body: data frames, then at most one trailers frame.
///
/// It is `Send` and `Sync`. It ends (`None`) only if its producer ended it; everything else is a [`BodyError`], after
/// which it is spent.
///
/// # Units and shape
/// Frames have the sizes their producer chose; nothing is re-chunked or copied.
///
/// # Cancel safety
/// [`Body::data`] loses nothing when dropped. Dropping a body tells its producer that nobody reads on.
pub struct Body {
    inner: Inner,
    held: Vec<Mutex<Box<dyn Any + Send>>>,
    /// As `held`, without an allocation: every response has one.
    in_flight: Option<Arc<InFlight>>,
}

enum Inner {
    Empty,
    Full(Bytes),
    Incoming(Box<Received>),
    Request(Box<RequestBody>),
    // The lock, here and below, only makes the type `Sync`; it is never contended.
    Response(Mutex<Box<ResponseBody>>),
    Boxed(Mutex<Boxed>),
    Spent,
}

struct Received {
    incoming: Incoming,
    http2: bool,
}

impl Body {
    /// A body of no bytes.
    pub const fn empty() -> Self {
        Self::of(Inner::Empty)
    }

    const fn of(inner: Inner) -> Self {
        Self { inner, held: Vec::new(), in_flight: None }
    }

    /// A body of known bytes in one frame.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let inner = if bytes.is_empty() { Inner::Empty } else { Inner::Full(bytes) };
        Self::of(inner)
    }

    /// Any other body; its size hint is kept.
    pub fn wrap<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self::of(Inner::Boxed(Mutex::new(Box::pin(IntoBodyError { body }))))
    }

    /// A body that hyper received. Does not poll it, so no `100 Continue` goes out yet.
    pub fn from_incoming(incoming: Incoming) -> Self {
        Self::received(incoming, false)
    }

    pub(crate) fn of_request(body: RequestBody) -> Self {
        Self::of(Inner::Request(Box::new(body)))
    }

    pub(crate) fn of_response(body: ResponseBody) -> Self {
        Self::of(Inner::Response(Mutex::new(Box::new(body))))
    }

    /// The bytes, if they are in memory as a whole and as many as `length`.
    pub(crate) fn take_whole(&mut self, length: u64) -> Option<Bytes> {
        match &mut self.inner {
            Inner::Full(bytes) if bytes.len() as u64 == length => Some(std::mem::take(bytes)),
            _ => None,
        }
    }

    pub(crate) fn received(incoming: Incoming, http2: bool) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self::of(Inner::Incoming(Box::new(Received { incoming, http2 })))
    }

    /// A body of unknown length from a stream of frames. An `Err` item aborts it.
    pub fn from_frames<S>(frames: S) -> Self
    where
        S: Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static,
    {
        Self::wrap(Frames { frames, exact: None })
    }

    /// Like [`Body::from_frames`], announcing `length` bytes. More or fewer bytes abort it.
    pub fn from_frames_sized<S>(length: u64, frames: S) -> Self
    where
        S: Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static,
    {
        Self::wrap(Frames { frames, exact: Some(length) })
    }

    /// A body fed by hand. At most `capacity` frames wait unread; then [`BodySender::send`] waits.
    pub fn channel(capacity: usize) -> (BodySender, Self) {
        channel::channel(capacity)
    }

    /// Keeps `guard` alive until the body has ended, failed or been dropped.
    ///
    /// For things that last as long as the message: a breaker slot, a payload's guard.
    #[must_use]
    pub fn holding<T: Send + 'static>(mut self, guard: T) -> Self {
        self.held.push(Mutex::new(Box::new(guard)));
        self
    }

    pub(crate) fn in_flight(mut self, in_flight: Arc<InFlight>) -> Self {
        self.in_flight = Some(in_flight);
        self
    }

    /// The bytes of a body that is in memory as a whole, without trailers: nothing can go wrong with it any more.
    ///
    /// Whoever wraps bodies to see how they end can skip the wrapping then.
    pub fn whole_length(&self) -> Option<u64> {
        match &self.inner {
            Inner::Empty => Some(0),
            Inner::Full(bytes) => Some(bytes.len() as u64),
            Inner::Incoming(_) | Inner::Request(_) | Inner::Response(_) | Inner::Boxed(_) | Inner::Spent => {
                None
            }
        }
    }

    /// Whether the body has no more frames, as far as is known without polling.
    pub fn is_end(&self) -> bool {
        self.is_end_stream()
    }

    /// Bytes still to come, if known exactly.
    pub fn exact_length(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// The next frame; `None` at the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn data(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await
    }

    /// How many bytes [`Body::read_into`] can bring before the next call of this; 0 where the body has to be taken by
    /// [`Body::data`], e.g. since it does not come from an HTTP/1.1 connection, or some of it has been read already.
    pub fn direct_bytes(&self) -> u64 {
        match &self.inner {
            Inner::Request(request) => request.direct(),
            Inner::Response(response) => response.lock().direct(),
            Inner::Empty | Inner::Full(_) | Inner::Incoming(_) | Inner::Boxed(_) | Inner::Spent => 0,
        }
    }

    /// Reads the next bytes from the connection into `memory`, without a copy in between, and returns how many: at least one,
    /// and not more than [`Body::direct_bytes`], which must not be 0.
    ///
    /// # Errors
    /// As [`Body::data`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_into(&mut self, memory: &mut [u8]) -> Result<usize, BodyError> {
        poll_fn(|cx| self.poll_read(memory, cx)).await
    }

    fn poll_read(&mut self, memory: &mut [u8], cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        let read = ready!(match &mut self.inner {
            Inner::Request(request) => request.poll_read(memory, cx),
            Inner::Response(response) => response.get_mut().poll_read(memory, cx),
            Inner::Empty | Inner::Full(_) | Inner::Incoming(_) | Inner::Boxed(_) | Inner::Spent => {
                Poll::Ready(Err(BodyError::aborted("it cannot be read directly")))
            }
        });
        if read.is_err() || self.is_end_stream() {
            self.end();
        }
        Poll::Ready(read)
    }

    /// Lets everything go that lasts as long as the body.
    fn end(&mut self) {
        self.inner = Inner::Spent;
        self.held.clear();
        self.in_flight = None;
    }

    /// All bytes, in memory. Trailers are dropped.
    ///
    /// # Errors
    /// [`BodyErrorKind::TooLarge`] as soon as the announced length or the bytes read exceed `max_bytes`; else as the body.
    pub async fn collect_up_to(mut self, max_bytes: usize) -> Result<Bytes, BodyError> {
        let too_large = || {
            BodyError::new(BodyErrorKind::TooLarge, format!("more than {max_bytes} bytes announced or sent"))
        };
        if self.size_hint().lower() > max_bytes as u64 {
            return Err(too_large());
        }
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        while let Some(frame) = self.data().await {
            let Ok(data) = frame?.into_data() else { continue };
            if first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len() > max_bytes {
                return Err(too_large());
            }
            if first.is_none() {
                first = Some(data);
            } else {
                rest.extend_from_slice(&data);
            }
        }
        let first = first.unwrap_or_default();
        if rest.is_empty() {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(first.len() + rest.len());
        all.extend_from_slice(&first);
        all.extend_from_slice(&rest);
        Ok(all.freeze())
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.inner {
            Inner::Empty | Inner::Spent => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Incoming(received) => received.poll_frame(cx),
            Inner::Request(request) => {
                request.poll_frame(cx).map(|frame| frame.map(|frame| frame.map(checked)))
            }
            Inner::Response(response) => response.get_mut().poll_frame(cx),
            Inner::Boxed(body) => body.get_mut().as_mut().poll_frame(cx),
        }
    }
}

/// The frame, its trailers without what trailers must not have.
fn checked(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            crate::serve::check_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

impl Received {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        Poll::Ready(match frame {
            // hyper ends a body whose stream was reset with NO_ERROR; only END_STREAM is an end.
            None if self.http2 && !self.incoming.is_end_stream() => {
                Some(Err(BodyError::aborted("stream was reset before its end")))
            }
            other => other.map(|frame| frame.map(checked).map_err(BodyError::from)),
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.poll_inner(cx));
        let over = match &frame {
            None | Some(Err(_)) => true,
            Some(Ok(frame)) => frame.is_trailers() || self.is_end_stream(),
        };
        if over {
            self.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty | Inner::Spent => true,
            Inner::Full(_) => false,
            Inner::Incoming(received) => received.incoming.is_end_stream(),
            Inner::Request(request) => request.is_end(),
            Inner::Response(response) => response.lock().is_end(),
            Inner::Boxed(body) => body.lock().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty | Inner::Spent => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Incoming(received) => received.incoming.size_hint(),
            Inner::Request(request) => request.size_hint(),
            Inner::Response(response) => response.lock().size_hint(),
            Inner::Boxed(body) => body.lock().size_hint(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("exact_length", &self.exact_length()).finish_non_exhaustive()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::full(text)
    }
}

pin_project_lite::pin_project! {
    struct IntoBodyError<B> { #[pin] body: B }
}

impl<B> HttpBody for IntoBodyError<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.project().body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project_lite::pin_project! {
    struct Frames<S> {
        #[pin]
        frames: S,
        exact: Option<u64>,
    }
}

impl<S> HttpBody for Frames<S>
where
    S: Stream<Item = Result<Frame<Bytes>, BodyError>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.project();
        let frame = ready!(this.frames.poll_next(cx));
        if let Some(left) = this.exact {
            match &frame {
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match left.checked_sub(length) {
                        Some(now) => *left = now,
                        None => return Poll::Ready(Some(Err(BodyError::aborted("longer than announced")))),
                    }
                }
                None if *left > 0 => {
                    let why = format!("{left} bytes shorter than announced");
                    return Poll::Ready(Some(Err(BodyError::aborted(why))));
                }
                _ => {}
            }
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
