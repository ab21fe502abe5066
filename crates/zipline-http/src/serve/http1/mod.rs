//! The HTTP/1.1 server: one request at a time per connection, pipelined ones in their order.
//!
//! It is Zipline's own because hyper's cannot send informational responses, nor trailers to who has not asked for them, and
//! keeps buffers for connections that do nothing. What a request is and means is as strict as before: the grammar is httparse's.
//!
//! | state of a connection | ends with |
//! |---|---|
//! | waiting for a head ([`head`]) | a head; the client's end, a limit of time, the server's end |
//! | handling ([`turn`]) | the handler's response; the client's end, which drops the handler |
//! | responding ([`respond`]) | the end of the body; the client's end, which drops the body; an abort |
//! | finishing ([`finish`]) | the request's body is read; given up with more to come, the connection ends |
//! | closing | the client's end, or [`LINGER`] |
//!
//! # Source
//! RFC 9112; Go's `net/http` server where it leaves a choice.

mod body;
mod core;
mod date;
mod encode;
mod head;
mod patience;
mod respond;

use super::ServeLimits;
use super::check::check;
use super::service::refusal;
use crate::body::Body;
use crate::handler::{Handler, PeerAddr};
use crate::http1::fields::HeadLimits;
use crate::upgrade;
use bytes::Bytes;
use http::{Method, Request, Response, Version};
use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::core::{Reading, Shared, Source};
use encode::Asked;
use head::{Framing, Head, Parsed};
use patience::Patience;
use respond::Responded;

pub use body::Informational;
pub(crate) use body::RequestBody;

/// Longest time a closing connection is read and discarded, so that the client gets the response instead of a reset.
const LINGER: Duration = Duration::from_secs(5);
/// One read of those.
const LINGER_BYTES: usize = 8192;
/// Most fields of a trailer section, however many a head may have: whoever wants to be heard speaks before the body.
const TRAILERS_MAX: usize = 256;

/// Serves a connection whose first bytes are `read`; `since` is when it began.
pub(super) async fn serve<I, H>(
    (io, read): (I, Bytes),
    peer: Option<PeerAddr>,
    handler: H,
    limits: &ServeLimits,
    token: CancellationToken,
    since: Instant,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + Any,
    H: Handler,
{
    let shared = Arc::new(Shared::new(io, read, limits.title_case_headers));
    let mut connection = Connection {
        owned: Owned { shared },
        peer,
        handler,
        limits,
        cancelled: Box::pin(token.clone().cancelled_owned()),
        token,
        patience: Patience::new(since),
    };
    let end = connection.run().await;
    connection.close(end).await;
}

/// How a connection ends.
enum End {
    /// The client is gone, or hears nothing more: at once.
    Drop,
    /// After the last response; `unread`: the client may still be sending.
    Close { unread: bool },
    /// With a sign of failure, since the end of the connection would pass for the end of a body.
    Reset,
    /// It is no longer HTTP.
    Tunnel,
}

struct Connection<'a, I: AsyncRead + AsyncWrite + Unpin + Send + Any, H> {
    owned: Owned<I>,
    peer: Option<PeerAddr>,
    handler: H,
    limits: &'a ServeLimits,
    token: CancellationToken,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    patience: Patience,
}

