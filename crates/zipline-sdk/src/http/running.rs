//! A call that is on its way: how long it may take, what comes of it, and what its errors mean.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use rustix::event::PollFlags;
use zipline_protocol::{ErrorCode, Problem, header};

use super::exchange::{Broken, Exchange};
use super::outbox::Misfit;
use super::response::Unreadable;
use super::{Http, Meant};
use crate::clock::now;
use crate::{Error, Result};

/// Longest answer that explains an error, where answers are not taken whole.
const PROBLEM_MAX: u64 = 64 * 1024;

/// What was asked, in the words of errors.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) what: String,
    pub(super) meant: Meant,
    pub(super) call_site: Option<&'static Location<'static>>,
}

/// How long a call is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// So long in all.
    Whole(Duration),
    /// So long without a byte that moves either way.
    Quiet(Duration),
}

/// The head of an answer whose body is taken in pieces.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) response: Response<()>,
    /// Bytes of the body, if they were counted.
    pub(crate) length: Option<u64>,
}

/// What came of an answer that is taken in pieces.
#[derive(Debug)]
pub(crate) enum Step {
    Head(Head),
    Piece(Bytes),
    /// All of it came; with its trailers.
    End(HeaderMap),
}

/// A call that is on its way. Dropping it closes its connection, which gives it up.
#[derive(Debug)]
pub(crate) struct Running {
    http: Http,
    exchange: Option<Exchange>,
    asked: Asked,
    patience: Patience,
    deadline: Duration,
    /// What had moved when the deadline was set last.
    moved: u64,
}

impl Running {
    pub(super) fn new(http: Http, exchange: Exchange, asked: Asked, patience: Patience) -> Self {
        let (Patience::Whole(longest) | Patience::Quiet(longest)) = patience;
        Self { http, exchange: Some(exchange), asked, patience, deadline: now() + longest, moved: 0 }
    }

    /// Goes on as far as its connection lets it; the response once all of it is there.
    ///
    /// # Errors
    /// What became of it, unless it is a function's own response.
    pub(crate) fn advance(&mut self) -> Result<Option<Response<Bytes>>> {
        let whole = self.advanced()?;
        if !whole { self.in_time().map(|()| None) } else { self.response().map(Some) }
    }

    /// Goes on as far as its connection lets it, of an answer that is taken in pieces; what is to be taken next.
    ///
    /// # Errors
    /// As of [`Self::advance`]; also after pieces that came.
    pub(crate) fn step(&mut self) -> Result<Option<Step>> {
        loop {
            let whole = self.advanced()?;
            let Some(exchange) = &mut self.exchange else { return Ok(None) };
            let reader = &mut exchange.reader;
            if reader.is_kept() {
                // An error, which its answer explains.
                return if whole { self.response().and(Ok(None)) } else { self.in_time().map(|()| None) };
            }
            if let Some(head) = reader.head() {
                if self.asked.is_answered_by(head) {
                    let (response, length) = reader.take_head();
                    return Ok(Some(Step::Head(Head { response, length })));
                }
                let kept = reader.keep(PROBLEM_MAX);
                kept.map_err(|unreadable| self.meaning(Broken::Unreadable(unreadable)))?;
                continue;
            }
            if let Some(piece) = reader.take_piece() {
                return Ok(Some(Step::Piece(piece)));
            }
            if !whole {
                return self.in_time().map(|()| None);
            }
            let trailers = reader.take_trailers();
            self.end();
            return Ok(Some(Step::End(trailers)));
        }
    }

    /// Whether the next piece of its body is wanted.
    pub(crate) fn wants(&self) -> bool {
        self.exchange.as_ref().is_some_and(Exchange::wants)
    }

    /// At most so many bytes of its body are to come; `None`: nobody knows.
    pub(crate) fn left(&self) -> Option<u64> {
        self.exchange.as_ref().map_or(Some(0), |exchange| exchange.outbox.left())
    }

    /// The next piece of its body.
    ///
    /// # Errors
    /// `request-invalid`: it is more than the length that was said.
    pub(crate) fn give(&mut self, piece: Bytes) -> Result<()> {
        let given = self.exchange.as_mut().map_or(Ok(()), |exchange| exchange.outbox.push(piece));
        given.map_err(|misfit| self.misfit(misfit))
    }

    /// There are no more.
    ///
    /// # Errors
    /// `request-invalid`: they are less than the length that was said.
    pub(crate) fn give_end(&mut self, trailers: Option<&HeaderMap>) -> Result<()> {
        let ended = self.exchange.as_mut().map_or(Ok(()), |exchange| exchange.outbox.finish(trailers));
        ended.map_err(|misfit| self.misfit(misfit))
    }

    /// Whoever gives the pieces of its body failed.
    pub(crate) fn source_failed(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::invalid(format_args!("the body of {} cannot be read", self.asked.what))
            .caused_by(error)
            .put_at(self.asked.call_site)
    }

