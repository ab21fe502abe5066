//! Writing a request and reading the head of its response, at the same time.

use super::connection::Connection;
use super::head::{self, Asked, Head, HeadError};
use super::outgoing::Outgoing;
use super::response::{self, Home, Sending};
use super::upload::Upload;
use crate::body::Body;
use crate::client::target::HostPort;
use crate::client::{Inner, SendError};
use crate::hop;
use crate::http1::fields::HeadLimits;
use crate::serve::Informational;
use crate::upgrade;
use http::{Response, StatusCode};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Most fields of a trailer section, however many a head may have.
const TRAILERS_MAX: usize = 256;

/// One request, on whichever connection.
pub(super) struct Exchange<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) addr: &'a HostPort,
    pub(super) asked: Asked,
    pub(super) informational: Option<Informational>,
    pub(super) outgoing: Outgoing,
}

/// No response.
pub(super) struct Failure {
    pub(super) error: SendError,
    /// The peer had said something.
    pub(super) heard: bool,
}

/// What the peer has said so far.
#[derive(Default)]
struct Heard {
    /// Bytes of a partial head.
    seen: usize,
    /// Bytes of informational responses.
    interim: usize,
}

impl Exchange<'_> {
    /// Sends the request on `connection` and gives the response, as soon as its head is there.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(super) async fn run(&mut self, mut connection: Connection) -> Result<Response<Body>, Failure> {
        let mut heard = Heard::default();
        let answered = poll_fn(|cx| self.poll_answer(&mut connection, &mut heard, cx)).await;
        match answered {
            Ok(head) if head.tunnel && !self.outgoing.is_sent() => {
                Err(self.failure("the peer switched protocols in the middle of the request".into(), true))
            }
            Ok(head) if head.tunnel => Ok(tunnel(head, connection)),
            Ok(head) => Ok(self.respond(head, connection)),
            Err(failure) => Err(failure),
        }
    }

    fn poll_answer(
        &mut self,
        connection: &mut Connection,
        heard: &mut Heard,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Failure>> {
        loop {
            let _ = self.outgoing.poll(&mut connection.writer.io, cx);
            if let Some(source) = self.outgoing.take_failure() {
                return Poll::Ready(Err(Failure { error: SendError::RequestBody { source }, heard: true }));
            }
            loop {
                match self.take_head(connection, heard) {
                    Ok(Some(head)) if !is_interim(&head) => return Poll::Ready(Ok(head)),
                    Ok(Some(interim)) => {
                        if self.inform(&interim) {
                            break;
                        }
                    }
                    Ok(None) => {
                        let said = heard.seen + heard.interim > 0;
                        match ready!(connection.reader.poll_fill(cx)) {
                            Ok(1..) => {}
                            Ok(0) => {
                                let end = io::Error::new(io::ErrorKind::UnexpectedEof, "EOF");
                                return Poll::Ready(Err(self.failure(end.into(), said)));
                            }
                            Err(error) => return Poll::Ready(Err(self.failure(error.into(), said))),
                        }
                    }
                    Err(error) => return Poll::Ready(Err(self.failure(error.into(), true))),
                }
            }
        }
    }

    /// The next head, final or not.
    fn take_head(&self, connection: &mut Connection, heard: &mut Heard) -> Result<Option<Head>, HeadError> {
        let read = &mut connection.reader.fill.read;
        let head = head::parse(read, heard.seen, self.asked, self.limits())?;
        match &head {
            Some(head) => {
                heard.seen = 0;
                if is_interim(head) {
                    heard.interim += head.bytes;
                    if heard.interim > self.inner.config.max_header_bytes {
                        return Err(HeadError::TooLong(self.inner.config.max_header_bytes));
                    }
                }
            }
            None => heard.seen = read.len(),
        }
        Ok(head)
    }

    /// Takes note of an informational response; whether the request goes on because of it.
    fn inform(&mut self, interim: &Head) -> bool {
        let status = interim.response.status();
        if status == StatusCode::CONTINUE {
            return self.outgoing.invite();
        }
        if let Some(informational) = &self.informational {
            let mut headers = interim.response.headers().clone();
            hop::strip_response(&mut headers);
            informational.send(status, &headers);
        }
        false
    }

    fn respond(&mut self, head: Head, connection: Connection) -> Response<Body> {
        let Connection { reader, writer } = connection;
        let Head { response, framing, keep_alive, .. } = head;
        let keep = keep_alive && (self.outgoing.is_sent() || !self.outgoing.is_over());
        let sending = if self.outgoing.is_over() {
            Sending::Over(writer)
        } else {
            let outgoing = std::mem::take(&mut self.outgoing);
            Sending::Upload(Upload::spawn(self.inner, self.addr, writer, outgoing))
        };
        let home = Home { inner: Arc::clone(self.inner), addr: self.addr.clone(), keep };
        let limits = self.limits();
        let trailers = HeadLimits { fields: limits.fields.min(TRAILERS_MAX), ..limits };
        let body = response::body(framing, reader, sending, home, trailers);
        response.map(|()| body)
    }

    fn failure(&self, source: Box<dyn std::error::Error + Send + Sync>, heard: bool) -> Failure {
        Failure { error: SendError::BeforeResponse { addr: self.addr.clone(), source }, heard }
    }

    fn limits(&self) -> HeadLimits {
        let config = &self.inner.config;
        HeadLimits { bytes: config.max_header_bytes, fields: config.max_headers }
    }
}

fn is_interim(head: &Head) -> bool {
    head.response.status().is_informational() && !head.tunnel
}

fn tunnel(head: Head, connection: Connection) -> Response<Body> {
    let mut response = head.response.map(|()| Body::empty());
    let offer = upgrade::offer(&mut response);
    if let Some((read, stream)) = connection.into_stream() {
        offer.give(read, stream);
    }
    response
}
