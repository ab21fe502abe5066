//! The body of a response, read from its connection by whoever polls it.

use super::connection::{Connection, Reader, Writer};
use super::head::Framing;
use super::pool;
use super::upload::Upload;
use crate::body::Body;
use crate::client::Inner;
use crate::client::target::HostPort;
use crate::error::{BodyError, BodyErrorKind};
use crate::http1::chunked::Chunked;
use crate::http1::decode::{Decoded, Decoder};
use crate::http1::fields::HeadLimits;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

type PolledFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// The sending side of the connection.
pub(super) enum Sending {
    /// The request was sent, or nobody takes the rest of it.
    Over(Writer),
    Upload(Upload),
}

/// Where the connection goes when the response is over.
pub(super) struct Home {
    pub(super) inner: Arc<Inner>,
    pub(super) addr: HostPort,
    /// It may serve another request.
    pub(super) keep: bool,
}

/// The body of a response, read from its connection.
pub(crate) struct ResponseBody {
    /// What came with the head.
    first: Bytes,
    decoder: Decoder,
    /// Gone once the body is over; dropped before that, the connection goes with it.
    rest: Option<Rest>,
}

struct Rest {
    reader: Reader,
    sending: Sending,
    home: Home,
}

/// The body that follows a head. One of known length that has come with its head as a whole completes at once: most are small.
pub(super) fn body(
    framing: Framing,
    mut reader: Reader,
    sending: Sending,
    home: Home,
    trailers: HeadLimits,
) -> Body {
    let mut decoder = match framing {
        Framing::Length(length) => Decoder::Length(length),
        Framing::Chunked => Decoder::Chunked(Box::new(Chunked::new(trailers))),
        Framing::Close => Decoder::Close,
    };
    let mut first = Bytes::new();
    // Chunks stay a body of unknown length, however soon they end: that is how it was sent, and trailers may follow.
    if let Decoder::Length(length) = decoder
        && length <= reader.fill.read.len() as u64
        && let Ok(Decoded::Data(data)) = decoder.decode(&mut reader.fill.read)
    {
        first = data;
    }
    let over = decoder.is_over();
    let rest = Rest { reader, sending, home };
    if over {
        rest.complete();
        return Body::full(first);
    }
    Body::of_response(ResponseBody { first, decoder, rest: Some(rest) })
}

impl Rest {
    fn complete(self) {
        let Self { reader, sending, home } = self;
        if !home.keep || !reader.is_clean() {
            return;
        }
        match sending {
            Sending::Over(writer) => pool::put(&home.inner, &home.addr, Connection { reader, writer }),
            Sending::Upload(upload) => upload.finish(reader),
        }
    }

    fn has_failed(&self) -> bool {
        matches!(&self.sending, Sending::Upload(upload) if upload.has_failed())
    }
}

impl ResponseBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            match self.decoder.decode(&mut rest.reader.fill.read) {
                Ok(Decoded::Data(data)) => {
                    if self.decoder.take_end(&mut rest.reader.fill.read) {
                        self.complete();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::End(trailers)) => {
                    self.complete();
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::More) => {}
                Err(why) => return self.broken(why),
            }
            match ready!(rest.reader.poll_fill_long(self.decoder.left(), cx)) {
                Ok(1..) => {}
                Ok(0) if rest.has_failed() => return self.broken("its request broke off"),
                Ok(0) if matches!(self.decoder, Decoder::Close) => {
                    self.rest = None;
                    return Poll::Ready(None);
                }
                Ok(0) => return self.broken("the connection ended before the end of the body"),
                Err(error) => return self.broken(error),
            }
        }
    }

    /// Bytes that [`Self::poll_read`] can bring.
    pub(crate) fn direct(&self) -> u64 {
        match &self.rest {
            Some(rest) if self.first.is_empty() && rest.reader.is_clean() => self.decoder.direct(),
            _ => 0,
        }
    }

    /// Reads the next bytes into `memory`, as long as there are [`Self::direct`] ones.
    pub(crate) fn poll_read(
        &mut self,
        memory: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, BodyError>> {
        let direct = self.direct();
        let (Some(rest), 1..) = (&mut self.rest, direct) else {
            return Poll::Ready(Err(BodyError::new(BodyErrorKind::Upstream, "its body is over")));
        };
        Poll::Ready(match ready!(rest.reader.poll_direct(memory, direct, cx)) {
            Ok(length) => {
                self.decoder.took(length as u64);
                if self.decoder.is_over() {
                    self.complete();
                }
                Ok(length)
            }
            Err(error) => {
                self.rest = None;
                Err(BodyError::new(BodyErrorKind::Upstream, error))
            }
        })
    }

    pub(crate) fn is_end(&self) -> bool {
        self.first.is_empty() && self.rest.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.decoder {
            Decoder::Length(left) => SizeHint::with_exact(left + self.first.len() as u64),
            Decoder::Chunked(_) | Decoder::Close => SizeHint::default(),
        }
    }

    fn complete(&mut self) {
        if let Some(rest) = self.rest.take() {
            rest.complete();
        }
    }

    fn broken(&mut self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PolledFrame {
        self.rest = None;
        Poll::Ready(Some(Err(BodyError::new(BodyErrorKind::Upstream, why))))
    }
}
