//! Tasks that wait for answers. One task of the connection reads for all of them; it ends with the connection.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::link::Link;
use super::state::{Reply, State};
use super::wait::{Waiting, timed_out};
use crate::Result;

/// How often idle memory is looked after.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// Bytes that the socket did not take: beyond it whoever sends waits.
const UNSENT_MAX: usize = 1024 * 1024;

/// How tasks that send and the one that reads tell each other.
#[derive(Debug, Default)]
pub(super) struct Bells {
    /// There are bytes that the socket did not take.
    pub(super) unsent: Notify,
    /// There are fewer of them.
    sent: Notify,
}

/// Starts the reading task in the runtime of the caller.
///
/// # Errors
/// The runtime does not take the socket.
#[expect(clippy::disallowed_methods, reason = "the task belongs to its connection, whose end ends it")]
pub(super) fn start(link: &Arc<Link>) -> io::Result<()> {
    let stream = std::os::unix::net::UnixStream::from(link.socket.as_fd().try_clone_to_owned()?);
    let stream = UnixStream::from_std(stream)?;
    drop(tokio::spawn(read(stream, Arc::downgrade(link), Arc::clone(&link.bells))));
    Ok(())
}

async fn read(stream: UnixStream, link: Weak<Link>, bells: Arc<Bells>) {
    let mut tending = interval(TEND_EVERY);
    tending.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let unsent = link.upgrade().is_some_and(|link| link.unsent_bytes() > 0);
        tokio::select! {
            ready = stream.readable() => {
                // The connection is dropped, or broke: both end its socket, which can then be read.
                let (Ok(()), Some(link)) = (ready, link.upgrade()) else { return };
                let read = stream.try_io(Interest::READABLE, || match link.read() {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(broken) => Err(broken.into()),
                });
                if read.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                    return;
                }
            }
            ready = stream.writable(), if unsent => {
                let (Ok(()), Some(link)) = (ready, link.upgrade()) else { return };
                // What is left waits for the socket again.
                let _ = stream.try_io(Interest::WRITABLE, || {
                    if link.flush() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WouldBlock)) }
                });
                bells.sent.notify_waiters();
            }
            () = bells.unsent.notified() => {}
            _ = tending.tick() => {
                let Some(link) = link.upgrade() else { return };
                let _left = link.tend();
            }
        }
    }
}

impl Waiting {
    /// Waits in a task for the next answer, at most `longest`.
    ///
    /// # Cancel safety
    /// Yes: an answer is taken only when the future is ready.
    pub(crate) async fn answer(&self, longest: Duration) -> Result<Reply> {
        let take = |state: &mut State, waker: &Waker| {
            let taken = state.take(self.request);
            if taken.is_none() {
                state.wakes(self.request, waker);
            }
            taken
        };
        self.link.answer_for(longest, take).await
    }
}

impl Link {
    /// Waits in a task until `take` finds what it wants; until then it has its waker woken. At most `longest`.
    ///
    /// # Cancel safety
    /// Yes: something is taken only when the future is ready.
    pub(super) async fn answer_for<T>(
        &self,
        longest: Duration,
        mut take: impl FnMut(&mut State, &Waker) -> Option<T>,
    ) -> Result<T> {
        let answered = poll_fn(|cx| {
            let mut state = self.state.lock();
            if let Some(taken) = take(&mut state, cx.waker()) {
                return Poll::Ready(Ok(taken));
            }
            match state.check() {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            }
        });
        timeout(longest, answered).await.unwrap_or_else(|_elapsed| Err(timed_out()))
    }

    /// Waits until the socket has taken most of what was sent before.
    pub(crate) async fn sendable(&self) {
        loop {
            let sent = self.bells.sent.notified();
            if self.unsent_bytes() <= UNSENT_MAX || self.is_broken() {
                return;
            }
            // A connection that breaks tells nobody here; its requests fail by themselves.
            let _ = timeout(TEND_EVERY, sent).await;
        }
    }
}
