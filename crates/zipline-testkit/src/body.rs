//! Bodies for requests and responses of the fakes.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::mpsc;

use crate::pattern;

/// Why a body broke off.
#[derive(Debug, Clone)]
pub struct BodyError(String);

impl BodyError {
    /// From anything that says why.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BodyError {}

/// The one body type of all fakes.
pub type AnyBody = UnsyncBoxBody<Bytes, BodyError>;

/// No body.
#[must_use]
pub fn empty() -> AnyBody {
    Empty::new().map_err(never).boxed_unsync()
}

/// A body that is there whole.
#[must_use]
pub fn full(content: impl Into<Bytes>) -> AnyBody {
    Full::new(content.into()).map_err(never).boxed_unsync()
}

/// `length` bytes of the pattern `seed`; `known` says whether the length is announced; then `trailers`, if any.
#[must_use]
pub fn generated(seed: u64, length: u64, known: bool, trailers: Option<HeaderMap>) -> AnyBody {
    let first = (length > 0).then(|| Generated::chunk(seed, 0, length));
    Generated { seed, length, offset: 0, first, known, trailers }.boxed_unsync()
}

/// A body whose frames are sent while the exchange runs: up to 16 of them wait. An `Err` aborts the message, the end
/// of the channel ends it cleanly.
#[must_use]
pub fn channel() -> (mpsc::Sender<Result<Frame<Bytes>, BodyError>>, AnyBody) {
    let (sender, receiver) = mpsc::channel(16);
    (sender, Channel(receiver).boxed_unsync())
}

fn never(error: Infallible) -> BodyError {
    match error {}
}

struct Generated {
    seed: u64,
    length: u64,
    offset: u64,
    /// Made before anybody asks, so that a head and its first bytes are not milliseconds apart on a busy machine: that would be
    /// a pause of the sender's.
    first: Option<Bytes>,
    known: bool,
    trailers: Option<HeaderMap>,
}

impl Generated {
    fn chunk(seed: u64, offset: u64, length: u64) -> Bytes {
        let bytes = usize::try_from(pattern::CHUNK_BYTES.min(length - offset)).expect("a chunk is small");
        pattern::bytes(seed, offset, bytes)
    }
}

impl Body for Generated {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.offset < self.length {
            let first = self.first.take();
            let made = first.unwrap_or_else(|| Self::chunk(self.seed, self.offset, self.length));
            self.offset += made.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(made))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.known && self.offset == self.length && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.known { SizeHint::with_exact(self.length - self.offset) } else { SizeHint::default() }
    }
}

struct Channel(mpsc::Receiver<Result<Frame<Bytes>, BodyError>>);

impl Body for Channel {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx)
    }
}
