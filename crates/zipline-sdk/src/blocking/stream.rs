//! Bodies in pieces, in the thread that waits for them.

use std::fmt;
use std::io::{self, Read};
use std::panic::Location;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::Client;
use crate::core::{Core, longest};
use crate::http::{Call, Http, Running, Step, drive, ours};
use crate::invoke::{self, Body, Content};
use crate::local::BUDGET_BYTES;
use crate::stream::{Arrival, held_already, in_memory, too_short, unreadable};
use crate::{Error, ErrorCode, PutOptions, Reference, Result};

/// What is sent: bytes, a payload that was put, or what a reader gives while it is sent.
pub struct StreamBody<'b>(Of<'b>);

enum Of<'b> {
    Whole(Body),
    Read(Reader<'b>, Option<u64>),
}

type Reader<'b> = Box<dyn Read + Send + 'b>;

impl<'b> StreamBody<'b> {
    /// What a reader gives, to its end. At most 64 KiB of it are kept here at a time.
    ///
    /// It is read by the thread that waits for the response, as soon as its connection takes more and nothing has come: a reader that
    /// waits for something that only the response tells belongs into a task of the async client.
    pub fn read(reader: impl Read + Send + 'b) -> Self {
        Self(Of::Read(Box::new(reader), None))
    }

    /// Says how many bytes the reader gives. So many are read of it; fewer are an error. Bytes and payloads have a length already.
    #[must_use]
    pub fn length(mut self, bytes: u64) -> Self {
        if let Of::Read(_, length) = &mut self.0 {
            *length = Some(bytes);
        }
        self
    }
}

impl<T: Into<Body>> From<T> for StreamBody<'_> {
    fn from(body: T) -> Self {
        Self(Of::Whole(body.into()))
    }
}

impl fmt::Debug for StreamBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Of::Whole(body) => f.debug_tuple("StreamBody").field(body).finish(),
            Of::Read(_, length) => {
                f.debug_struct("StreamBody").field("length", length).finish_non_exhaustive()
            }
        }
    }
}

