//! What a connection, its requests' bodies and whoever sends informational responses share.
//!
//! A request's body is read by whoever polls it, straight from the socket: no task between, and no buffer of its own. The
//! connection reads while no body is open. One lock guards both; with one reactor it is never contended.

use super::encode;
use super::head::Framing;
use crate::error::{BodyError, BodyErrorKind};
use crate::http1::chunked::Chunked;
use crate::http1::decode::{Decoded, Decoder};
use crate::http1::fields::HeadLimits;
use crate::http1::fill::Fill;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Frames of an unwanted body that are read so that the connection can go on.
const DISCARD_FRAMES: usize = 8;
/// Informational responses that a client has not taken, in bytes; further ones are dropped.
const INFORMATIONAL_MAX: usize = 64 * 1024;

/// A frame of a request's body, as it is polled.
pub(crate) type PolledFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// Where the body of a request comes from. A *turn* is one request and its response.
pub(crate) trait Source: Send + Sync {
    /// The next frame of the body of `turn`.
    fn poll_frame(&self, turn: u64, cx: &mut Context<'_>) -> PolledFrame;
    /// Bytes of the body of `turn` that [`Self::poll_read`] can bring.
    fn direct(&self, turn: u64) -> u64;
    /// Reads the next bytes of the body of `turn` into `memory`, as long as there are [`Self::direct`] ones.
    fn poll_read(&self, turn: u64, memory: &mut [u8], cx: &mut Context<'_>)
    -> Poll<Result<usize, BodyError>>;
    /// Nobody reads the body of `turn` any more.
    fn give_up(&self, turn: u64);
    /// Sends an informational response in `turn`, unless its response has begun.
    fn inform(&self, turn: u64, status: StatusCode, headers: &HeaderMap);
}

/// The body of the current turn.
#[derive(Debug)]
pub(super) enum Reading {
    /// Read to its end, or there is none.
    Done,
    Open {
        decoder: Decoder,
        /// The client waits to be told to send it.
        expects: bool,
        /// Nobody reads it.
        given_up: bool,
    },
    /// It broke off; what follows has no meaning.
    Broken,
}

pub(super) struct Core<I> {
    /// `None` once the connection has ended or has become a tunnel.
    pub(super) io: Option<I>,
    pub(super) fill: Fill,
    pub(super) reading: Reading,
    pub(super) turn: u64,
    /// The response of this turn has begun.
    pub(super) responding: bool,
    /// Goes out before anything else.
    pub(super) out: Vec<u8>,
    title_case: bool,
    /// Whoever reads the body.
    reader: Option<Waker>,
    /// The connection, while it waits for something that others do here.
    owner: Option<Waker>,
}

pub(super) struct Shared<I> {
    pub(super) core: Mutex<Core<I>>,
}

impl<I> Shared<I> {
    pub(super) fn new(io: I, read: Bytes, title_case: bool) -> Self {
        Self {
            core: Mutex::new(Core {
                io: Some(io),
                fill: Fill::new(read),
                reading: Reading::Done,
                turn: 0,
                responding: false,
                out: Vec::new(),
                title_case,
                reader: None,
                owner: None,
            }),
        }
    }
}

/// What the connection learns while a handler or a response's body has the word.
pub(super) enum Meanwhile {
    /// The client is gone.
    Gone,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Core<I> {
    /// Begins a turn with the body that its head announces.
    pub(super) fn begin(&mut self, framing: Framing, expects: bool, limits: HeadLimits) {
        self.turn += 1;
        self.responding = false;
        let decoder = match framing {
            Framing::Length(0) => {
                self.reading = Reading::Done;
                return;
            }
            Framing::Length(length) => Decoder::Length(length),
            Framing::Chunked => Decoder::Chunked(Box::new(Chunked::new(limits))),
        };
        self.reading = Reading::Open { decoder, expects, given_up: false };
    }

    /// The whole body, if it came with its head and the client does not wait for an answer to that.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        let Reading::Open { decoder: Decoder::Length(length), expects: false, .. } = &self.reading else {
            return None;
        };
        let length = usize::try_from(*length).ok().filter(|length| *length <= self.fill.read.len())?;
        self.reading = Reading::Done;
        Some(self.fill.read.split_to(length))
    }

    pub(super) fn is_current(&self, turn: u64) -> bool {
        self.turn == turn && self.io.is_some()
    }

    /// Reads on; 0 bytes are the client's end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(0)) };
        self.fill.poll(Pin::new(io), cx)
    }

