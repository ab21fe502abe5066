//! Threads that wait for answers.
//!
//! One of them, the leader, reads for all: whoever finds no leader is it until its own answer came. So a single thread reads its
//! own answer with one call, and no thread exists only to read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::link::Link;
use super::socket::TICK;
use super::state::{Reply, State};
use crate::clock::now;
use crate::{Error, ErrorCode, Result};

/// An answer that is waited for. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(super) link: Arc<Link>,
    pub(super) request: u32,
    cancels: bool,
}

impl Waiting {
    pub(super) fn new(link: Arc<Link>, request: u32, cancels: bool) -> Self {
        Self { link, request, cancels }
    }

    /// Waits in this thread for the next answer, at most until `deadline`.
    pub(crate) fn wait(&self, deadline: Duration, interrupted: Option<fn() -> bool>) -> Result<Reply> {
        self.link.wait_for(deadline, interrupted, |state| state.take(self.request))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.link.given_up(self.request, self.cancels);
    }
}

pub(super) fn timed_out() -> Error {
    Error::new(
        ErrorCode::DeadlineExceeded,
        "the queue-proxy did not answer within the time limit: allow more with a client's timeout",
    )
}

impl Link {
    /// Waits in this thread until `take` finds what it wants, at most until `deadline`.
    pub(super) fn wait_for<T>(
        &self,
        deadline: Duration,
        interrupted: Option<fn() -> bool>,
        mut take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T> {
        loop {
            let mut state = self.state.lock();
            if let Some(taken) = take(&mut state) {
                return Ok(taken);
            }
            state.check()?;
            if now() >= deadline {
                return Err(timed_out());
            }
            if state.leader {
                state.followers += 1;
                self.answered.wait_for(&mut state, TICK);
                state.followers -= 1;
                drop(state);
            } else {
                state.leader = true;
                drop(state);
                let led = self.read();
                let mut state = self.state.lock();
                state.leader = false;
                let followed = state.followers > 0;
                drop(state);
                if followed {
                    // One of them leads from here, if this thread does not come back.
                    self.answered.notify_all();
                }
                match led {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => return Err(error),
                }
            }
            if interrupted.is_some_and(|asked| asked()) {
                return Err(Error::interrupted("waiting for the queue-proxy"));
            }
        }
    }

    /// Reads once and hands out what came; `false` if nothing did.
    pub(super) fn read(&self) -> Result<bool> {
        let mut input = self.input.lock();
        match input.read(&self.socket) {
            Ok(0) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => self.dispatch(&mut input).map(|()| true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(false)
            }
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Reads what is there, unless somebody does already.
    pub(super) fn read_if_idle(&self) {
        {
            let mut state = self.state.lock();
            if state.leader || state.broken.is_some() {
                return;
            }
            state.leader = true;
        }
        while self.socket.readable(Duration::ZERO).unwrap_or(false) && self.read().unwrap_or(false) {}
        self.state.lock().leader = false;
        self.answered.notify_all();
    }
}
