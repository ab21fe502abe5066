//! What a served connection is doing, for the timeouts and for closing it without losing the last response.

use crate::rewind::Rewind;
use parking_lot::Mutex;
use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Longest time a closing connection is read and discarded, so that the client gets the response instead of a reset.
const LINGER: Duration = Duration::from_secs(5);
/// Reads per poll while lingering; then the task yields.
const LINGER_READS: usize = 32;

/// Shared between the connection's I/O, its requests and its timer.
#[derive(Debug)]
pub(crate) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    /// Since when a request head is being read.
    head_since: Option<Instant>,
    idle_since: Instant,
    /// Request bodies whose end nobody has read yet, and that somebody may still read.
    open_bodies: usize,
    /// A request body was given up before its end.
    unread: bool,
    upgraded: bool,
    reset: bool,
}

impl Watch {
    pub(crate) fn new() -> Arc<Self> {
        let now = Instant::now();
        // A fresh connection owes its first request head.
        let state = State {
            in_flight: 0,
            head_since: Some(now),
            idle_since: now,
            open_bodies: 0,
            unread: false,
            upgraded: false,
            reset: false,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    pub(crate) fn request_started(self: &Arc<Self>) -> Arc<InFlight> {
        let mut state = self.state.lock();
        state.in_flight += 1;
        state.head_since = None;
        Arc::new(InFlight { watch: Arc::clone(self) })
    }

    /// The preface has come; heads of further requests are HTTP/2's own matter.
    pub(crate) fn head_done(&self) {
        self.state.lock().head_since = None;
    }

    pub(crate) fn upgraded(&self) {
        self.state.lock().upgraded = true;
    }

    /// The connection's end must be seen as a failure even where the end of the connection ends the body.
    pub(crate) fn reset(&self) {
        self.state.lock().reset = true;
    }

    /// When the current state becomes overdue; `None` while requests are served.
    pub(crate) fn overdue_at(&self, head: Duration, idle: Option<Duration>) -> Option<Instant> {
        let state = self.state.lock();
        if state.in_flight > 0 || state.upgraded {
            return None;
        }
        match state.head_since {
            Some(since) => Some(since + head),
            None => idle.map(|idle| state.idle_since + idle),
        }
    }

    fn bytes_read(&self) {
        let mut state = self.state.lock();
        if state.in_flight == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    fn must_linger(&self) -> bool {
        let state = self.state.lock();
        !state.upgraded && (state.unread || state.open_bodies > 0 || state.head_since.is_some())
    }
}

/// One request being served: alive until its response and its request body are done.
#[derive(Debug)]
pub(crate) struct InFlight {
    watch: Arc<Watch>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.watch.state.lock();
        state.in_flight -= 1;
        state.idle_since = Instant::now();
    }
}

/// A request body that has not been read to its end.
#[derive(Debug)]
pub(crate) struct Unread {
    in_flight: Arc<InFlight>,
    ended: bool,
}

impl Unread {
    pub(crate) fn new(in_flight: Arc<InFlight>) -> Self {
        in_flight.watch.state.lock().open_bodies += 1;
        Self { in_flight, ended: false }
    }

    pub(crate) fn read_to_end(mut self) {
        self.ended = true;
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let mut state = self.in_flight.watch.state.lock();
        state.open_bodies -= 1;
        state.unread |= !self.ended;
    }
}

/// A served connection's socket.
///
/// Closing a TCP socket that holds unread bytes makes the kernel send a reset, which can overtake the response. So when
/// a request was answered before it was read, shutting down sends FIN and then reads and discards until the client
/// closes, at most [`LINGER`].
#[derive(Debug)]
pub(crate) struct ServerIo<I: Any> {
    inner: Rewind<I>,
    watch: Option<Arc<Watch>>,
    close: Close,
}

#[derive(Debug)]
enum Close {
    Open,
    Lingering(Pin<Box<Sleep>>),
    Closed,
}

impl<I: Any> ServerIo<I> {
    pub(crate) fn http1(inner: Rewind<I>, watch: Arc<Watch>) -> Self {
        Self { inner, watch: Some(watch), close: Close::Open }
    }

    /// HTTP/2 says itself what it has not read.
    pub(crate) fn http2(inner: Rewind<I>) -> Self {
        Self { inner, watch: None, close: Close::Open }
    }
}

impl<I: Any> Drop for ServerIo<I> {
    fn drop(&mut self) {
        let reset = self.watch.as_ref().is_some_and(|watch| watch.state.lock().reset);
        if reset && let Some(stream) = (&self.inner.io as &dyn Any).downcast_ref::<TcpStream>() {
            // If it fails the socket is gone already.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl<I: AsyncRead + Unpin + Any> AsyncRead for ServerIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before
            && let Some(watch) = &self.watch
        {
            watch.bytes_read();
        }
        result
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + Any> AsyncWrite for ServerIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            // The kernel's way for one buffer is the shorter one.
            [buf] => Pin::new(&mut self.inner).poll_write(cx, buf),
            bufs => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.close {
                Close::Open => {
                    std::task::ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
                    let linger = this.watch.as_ref().is_some_and(|watch| watch.must_linger());
                    this.close =
                        if linger { Close::Lingering(Box::pin(sleep(LINGER))) } else { Close::Closed };
                }
                Close::Lingering(deadline) => {
                    if deadline.as_mut().poll(cx).is_ready() {
                        this.close = Close::Closed;
                        continue;
                    }
                    let mut scratch = [0_u8; 8192];
                    for _ in 0..LINGER_READS {
                        let mut buf = ReadBuf::new(&mut scratch);
                        match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                            Poll::Ready(_) => {
                                this.close = Close::Closed;
                                return Poll::Ready(Ok(()));
                            }
                        }
                    }
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Close::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}
