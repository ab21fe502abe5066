//! One running retrieval.
//!
//! | state | event | next |
//! |---|---|---|
//! | streaming | bytes | streaming |
//! | streaming | final record, valid | done |
//! | streaming | final record missing or invalid, too many or too few bytes, wrong digest | failed |
//! | streaming | the connection breaks | resuming, or failed after `RETRIEVE_ATTEMPTS` in a row without progress |
//! | streaming | silence for two thirds of `PROGRESS_TIMEOUT` | resuming: a grant is a sign of life |
//! | resuming | granted | streaming, from the byte reached |
//! | resuming | broken, unreachable | resuming, or failed as above |
//! | resuming | refused, unproven, `PROGRESS_TIMEOUT` over | failed |
//! | any | dropped without acknowledgement | cancelled |
//!
//! Silence is counted only while the consumer waits for bytes. A sender that pauses is not silence: its holder grants.

use super::body::{RetrievalBody, RetrievalOutcome};
use super::exchange::{Answer, Holder, tell};
use super::filling::final_record;
use super::grant::{GrantError, grant};
use super::intake::{Expected, Intake};
use super::settling::Settling;
use super::wire::WireError;
use super::{RETRY_PAUSE, RetrieveOptions, Shared};
use crate::error::{RetrieveError, RetrieveErrorKind as Kind, Source};
use crate::retriever::pool::Connection;
use crate::trailers::{self, TrailersError};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body::Frame;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout, timeout_at};
use zipline_protocol::data::Operation;
use zipline_protocol::limits::ALIVE_EVERY;
use zipline_protocol::{LeaseId, Record};
use zipline_runtime::AbortOnDrop;
use zipline_seal::SignedRequest;

/// A connection that brought fewer bytes is no progress: a link that cuts every connection early must not be tried for ever.
pub(super) const PROGRESS_BYTES: u64 = 64 * 1024;

/// A retrieval that was granted. Dropping it before it was acknowledged gives the lease back.
pub struct Retrieval {
    shared: Arc<Shared>,
    holder: Arc<Holder>,
    to: Option<u64>,
    state: State,
    intake: Intake,
    /// Connections that failed in a row, each having brought less than [`PROGRESS_BYTES`].
    failures: u32,
    /// Bytes that the connection in use has brought.
    brought: u64,
    last_failure: Option<Source>,
    settling: Settling,
    /// When the holder last gave a sign of life, or the consumer began to wait if that was later.
    quiet_since: Instant,
    waiting: bool,
    timer: Pin<Box<Sleep>>,
    _alive: AbortOnDrop,
}

enum State {
    Streaming(Box<Stream>),
    Resuming(BoxFuture<'static, Result<Answer, GrantError>>),
    Done,
    Failed,
}

struct Stream {
    signed: SignedRequest,
    connection: Connection,
}

impl From<Answer> for State {
    fn from(Answer { signed, connection, .. }: Answer) -> Self {
        Self::Streaming(Box::new(Stream { signed, connection }))
    }
}

impl Retrieval {
    pub(super) fn new(
        shared: Arc<Shared>,
        holder: Arc<Holder>,
        record: &Record,
        options: RetrieveOptions,
        granted: Answer,
    ) -> Result<Self, RetrieveError> {
        let length = granted.length;
        let expected = Expected {
            from: options.from,
            to: options.to,
            length,
            digest: record.digest,
            digest_max_bytes: shared.config.digest_max_bytes,
        };
        let alive = show_life(Arc::clone(&shared), Arc::clone(&holder), Arc::default());
        let retrieval = Self {
            settling: Settling::new(Arc::clone(&shared), Arc::clone(&holder)),
            _alive: shared.tasks.spawn_owned("show life", alive),
            shared,
            holder,
            to: options.to,
            state: granted.into(),
            intake: Intake::new(expected),
            failures: 0,
            brought: 0,
            last_failure: None,
            quiet_since: Instant::now(),
            waiting: false,
            timer: Box::pin(sleep(Duration::ZERO)),
        };
        // Dropping it from here on gives the lease back.
        if record.length.is_some() && record.length != length {
            return Err(Kind::Malformed { part: "another length than the reference" }.into());
        }
        if length.is_some_and(|length| options.from > length) {
            return Err(Kind::Malformed { part: "a range beyond its length" }.into());
        }
        Ok(retrieval)
    }

    /// The payload's whole length in bytes; `None` while it grows.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.intake.final_record().map(|record| record.length).or(self.intake.length())
    }