/// The connection's share of the core: when it goes, the socket goes, whoever still holds a body.
struct Owned<I: AsyncRead + AsyncWrite + Unpin + Send + Any> {
    shared: Arc<Shared<I>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin + Send + Any> Owned<I> {
    fn end(&self) -> Option<I> {
        let (io, reader) = self.shared.core.lock().end();
        if let Some(reader) = reader {
            reader.wake();
        }
        io
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + Send + Any> Drop for Owned<I> {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl<I, H> Connection<'_, I, H>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + Any,
    H: Handler,
{
    async fn run(&mut self) -> End {
        loop {
            let head = match self.head().await {
                Ok(head) => head,
                Err(end) => return end,
            };
            if let Some(end) = self.turn(head).await {
                return end;
            }
            self.patience.idle();
        }
    }

    /// Waits for the next head.
    async fn head(&mut self) -> Result<Box<Head>, End> {
        let limits = self.head_limits();
        let mut seen = 0;
        let refused = {
            let Self { owned, patience, cancelled, limits: serve, .. } = self;
            let core = &owned.shared.core;
            poll_fn(|cx| {
                let mut core = core.lock();
                loop {
                    match head::parse(&mut core.fill.read, seen, limits) {
                        Parsed::Head(head) => return Poll::Ready(Ok(head)),
                        Parsed::Refused(status) => return Poll::Ready(Err(Some(status))),
                        Parsed::Preface => return Poll::Ready(Err(None)),
                        Parsed::Partial => seen = core.fill.read.len(),
                    }
                    match core.poll_fill(cx) {
                        Poll::Ready(Ok(1..)) => patience.head_begun(),
                        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(None)),
                        Poll::Pending => break,
                    }
                }
                let ending = core.fill.read.is_empty() && cancelled.as_mut().poll(cx).is_ready();
                if ending || patience.poll_over(serve, cx).is_ready() {
                    return Poll::Ready(Err(None));
                }
                Poll::Pending
            })
            .await
        };
        match refused {
            Ok(head) => Ok(head),
            Err(None) => Err(End::Drop),
            Err(Some(status)) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status;
                let asked = self.asked(&Request::new(()), false);
                match respond::respond(&self.owned.shared, response, asked, self.limits.half_close).await {
                    Responded::Whole { .. } => Err(End::Close { unread: true }),
                    Responded::Gone | Responded::Aborted { .. } => Err(End::Drop),
                }
            }
        }
    }

    /// One request and its response; how the connection ends, if it ends with them.
    async fn turn(&mut self, head: Box<Head>) -> Option<End> {
        let Head { request, framing, keep_alive, expects, upgrade } = *head;
        let asked = self.asked(&request, keep_alive);
        let (mut request, turn) = self.begin(request, framing, expects);
        let tunnel = upgrade.then(|| upgrade::offer(&mut request));
        let response = match check(&mut request) {
            Err(refused) => {
                // With its body, which nobody reads.
                drop(request);
                refusal(refused, false)
            }
            Ok(()) => match self.handle(request, turn).await {
                Some(response) => response,
                None => return Some(End::Drop),
            },
        };
        let keep_alive = self.may_go_on(asked.keep_alive).await;
        let asked = Asked { keep_alive, ..asked };
        let responded = respond::respond(&self.owned.shared, response, asked, self.limits.half_close).await;
        match responded {
            Responded::Gone => Some(End::Drop),
            Responded::Aborted { reset: true } => Some(End::Reset),
            Responded::Aborted { reset: false } => Some(End::Drop),
            Responded::Whole { tunnel: true, .. } => {
                let read = std::mem::take(&mut self.owned.shared.core.lock().fill.read);
                if let (Some(tunnel), Some(io)) = (tunnel, self.owned.end()) {
                    tunnel.give(read, io);
                }
                Some(End::Tunnel)
            }
            Responded::Whole { keep_alive, .. } => self.finish(keep_alive).await,
        }
    }

    fn begin(&mut self, request: Request<()>, framing: Framing, expects: bool) -> (Request<Body>, u64) {
        let mut core = self.owned.shared.core.lock();
        let limits = self.head_limits();
        let trailers = HeadLimits { fields: limits.fields.min(TRAILERS_MAX), ..limits };
        core.begin(framing, expects, trailers);
        let turn = core.turn;
        let body = if matches!(core.reading, Reading::Done) {
            Body::empty()
        } else if let Some(whole) = core.take_whole() {
            Body::full(whole)
        } else {
            let left = match framing {
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            };
            let source: Arc<dyn Source> = Arc::clone(&self.owned.shared) as _;
            Body::of_request(RequestBody::new(source, turn, left))
        };
        (request.map(|()| body), turn)
    }

    /// Runs the handler, unless the client goes away.
    async fn handle(&self, mut request: Request<Body>, turn: u64) -> Option<Response<Body>> {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        if request.version() == Version::HTTP_11 {
            let source: Arc<dyn Source> = Arc::clone(&self.owned.shared) as _;
            request.extensions_mut().insert(Informational::new(source, turn));
        }
        // On the heap: idle connections should not keep its room, and a handler may serve a connection in its turn.
        let mut handling: Pin<Box<dyn Future<Output = Response<Body>> + Send + '_>> =
            Box::pin(self.handler.handle(request));
        let half_close = self.limits.half_close;
        poll_fn(|cx| {
            if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            self.owned.shared.core.lock().poll_meanwhile(half_close, cx).map(|_gone| None)
        })
        .await
    }

    /// Whether the connection can serve another request after this one: not with a body to come that nobody reads.
    async fn may_go_on(&self, keep_alive: bool) -> bool {
        if !keep_alive || self.token.is_cancelled() {
            return false;
        }
        let core = &self.owned.shared.core;
        poll_fn(|cx| {
            let mut core = core.lock();
            if matches!(core.reading, Reading::Open { given_up: true, .. }) {
                // What came with the head, or right after it, is no reason to close.
                let _ = core.poll_discard(cx);
            }
            Poll::Ready(match core.reading {
                Reading::Done | Reading::Open { given_up: false, .. } => true,
                Reading::Open { given_up: true, .. } | Reading::Broken => false,
            })
        })
        .await
    }

    /// After a response: waits for whoever still reads the request.
    async fn finish(&self, keep_alive: bool) -> Option<End> {
        let core = &self.owned.shared.core;
        let done = poll_fn(|cx| {
            let mut core = core.lock();
            if matches!(core.reading, Reading::Open { given_up: true, .. }) {
                let _ = core.poll_discard(cx);
            }
            match core.reading {
                Reading::Done => Poll::Ready(true),
                Reading::Open { given_up: false, .. } => {
                    core.wait(cx);
                    Poll::Pending
                }
                Reading::Open { .. } | Reading::Broken => Poll::Ready(false),
            }
        })
        .await;
        let unread = !done || !core.lock().fill.read.is_empty();
        (!done || !keep_alive || self.token.is_cancelled() && !unread).then_some(End::Close { unread })
    }

    fn asked<B>(&self, request: &Request<B>, keep_alive: bool) -> Asked {
        Asked {
            http10: request.version() == Version::HTTP_10,
            head: request.method() == Method::HEAD,
            connect: request.method() == Method::CONNECT,
            keep_alive,
            title_case: self.limits.title_case_headers,
        }
    }

    fn head_limits(&self) -> HeadLimits {
        HeadLimits { bytes: self.limits.max_header_bytes, fields: self.limits.max_headers }
    }

    async fn close(&self, end: End) {
        let Some(mut io) = self.owned.end() else { return };
        match end {
            End::Drop | End::Tunnel => {}
            End::Reset => {
                if let Some(stream) = (&io as &dyn Any).downcast_ref::<TcpStream>() {
                    // If it fails the socket is gone already.
                    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                }
            }
            End::Close { unread } => {
                // Closing a socket that holds unread bytes resets it, and a reset can overtake the response.
                if io.shutdown().await.is_ok() && unread {
                    let _ = timeout(LINGER, discard(Pin::new(&mut io))).await;
                }
            }
        }
    }
}

/// Reads to the client's end.
async fn discard<I: AsyncRead + Unpin>(mut io: Pin<&mut I>) {
    // On the heap for this short time, not in every connection.
    let mut scratch = vec![0; LINGER_BYTES];
    while matches!(io.read(&mut scratch).await, Ok(1..)) {}
}
