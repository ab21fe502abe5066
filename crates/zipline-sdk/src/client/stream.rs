//! Bodies in pieces, in tasks.

use std::fmt;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use super::Client;
use crate::core::{Core, longest};
use crate::http::{Boxed, Call, Exchanging, Frames, Http, Reading, Running, Step, ours};
use crate::invoke::{self, Body, Content};
use crate::local::BUDGET_BYTES;
use crate::stream::{Arrival, held_already, in_memory, too_short, unreadable};
use crate::{Error, ErrorCode, PutOptions, Reference, Result};

/// What is sent: bytes, a payload that was put, or what a body or reader gives while it is sent.
pub struct StreamBody(Of);

enum Of {
    Whole(Body),
    Pieces(Source, Option<u64>),
}

type Source = Pin<Box<dyn Frames>>;

impl StreamBody {
    /// The frames of a body, trailers included. Its length is known if its size hint is exact.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<Boxed>> + Send + 'static,
    {
        let length = body.size_hint().exact();
        Self(Of::Pieces(Box::pin(body), length))
    }

    /// What a reader gives, to its end. At most 64 KiB of it are kept here at a time.
    pub fn read(reader: impl AsyncRead + Send + 'static) -> Self {
        Self(Of::Pieces(Box::pin(Reading(Box::pin(reader))), None))
    }

    /// Says how many bytes come. So many are read of a reader; fewer are an error. Bytes and payloads have a length already.
    #[must_use]
    pub fn length(mut self, bytes: u64) -> Self {
        if let Of::Pieces(_, length) = &mut self.0 {
            *length = Some(bytes);
        }
        self
    }
}

impl<T: Into<Body>> From<T> for StreamBody {
    fn from(body: T) -> Self {
        Self(Of::Whole(body.into()))
    }
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Of::Whole(body) => f.debug_tuple("StreamBody").field(body).finish(),
            Of::Pieces(_, length) => {
                f.debug_struct("StreamBody").field("length", length).finish_non_exhaustive()
            }
        }
    }
}

impl Client {
    /// Sends a request to a function, and is done as soon as the head of its response is there. Both bodies go on while the response's
    /// is read: neither is ever kept whole, and whoever is slow is waited for.
    ///
    /// The client's timeout bounds each wait in which not one byte moves.
    ///
    /// # Errors
    /// As of [`Self::invoke`], `payload-too-large` aside. `request-invalid` if the body fails (its error is the error's source) or
    /// gives another length than was said.
    /// # Cancel safety
    /// Dropping the future gives the invoke up; the function may run all the same.
    pub fn invoke_stream<B: Into<StreamBody>>(
        &self,
        function: &str,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>>> + Send + use<B> {
        let (client, function) = (self.clone(), self.named(function));
        let (parts, body) = request.into_parts();
        let body = body.into();
        async move {
            let (content, source) = match body.0 {
                Of::Whole(body) => (Content::Whole(body), None),
                Of::Pieces(source, length) => (Content::Pieces(length), Some(source)),
            };
            let call = invoke::call(&function?, parts, content)?;
            client.stream(invoke::reached(client.core.http())?, call, source).await
        }
    }

    /// Puts what a body or reader gives without having all of it here. Of a known length ([`StreamBody::length`]) it is read to where it
    /// is held; of another it is copied through the queue-proxy's HTTP API.
    ///
    /// The client's timeout bounds each wait in which not one byte moves; of a known length the source's own waits are its affair.
    ///
    /// # Errors
    /// As of [`Self::put`]; `request-invalid` if the source fails (its error is the error's source) or gives another length than was said.
    /// # Cancel safety
    /// Dropping the future gives the put up.
    #[track_caller]
    pub fn put_stream<'a>(
        &'a self,
        source: impl Into<StreamBody>,
        options: &'a PutOptions,
    ) -> impl Future<Output = Result<Reference>> + Send + 'a {
        let (call_site, source) = (Location::caller(), source.into());
        async move {
            let put = match source.0 {
                Of::Whole(Body::Bytes(bytes)) => self.put_at(&bytes, options, call_site).await,
                Of::Whole(Body::Payload(_)) => Err(held_already()),
                Of::Pieces(source, length) => self.put_frames(source, length, options, call_site).await,
            };
            put.map_err(|error| error.put_at(Some(call_site)))
        }
    }

    async fn put_frames(
        &self,
        mut source: Source,
        length: Option<u64>,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        options.check()?;
        match (&self.core, length) {
            (Core::Http(http), _) => self.put_pieces(http, source, length, options, call_site).await,
            (Core::Proxy(proxy), None) => {
                self.put_pieces(&proxy.http, source, None, options, call_site).await
            }
            (Core::Local(local), None) => {
                let mut bytes = BytesMut::new();
                // What is longer than can be held is refused as such.
                while bytes.len() as u64 <= BUDGET_BYTES
                    && let Some(piece) = next_piece(&mut source, usize::MAX).await?
                {
                    bytes.put(piece);
                }
                local.put(bytes.freeze(), options, call_site)
            }
            (Core::Local(_) | Core::Proxy(_), Some(length)) => {
                let mut buffer = self.created(in_memory(length)?, options.wait).await?;
                let mut filled = 0;
                while filled < buffer.len() {
                    let most = buffer.len() - filled;
                    let piece = next_piece(&mut source, most).await?.ok_or_else(|| too_short(most))?;
                    let room = buffer.get_mut(filled..filled + piece.len()).ok_or_else(too_long)?;
                    room.copy_from_slice(&piece);
                    filled += piece.len();
                }
                self.put_written(buffer, options, call_site).await
            }
        }
    }

    async fn put_pieces(
        &self,
        http: &Http,
        source: Source,
        length: Option<u64>,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        let call = ours::put(invoke::pieces(length), options)?;
        let running = http.start_sending(call, longest(options.wait, self.timeout))?;
        let answer = Exchanging::new(running, Some(source)).until(Running::advance).await?;
        let (text, life) = ours::held(&answer)?;
        Ok(Reference::made(text.into(), call_site, Some(life)))
    }

    /// Gets a payload that is read while it arrives. It comes through the queue-proxy's HTTP API; one of its retrievals is spent once
    /// all of it was read. Dropping it before gives the retrieval back.
    ///
    /// The client's timeout bounds each wait in which not one byte moves.
    ///
    /// # Errors
    /// As of [`Self::get`]; a payload that breaks off, also later, when it is read, is `payload-lost`.
    pub async fn open(&self, reference: &Reference) -> Result<Incoming> {
        let http = match &self.core {
            Core::Local(local) => return local.get(reference).map(|payload| Incoming::held(&payload)),
            Core::Proxy(proxy) => &proxy.http,
            Core::Http(http) => http,
        };
        let opened = async { self.stream(http, ours::get(reference)?, None).await };
        opened.await.map(Response::into_body).map_err(|error| error.put_at(reference.call_site()))
    }

    async fn stream(&self, http: &Http, call: Call, source: Option<Source>) -> Result<Response<Incoming>> {
        let running = http.start_streaming(call, self.timeout)?;
        let mut exchange = Box::new(Exchanging::new(running, source));
        match exchange.until(Running::step).await? {
            Step::Head(head) => {
                let arrival = Arrival::of(&head);
                Ok(head.response.map(|()| Incoming { arrival, exchange: Some(exchange), told: false }))
            }
            Step::Piece(_) | Step::End(_) => {
                Err(Error::new(ErrorCode::UpstreamFailed, "a response came without its head"))
            }
        }
    }
}