    /// Writes what goes out before anything else.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
            match ready!(Pin::new(io).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.out.drain(..written)),
            }
        }
        self.out = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Whether the client is still there, as far as it can be known while the connection has nothing else to do.
    pub(super) fn poll_meanwhile(&mut self, half_close: bool, cx: &mut Context<'_>) -> Poll<Meanwhile> {
        if !self.out.is_empty()
            && let Poll::Ready(Err(_)) = self.poll_out(cx)
        {
            return Poll::Ready(Meanwhile::Gone);
        }
        self.wait(cx);
        let watch = !half_close && self.fill.read.is_empty() && matches!(self.reading, Reading::Done);
        match if watch { self.poll_fill(cx) } else { Poll::Pending } {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Meanwhile::Gone),
            // The next request, if any came. It is looked at when this one is over.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Has the connection woken when others change something here.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>) {
        if !self.owner.as_ref().is_some_and(|owner| owner.will_wake(cx.waker())) {
            self.owner = Some(cx.waker().clone());
        }
    }

    /// What is to be woken, after the lock was given back.
    fn owner(&mut self) -> Option<Waker> {
        self.owner.take()
    }

    /// Ends everything but the socket, which is given back.
    pub(super) fn end(&mut self) -> (Option<I>, Option<Waker>) {
        if matches!(self.reading, Reading::Open { .. }) {
            self.reading = Reading::Broken;
        }
        (self.io.take(), self.reader.take())
    }

    /// Reads what is left of a body that nobody wants, as far as it is there.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..DISCARD_FRAMES {
            let frame = ready!(self.poll_body(cx));
            if !matches!(frame, Some(Ok(_))) || !matches!(self.reading, Reading::Open { .. }) {
                break;
            }
        }
        Poll::Ready(())
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        loop {
            let Reading::Open { decoder, .. } = &mut self.reading else { return Poll::Ready(None) };
            match decoder.decode(&mut self.fill.read) {
                Ok(Decoded::Data(data)) => {
                    if decoder.is_over() {
                        self.reading = Reading::Done;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::End(trailers)) => {
                    self.reading = Reading::Done;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::More) => {}
                Err(why) => return self.broken(BodyError::aborted(why)),
            }
            let left = decoder.left();
            let filled = match &mut self.io {
                Some(io) => ready!(self.fill.poll_long(Pin::new(io), left, cx)),
                None => Ok(0),
            };
            match filled {
                Ok(1..) => {}
                Ok(0) => {
                    let why = "the connection ended before the end of the body";
                    return self.broken(BodyError::aborted(why));
                }
                Err(error) => return self.broken(BodyError::new(BodyErrorKind::Aborted, error)),
            }
        }
    }

    fn direct(&self) -> u64 {
        match &self.reading {
            // Who waits to be told gets that with the first frame.
            Reading::Open { decoder, expects: false, .. } if self.fill.read.is_empty() => decoder.direct(),
            _ => 0,
        }
    }

    fn poll_read(&mut self, memory: &mut [u8], cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        let direct = self.direct();
        let (Reading::Open { decoder, .. }, Some(io), 1..) = (&mut self.reading, &mut self.io, direct) else {
            return Poll::Ready(Err(BodyError::aborted("the connection has ended")));
        };
        Poll::Ready(match ready!(self.fill.poll_direct(Pin::new(io), memory, direct, cx)) {
            Ok(length) => {
                decoder.took(length as u64);
                if decoder.is_over() {
                    self.reading = Reading::Done;
                }
                Ok(length)
            }
            Err(error) => {
                self.reading = Reading::Broken;
                Err(BodyError::new(BodyErrorKind::Aborted, error))
            }
        })
    }

    fn broken(&mut self, error: BodyError) -> PolledFrame {
        self.reading = Reading::Broken;
        Poll::Ready(Some(Err(error)))
    }

    /// Tells the client to send its body, if it waits for that.
    fn invite(&mut self) {
        let Reading::Open { expects, .. } = &mut self.reading else { return };
        if std::mem::take(expects) && !self.responding {
            self.out.extend_from_slice(CONTINUE);
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + Send> Source for Shared<I> {
    fn poll_frame(&self, turn: u64, cx: &mut Context<'_>) -> PolledFrame {
        let mut core = self.core.lock();
        if !core.is_current(turn) || matches!(core.reading, Reading::Broken) {
            return Poll::Ready(Some(Err(BodyError::aborted("the connection has ended"))));
        }
        core.invite();
        if !core.out.is_empty() {
            // If it cannot be written, reading says so.
            let _ = core.poll_out(cx);
        }
        let polled = core.poll_body(cx);
        after_reading(core, polled.is_pending(), cx);
        polled
    }

    fn direct(&self, turn: u64) -> u64 {
        let core = self.core.lock();
        if core.is_current(turn) { core.direct() } else { 0 }
    }

    fn poll_read(
        &self,
        turn: u64,
        memory: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, BodyError>> {
        let mut core = self.core.lock();
        if !core.is_current(turn) {
            return Poll::Ready(Err(BodyError::aborted("the connection has ended")));
        }
        let polled = core.poll_read(memory, cx);
        after_reading(core, polled.is_pending(), cx);
        polled
    }

    fn give_up(&self, turn: u64) {
        let owner = {
            let mut core = self.core.lock();
            if core.turn != turn {
                return;
            }
            let Reading::Open { given_up, .. } = &mut core.reading else { return };
            *given_up = true;
            core.owner()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    fn inform(&self, turn: u64, status: StatusCode, headers: &HeaderMap) {
        let owner = {
            let mut core = self.core.lock();
            if !core.is_current(turn) || core.responding || core.out.len() > INFORMATIONAL_MAX {
                return;
            }
            let bytes = encode::informational(status, headers, core.title_case);
            core.out.extend_from_slice(&bytes);
            core.owner()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

/// Has whoever reads woken for more, or the connection because there is none.
fn after_reading<I: AsyncRead + AsyncWrite + Unpin>(
    mut core: MutexGuard<'_, Core<I>>,
    pending: bool,
    cx: &mut Context<'_>,
) {
    if pending {
        core.reader = Some(cx.waker().clone());
    }
    let owner = if matches!(core.reading, Reading::Open { .. }) { None } else { core.owner() };
    drop(core);
    if let Some(owner) = owner {
        owner.wake();
    }
}