    /// From now on the time of a quiet connection counts anew: somebody else was waited for.
    pub(crate) fn wait_anew(&mut self) {
        if let Patience::Quiet(quiet) = self.patience {
            self.deadline = now() + quiet;
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn waits_for(&self) -> PollFlags {
        self.exchange.as_ref().map_or(PollFlags::empty(), Exchange::waits_for)
    }

    #[cfg(feature = "tokio")]
    pub(super) fn address(&self) -> &super::Address {
        &self.http.0.address
    }

    /// Moves what can be moved; whether the answer is whole.
    fn advanced(&mut self) -> Result<bool> {
        let Some(exchange) = &mut self.exchange else {
            return Err(Error::invalid(format_args!("{} was through already", self.asked.what)));
        };
        let advanced = exchange.advance();
        let moved = exchange.moved();
        if moved != self.moved {
            self.moved = moved;
            self.wait_anew();
        }
        advanced.map_err(|broken| self.meaning(broken))
    }

    fn in_time(&self) -> Result<()> {
        if now() < self.deadline {
            return Ok(());
        }
        let what = &self.asked.what;
        let message = match self.patience {
            Patience::Whole(longest) => format!("{what} was not done within {longest:?}"),
            Patience::Quiet(quiet) => format!("nothing moved of {what} for {quiet:?}"),
        };
        let message = format_args!("{message}: allow more with a client's timeout");
        Err(Error::new(ErrorCode::DeadlineExceeded, message).put_at(self.asked.call_site))
    }

    fn response(&mut self) -> Result<Response<Bytes>> {
        let response = self.exchange.as_mut().map(|exchange| exchange.reader.take()).unwrap_or_default();
        self.end();
        self.asked.checked(response).map_err(|error| error.put_at(self.asked.call_site))
    }

    /// All of the answer came: its connection may serve another call.
    fn end(&mut self) {
        if let Some(connection) = self.exchange.take().and_then(Exchange::end) {
            self.http.give_back(connection);
        }
    }

    fn misfit(&self, misfit: Misfit) -> Error {
        let Asked { what, call_site, .. } = &self.asked;
        let how = match misfit {
            Misfit::Longer => "has more bytes than".to_owned(),
            Misfit::Shorter(missing) => format!("ended {missing} bytes before"),
        };
        Error::invalid(format_args!("the body of {what} {how} the length that was said")).put_at(*call_site)
    }

    fn meaning(&self, broken: Broken) -> Error {
        let Asked { what, meant, call_site } = &self.asked;
        let may_have_run = if *meant == Meant::Function { "; the function may have run" } else { "" };
        let error = match broken {
            Broken::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.http.unreachable(error)
            }
            Broken::Io(error) => {
                let message =
                    format_args!("the connection to the queue-proxy broke during {what}{may_have_run}");
                Error::unreachable(message, error)
            }
            Broken::Unreadable(Unreadable::BrokeOff) if *meant == Meant::Payload => {
                Error::new(ErrorCode::PayloadLost, "the payload broke off before its end: put it again")
            }
            Broken::Unreadable(Unreadable::BrokeOff) => {
                let message = format_args!("the answer to {what} broke off before its end{may_have_run}");
                Error::new(ErrorCode::UpstreamFailed, message)
            }
            Broken::Unreadable(Unreadable::Malformed(why)) => {
                let message = format_args!("the answer to {what} cannot be read: {why}{may_have_run}");
                Error::new(ErrorCode::UpstreamFailed, message)
            }
            Broken::Unreadable(Unreadable::TooLarge(length)) => {
                let most = self.http.0.response_max;
                let said = length.map(|length| format!(" of {length} bytes")).unwrap_or_default();
                let message = format_args!(
                    "the answer to {what} has a body{said}, at most {most} bytes are taken: allow more with Options::response_max, \
                     or take it in pieces"
                );
                Error::new(ErrorCode::PayloadTooLarge, message)
            }
        };
        error.put_at(*call_site)
    }
}

impl Asked {
    /// Whether this is the head of what was asked for, and not of an error.
    fn is_answered_by<T>(&self, head: &Response<T>) -> bool {
        let is_own = self.meant == Meant::Function || head.status().is_success();
        is_own && !head.headers().contains_key(header::ERROR)
    }

    fn checked(&self, response: Response<Bytes>) -> Result<Response<Bytes>> {
        if self.is_answered_by(&response) {
            return Ok(response);
        }
        let detail = serde_json::from_slice::<Problem>(response.body()).map(|problem| problem.detail);
        let detail =
            detail.unwrap_or_else(|_| format!("{} was answered with {}", self.what, response.status()));
        let Some(code) = response.headers().get(header::ERROR) else {
            let what = format_args!("the local API answered like no queue-proxy: {detail}");
            return Err(Error::new(ErrorCode::UpstreamFailed, what));
        };
        match code.to_str().ok().and_then(ErrorCode::parse) {
            Some(code) => Err(Error::new(code, detail)),
            None => Err(Error::new(ErrorCode::UpstreamFailed, format_args!("{code:?}: {detail}"))),
        }
    }
}

impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exchange.as_ref().expect("nobody waits for a call that is through").as_fd()
    }
}