impl Client {
    /// Sends a request to a function, and returns as soon as the head of its response is there. Both bodies go on while the response's
    /// is read: neither is ever kept whole, and whoever is slow is waited for.
    ///
    /// The client's timeout bounds each wait in which not one byte moves.
    ///
    /// # Errors
    /// As of [`Self::invoke`], `payload-too-large` aside. `request-invalid` if the body's reader fails (which is the error's source) or
    /// gives less than was said.
    pub fn invoke_stream<'b, B: Into<StreamBody<'b>>>(
        &self,
        function: &str,
        request: Request<B>,
    ) -> Result<Response<Incoming<'b>>> {
        let (parts, body) = request.into_parts();
        let (content, source) = match body.into().0 {
            Of::Whole(body) => (Content::Whole(body), None),
            Of::Read(reader, length) => (Content::Pieces(length), Some(reader)),
        };
        let call = invoke::call(&self.named(function)?, parts, content)?;
        self.stream(invoke::reached(self.core.http())?, call, source)
    }

    /// Puts what a reader gives without having all of it here. Of a known length ([`StreamBody::length`]) it is read to where it is
    /// held; of another it is copied through the queue-proxy's HTTP API.
    ///
    /// The client's timeout bounds each wait in which not one byte moves.
    ///
    /// # Errors
    /// As of [`Self::put`]; `request-invalid` if the reader fails (which is the error's source) or gives less than was said.
    #[track_caller]
    pub fn put_stream<'b>(
        &self,
        source: impl Into<StreamBody<'b>>,
        options: &PutOptions,
    ) -> Result<Reference> {
        let call_site = Location::caller();
        let put = match source.into().0 {
            Of::Whole(Body::Bytes(bytes)) => self.put_at(&bytes, options, call_site),
            Of::Whole(Body::Payload(_)) => Err(held_already()),
            Of::Read(reader, length) => self.put_read(reader, length, options, call_site),
        };
        put.map_err(|error| error.put_at(Some(call_site)))
    }

    fn put_read(
        &self,
        mut reader: Reader<'_>,
        length: Option<u64>,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        options.check()?;
        match (&self.core, length) {
            (Core::Http(http), _) => self.put_pieces(http, reader, length, options, call_site),
            (Core::Proxy(proxy), None) => self.put_pieces(&proxy.http, reader, None, options, call_site),
            (Core::Local(local), None) => {
                let mut bytes = Vec::new();
                // One more than can be held: what is longer is refused as such.
                reader.take(BUDGET_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
                local.put(bytes.into(), options, call_site)
            }
            (Core::Local(_) | Core::Proxy(_), Some(length)) => {
                let mut buffer = self.created(in_memory(length)?, options.wait)?;
                let mut filled = 0;
                while filled < buffer.len() {
                    match reader.read(&mut buffer[filled..]) {
                        Ok(0) => return Err(too_short(buffer.len() - filled)),
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(unreadable(error)),
                    }
                }
                self.put_written(buffer, options, call_site)
            }
        }
    }

    fn put_pieces(
        &self,
        http: &Http,
        mut reader: Reader<'_>,
        length: Option<u64>,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        let call = ours::put(invoke::pieces(length), options)?;
        let mut running = http.start_sending(call, longest(options.wait, self.timeout))?;
        let answer = drive(&mut running, Some(&mut *reader), self.interrupted, Running::advance)?;
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
    pub fn open(&self, reference: &Reference) -> Result<Incoming<'static>> {
        let http = match &self.core {
            Core::Local(local) => return local.get(reference).map(|payload| Incoming::held(&payload)),
            Core::Proxy(proxy) => &proxy.http,
            Core::Http(http) => http,
        };
        let opened = ours::get(reference).and_then(|call| self.stream(http, call, None));
        opened.map(Response::into_body).map_err(|error| error.put_at(reference.call_site()))
    }

    fn stream<'b>(
        &self,
        http: &Http,
        call: Call,
        source: Option<Reader<'b>>,
    ) -> Result<Response<Incoming<'b>>> {
        let running = Box::new(http.start_streaming(call, self.timeout)?);
        let mut flow = Flow { running, source, interrupted: self.interrupted };
        match flow.step()? {
            Step::Head(head) => {
                let arrival = Arrival::of(&head);
                Ok(head.response.map(|()| Incoming { arrival, flow: Some(flow) }))
            }
            Step::Piece(_) | Step::End(_) => {
                Err(Error::new(ErrorCode::UpstreamFailed, "a response came without its head"))
            }
        }
    }
}

/// Both directions of an exchange.
struct Flow<'b> {
    running: Box<Running>,
    source: Option<Reader<'b>>,
    interrupted: Option<fn() -> bool>,
}

impl Flow<'_> {
    fn step(&mut self) -> Result<Step> {
        self.running.wait_anew();
        let source = self.source.as_mut().map(|reader| &mut **reader as &mut (dyn Read + Send));
        drive(&mut self.running, source, self.interrupted, Running::step)
    }
}

/// A body that is read while it arrives: of a response ([`Client::invoke_stream`]), or a payload ([`Client::open`]).
///
/// At most some 64 KiB that nobody took are kept here; the sender waits. What broke off is an error, and stays one however often it is
/// read. Dropping it ends the exchange and closes its connection, unless it was read to its end.
pub struct Incoming<'b> {
    arrival: Arrival,
    flow: Option<Flow<'b>>,
}

impl Incoming<'_> {
    fn held(payload: &crate::Payload) -> Self {
        Self { arrival: Arrival::held(payload), flow: None }
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
    pub fn piece(&mut self) -> Result<Option<Bytes>> {
        self.wait();
        self.arrival.take()
    }

    /// The trailers, once it has ended.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.arrival.trailers()
    }

    fn wait(&mut self) {
        while !self.arrival.is_settled()
            && let Some(flow) = &mut self.flow
        {
            if self.arrival.came(flow.step()) {
                self.flow = None;
            }
        }
    }
}

/// An error of Zipline is the source of the I/O error.
impl Read for Incoming<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if !room.is_empty() {
            self.wait();
        }
        self.arrival.take_into(room).map_err(Into::into)
    }
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("arrival", &self.arrival).finish_non_exhaustive()
    }
}