    /// How many bytes this retrieval delivers in all, if that was known when it was granted: the length of the payload or
    /// of the range.
    #[must_use]
    pub fn expected_bytes(&self) -> Option<u64> {
        self.intake.end().map(|end| end.saturating_sub(self.from()))
    }

    /// Bytes that have arrived so far, those held back included.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.intake.received()
    }

    /// The lease, the same for every connection of this retrieval.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.holder.lease
    }

    /// Whether every byte was handed out and the final record was valid.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.intake.is_drained()
    }

    /// Whether all of the payload was asked for.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.from() == 0 && self.to.is_none()
    }

    fn from(&self) -> u64 {
        self.intake.position() - self.intake.received()
    }

    /// Waits until the first bytes have arrived, or the final record. From then on a failure is no reason to send inline.
    ///
    /// # Errors
    /// [`RetrieveError`]: the retrieval has failed; nothing was handed out.
    /// # Cancel safety
    /// Nothing is lost; call it again or [`Retrieval::next`].
    pub async fn ready(&mut self) -> Result<(), RetrieveError> {
        poll_fn(|cx| {
            while self.intake.received() == 0 && !matches!(self.state, State::Done | State::Failed) {
                ready!(self.poll_step(cx))?;
            }
            self.waiting = false;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The next bytes; `None` after the last ones, and only if the final record was valid. After an error: `None`.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Bytes, RetrieveError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Retrieval::next`], for those who poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RetrieveError>>> {
        loop {
            if let Some(bytes) = self.intake.pop() {
                self.waiting = false;
                return Poll::Ready(Some(Ok(bytes)));
            }
            if matches!(self.state, State::Done | State::Failed) {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_step(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    /// One step of the state machine, until something arrived or changed.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RetrieveError>> {
        if !self.waiting {
            self.waiting = true;
            self.quiet_since = Instant::now();
        }
        let step = match &mut self.state {
            State::Streaming(stream) => match stream.connection.wire.poll_frame(cx) {
                Poll::Ready(frame) => self.arrived(frame),
                Poll::Pending => {
                    ready!(self.poll_quiet(cx));
                    tracing::debug!("holder is quiet, asking for a sign of life");
                    self.resume(Duration::ZERO);
                    Ok(())
                }
            },
            State::Resuming(resuming) => {
                let answer = ready!(resuming.as_mut().poll(cx));
                self.resumed(answer)
            }
            State::Done | State::Failed => Ok(()),
        };
        Poll::Ready(step.map_err(|error| self.fail(error)))
    }

    /// Resolves when it is time to ask for a sign of life.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ask = self.quiet_since + self.shared.config.ask_after();
        // The timer may stand at an earlier time: it is moved only when it fires, not with every frame.
        loop {
            if Instant::now() >= ask {
                return Poll::Ready(());
            }
            if self.timer.deadline() > ask || self.timer.is_elapsed() {
                self.timer.as_mut().reset(ask);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }

    fn arrived(&mut self, frame: Option<Result<Frame<Bytes>, WireError>>) -> Result<(), RetrieveError> {
        let frame = match frame {
            // A body that ends in good form, yet without the final record.
            None => return Err(Kind::FinalRecord.into()),
            Some(Err(error)) => {
                return self.broke(Source::from(Box::<dyn std::error::Error + Send + Sync>::from(error)));
            }
            Some(Ok(frame)) => frame,
        };
        self.quiet_since = Instant::now();
        match frame.into_data() {
            Ok(bytes) => {
                self.brought += bytes.len() as u64;
                if self.brought >= PROGRESS_BYTES {
                    self.failures = 0;
                }
                Ok(self.intake.push(bytes)?)
            }
            Err(frame) => self.finish(&frame.into_trailers().unwrap_or_default()),
        }
    }

    fn finish(&mut self, section: &HeaderMap) -> Result<(), RetrieveError> {
        let State::Streaming(stream) = std::mem::replace(&mut self.state, State::Done) else { return Ok(()) };
        let record = final_record(&stream.signed, section);
        self.intake.finish(record.ok_or(Kind::FinalRecord)?)?;
        self.shared.pool.put(stream.connection);
        Ok(())
    }

    fn resumed(&mut self, answer: Result<Answer, GrantError>) -> Result<(), RetrieveError> {
        match answer {
            Ok(answer) => {
                let known = self.intake.length();
                if known.is_some() && answer.length != known {
                    return Err(Kind::Malformed { part: "another length than at first" }.into());
                }
                self.quiet_since = Instant::now();
                self.brought = 0;
                self.state = answer.into();
                Ok(())
            }
            Err(GrantError::Broken(error)) => {
                self.broke(Source::from(Box::<dyn std::error::Error + Send + Sync>::from(error)))
            }
            Err(GrantError::Unreachable(error)) => self.broke(Arc::new(error)),
            Err(GrantError::Final(error)) => Err(error),
        }
    }

    /// A connection ended before the payload did.
    fn broke(&mut self, source: Source) -> Result<(), RetrieveError> {
        self.failures += 1;
        tracing::debug!(failures = self.failures, error = %source, "retrieval broke");
        if self.failures >= self.shared.config.attempts {
            let broken = RetrieveError::new(Kind::Broken { attempts: self.failures });
            return Err(broken.with_shared_source(source));
        }
        self.last_failure = Some(source);
        self.resume(RETRY_PAUSE * (self.failures - 1));
        Ok(())
    }

    /// Asks for the rest on another connection. The one in use, if any, is closed.
    fn resume(&mut self, pause: Duration) {
        let (shared, holder) = (Arc::clone(&self.shared), Arc::clone(&self.holder));
        let (from, to) = (self.intake.position(), self.to);
        let deadline = self.quiet_since + self.shared.config.progress_timeout;
        let silent = Kind::Stalled { after: self.shared.config.progress_timeout };
        self.state = State::Resuming(Box::pin(async move {
            sleep_until((Instant::now() + pause).min(deadline)).await;
            let granted = timeout_at(deadline, grant(&shared, &holder, from, to, Some(deadline))).await;
            granted.unwrap_or_else(|_elapsed| Err(GrantError::Final(silent.into())))
        }));
    }

    fn fail(&mut self, error: RetrieveError) -> RetrieveError {
        self.state = State::Failed;
        let error = error.with_received(self.intake.received());
        match self.last_failure.take() {
            Some(source) if !error.has_source() => error.with_shared_source(source),
            _ => error,
        }
    }

    /// The payload's trailers as they travel; empty before the end.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        self.intake.final_record().map_or(&[], |record| &record.trailers)
    }

    /// The payload's trailers; empty before the end.
    ///
    /// # Errors
    /// [`TrailersError`] if the holder sent something else than trailers.
    pub fn trailer_map(&self) -> Result<HeaderMap, TrailersError> {
        trailers::decode(self.trailers())
    }

    /// Tells the holder that everything was delivered. Tried `ACKNOWLEDGE_ATTEMPTS` times; repeating it does no harm.
    ///
    /// # Errors
    /// [`RetrieveError`]: not complete yet (then the lease is given back), or the holder could not be told. What was
    /// delivered stays delivered.
    /// # Cancel safety
    /// When the future is dropped, the acknowledgement goes on as a task.
    pub async fn acknowledge(self) -> Result<(), RetrieveError> {
        if !self.is_complete() {
            return Err(Kind::Cancelled.into());
        }
        self.settling.acknowledge().await
    }

    /// Gives the lease back: nothing is spent, and whoever waits for it gets it. The same as dropping the retrieval.
    pub fn cancel(self) {
        drop(self);
    }

    /// Turns the retrieval into a body: its bytes, then its trailers. When the consumer took everything, the payload is
    /// acknowledged, unless only a range was asked for, which spends nothing; when it drops the body before, the lease is
    /// given back. The second part tells how it ended.
    ///
    /// Some consumers do not ask an empty body for its end: call [`Retrieval::ready`] before, then that counts as taken.
    #[must_use]
    pub fn into_body(self) -> (RetrievalBody, RetrievalOutcome) {
        RetrievalBody::new(self)
    }

    /// Acknowledges as a task, once; `then` is told the result.
    pub(super) fn settle_acknowledged(
        &mut self,
        then: impl FnOnce(Result<(), RetrieveError>) + Send + 'static,
    ) {
        self.settling.acknowledged(then);
    }
}

/// Tells the holder again and again that this receiver lives, since one whose consumer takes no bytes, or that has them from
/// elsewhere, looks like a dead one. `reached` is how many bytes it has, from wherever.
pub(super) async fn show_life(shared: Arc<Shared>, holder: Arc<Holder>, reached: Arc<AtomicU64>) {
    loop {
        sleep(ALIVE_EVERY).await;
        let reached = reached.load(Ordering::Relaxed);
        if !matches!(
            timeout(ALIVE_EVERY, tell(&shared, &holder, Operation::Alive, reached)).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("the holder did not hear that its receiver lives");
        }
    }
}

impl fmt::Debug for Retrieval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrieval")
            .field("lease", &self.holder.lease)
            .field("received_bytes", &self.received_bytes())
            .field("length", &self.length())
            .field("complete", &self.is_complete())
            .finish_non_exhaustive()
    }
}
