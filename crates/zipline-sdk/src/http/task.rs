//! How tasks wait for calls.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use rustix::event::PollFlags;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};

use super::wait::PIECE_BYTES;
use super::{Address, Running};
use crate::clock::now;
use crate::{Error, Result};

/// The error of a body that is not ours.
pub(crate) type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Pieces of a body, and what stands after them.
pub(crate) trait Frames: Send {
    /// The next frame. Whoever can choose gives at most `most` bytes.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>, most: usize) -> Poll<Option<Framed>>;
}

/// What a source gives.
pub(crate) type Framed = std::result::Result<Frame<Bytes>, Boxed>;

impl<B: http_body::Body<Data = Bytes, Error: Into<Boxed>> + Send> Frames for B {
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>, _most: usize) -> Poll<Option<Framed>> {
        self.poll_frame(cx).map_err(Into::into)
    }
}

/// A reader as a source. It is read no further than is asked for.
pub(crate) struct Reading<R>(pub(crate) R);

impl<R: AsyncRead + Send + Unpin> Frames for Reading<R> {
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>, most: usize) -> Poll<Option<Framed>> {
        let mut piece = BytesMut::zeroed(most.min(PIECE_BYTES));
        let mut room = ReadBuf::new(&mut piece);
        if let Err(error) = ready!(Pin::new(&mut self.0).poll_read(cx, &mut room)) {
            return Poll::Ready(Some(Err(error.into())));
        }
        let count = room.filled().len();
        piece.truncate(count);
        Poll::Ready((count > 0).then(|| Ok(Frame::data(piece.freeze()))))
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Out,
    In,
}

/// The runtime's eye on a connection.
enum Watched {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Watched {
    fn new(running: &Running) -> io::Result<Self> {
        let connection = running.as_fd().try_clone_to_owned()?;
        Ok(match running.address() {
            Address::Unix(_) => Self::Unix(UnixStream::from_std(connection.into())?),
            Address::Tcp(_) => Self::Tcp(TcpStream::from_std(connection.into())?),
        })
    }

    fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self, direction) {
            (Self::Unix(stream), Direction::In) => stream.poll_read_ready(cx),
            (Self::Unix(stream), Direction::Out) => stream.poll_write_ready(cx),
            (Self::Tcp(stream), Direction::In) => stream.poll_read_ready(cx),
            (Self::Tcp(stream), Direction::Out) => stream.poll_write_ready(cx),
        }
    }

    /// Runs `go`; if it would have to wait, the next [`Self::poll_ready`] does.
    fn try_io<T>(&self, direction: Direction, go: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let interest = match direction {
            Direction::In => tokio::io::Interest::READABLE,
            Direction::Out => tokio::io::Interest::WRITABLE,
        };
        match self {
            Self::Unix(stream) => stream.try_io(interest, go),
            Self::Tcp(stream) => stream.try_io(interest, go),
        }
    }
}

/// A call that a task waits for, and the body that is sent meanwhile. Dropping it gives the call up.
pub(crate) struct Exchanging {
    running: Running,
    source: Option<Pin<Box<dyn Frames>>>,
    watched: Option<Watched>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Somebody waits: time counts.
    waited_for: bool,
}

impl std::fmt::Debug for Exchanging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchanging").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Exchanging {
    pub(crate) fn new(running: Running, source: Option<Pin<Box<dyn Frames>>>) -> Self {
        Self { running, source, watched: None, timer: None, waited_for: false }
    }

    /// Waits until `look` has something.
    ///
    /// # Cancel safety
    /// Yes: nothing is taken before the future is ready.
    pub(crate) async fn until<T>(&mut self, look: fn(&mut Running) -> Result<Option<T>>) -> Result<T> {
        std::future::poll_fn(|cx| self.poll(cx, look)).await
    }

    /// Goes on until `look` has something, and meanwhile sends what the source gives.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        look: fn(&mut Running) -> Result<Option<T>>,
    ) -> Poll<Result<T>> {
        if !self.waited_for {
            self.running.wait_anew();
        }
        let polled = self.poll_until(cx, look);
        self.waited_for = polled.is_pending();
        polled
    }

    fn poll_until<T>(
        &mut self,
        cx: &mut Context<'_>,
        look: fn(&mut Running) -> Result<Option<T>>,
    ) -> Poll<Result<T>> {
        loop {
            if let Some(found) = look(&mut self.running)? {
                return Poll::Ready(Ok(found));
            }
            if self.feed(cx)? {
                continue;
            }
            match self.poll_connection(cx, look) {
                Poll::Ready(Ok(Some(found))) => return Poll::Ready(Ok(found)),
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // If the time is over, the call says so itself.
                Poll::Pending => ready!(self.poll_timer(cx)),
            }
        }
    }

    /// Takes the next piece of the source, if it is wanted and there.
    fn feed(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        let Some(source) = self.source.as_mut().filter(|_| self.running.wants()) else { return Ok(false) };
        let most = self.running.left().map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        match source.as_mut().poll_next(cx, most) {
            Poll::Pending => return Ok(false),
            Poll::Ready(None) => {
                self.source = None;
                self.running.give_end(None)?;
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => self.running.give(piece)?,
                Err(frame) => {
                    self.source = None;
                    self.running.give_end(frame.trailers_ref())?;
                }
            },
            Poll::Ready(Some(Err(error))) => return Err(self.running.source_failed(error)),
        }
        Ok(true)
    }

    /// Waits for the connection; `None`: something went on.
    fn poll_connection<T>(
        &mut self,
        cx: &mut Context<'_>,
        look: fn(&mut Running) -> Result<Option<T>>,
    ) -> Poll<Result<Option<T>>> {
        let refused = |error| Error::unreachable("the runtime does not take the connection", error);
        let watched = match self.watched.take() {
            Some(watched) => watched,
            None => Watched::new(&self.running).map_err(refused)?,
        };
        let watched = self.watched.insert(watched);
        let running = &mut self.running;
        let sends = |running: &Running| running.waits_for().contains(PollFlags::OUT);
        let mut went_on = false;
        for direction in [Direction::Out, Direction::In] {
            if matches!(direction, Direction::Out) && !sends(running) {
                continue;
            }
            // Whoever finds that it would have to wait again has the runtime look again.
            while let Poll::Ready(watching) = watched.poll_ready(direction, cx) {
                watching.map_err(refused)?;
                let went = watched.try_io(direction, || match look(running) {
                    Ok(None) if matches!(direction, Direction::In) || sends(running) => {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    ended => Ok(ended),
                });
                match went {
                    Ok(Ok(None)) => {
                        went_on = true;
                        break;
                    }
                    Ok(ended) => return Poll::Ready(ended),
                    Err(_would_block) => {}
                }
            }
        }
        if went_on { Poll::Ready(Ok(None)) } else { Poll::Pending }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = Instant::now() + self.running.deadline().saturating_sub(now());
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        // It is set anew each time, since every byte that moves is a reason to wait longer.
        timer.as_mut().reset(until);
        timer.as_mut().poll(cx)
    }
}