/// The next bytes of a source that are not none; trailers of payloads are nobody's.
async fn next_piece(source: &mut Source, most: usize) -> Result<Option<Bytes>> {
    loop {
        let frame = std::future::poll_fn(|cx| source.as_mut().poll_next(cx, most)).await;
        let Some(frame) = frame.transpose().map_err(unreadable)? else { return Ok(None) };
        match frame.into_data() {
            Ok(piece) if piece.is_empty() => {}
            Ok(piece) => return Ok(Some(piece)),
            Err(_trailers) => return Ok(None),
        }
    }
}

fn too_long() -> Error {
    Error::invalid("the body of the put has more bytes than the length that was said")
}

/// A body that is read while it arrives: of a response ([`Client::invoke_stream`]), or a payload ([`Client::open`]).
///
/// It is an [`http_body::Body`] and an [`AsyncRead`], or [`Self::piece`] takes it. At most some 64 KiB that nobody took are kept
/// here; the sender waits. The request's body goes on while it is waited for. What broke off is an error, and stays one however often it
/// is read. Dropping it ends the exchange and closes its connection, unless it was read to its end.
pub struct Incoming {
    arrival: Arrival,
    exchange: Option<Box<Exchanging>>,
    /// As a body: its trailers, or its error, were given.
    told: bool,
}

impl Incoming {
    fn held(payload: &crate::Payload) -> Self {
        Self { arrival: Arrival::held(payload), exchange: None, told: false }
    }

    /// Its bytes, if their number is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.arrival.length()
    }

    /// Its content type.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.arrival.content_type()
    }

    /// Waits for the next piece, of a size that chance decides; `None` at the end.
    ///
    /// # Errors
    /// It broke off (`upstream-failed`, of a payload `payload-lost`), nothing moved for the client's timeout (`deadline-exceeded`), or
    /// the request's body failed (`request-invalid`).
    /// # Cancel safety
    /// Yes: a piece is taken only when the future is ready.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_settled(cx)).await;
        self.arrival.take()
    }

    /// The trailers, once it has ended.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.arrival.trailers()
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.arrival.is_settled()
            && let Some(exchange) = &mut self.exchange
        {
            let step = ready!(exchange.poll(cx, Running::step));
            if self.arrival.came(step) {
                self.exchange = None;
            }
        }
        Poll::Ready(())
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        ready!(self.poll_settled(cx));
        if self.told {
            return Poll::Ready(None);
        }
        let frame = match self.arrival.take() {
            Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Ok(None) => self.arrival.trailers().filter(|trailers| !trailers.is_empty()).cloned(),
            Err(error) => {
                self.told = true;
                return Poll::Ready(Some(Err(error)));
            }
        };
        self.told = true;
        Poll::Ready(frame.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        let no_trailers = self.arrival.trailers().is_some_and(HeaderMap::is_empty);
        self.arrival.is_over() && (self.told || no_trailers)
    }

    fn size_hint(&self) -> SizeHint {
        self.arrival.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An error of Zipline is the source of the I/O error.
impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if room.remaining() > 0 {
            ready!(self.poll_settled(cx));
            let count = self.arrival.take_into(room.initialize_unfilled())?;
            room.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("arrival", &self.arrival).finish_non_exhaustive()
    }
}
