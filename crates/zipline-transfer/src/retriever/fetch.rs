//! A whole payload of known length, read from the socket straight into memory that its consumer gave.
//!
//! Lease, resumption, signs of life and acknowledgement are those of a [`super::Retrieval`]; what differs is that nobody takes bytes
//! meanwhile, so that silence is counted all the time, and that nothing is let go before the final record was verified.

use super::exchange::{Answer, Holder, single};
use super::grant::{GrantError, grant, grant_part};
use super::moving::{MOVE_MIN, Moving};
use super::retrieval::{PROGRESS_BYTES, show_life};
use super::settling::Settling;
use super::wire::Arrived;
use super::{RETRY_PAUSE, RetrieveOptions, Retriever, Shared};
use crate::error::{RetrieveError, RetrieveErrorKind as Kind, Source};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use zipline_protocol::data::FinalRecord;
use zipline_protocol::{LeaseId, Record, ReferenceKind, header};
use zipline_seal::SignedRequest;
use zipline_segment::{SegmentBytes, SegmentMut};

/// A payload that was fetched. Dropping it before it was acknowledged gives the lease back.
#[derive(Debug)]
pub struct Fetched {
    bytes: SegmentBytes,
    record: FinalRecord,
    settling: Settling,
}

impl Fetched {
    /// The payload. Clones share it; its memory is free for the next one when the last of them is gone.
    #[must_use]
    pub fn bytes(&self) -> SegmentBytes {
        self.bytes.clone()
    }

    /// The payload's trailers as they travel.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.record.trailers
    }

    /// The lease, the same for every connection of this retrieval.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.settling.lease()
    }

    /// Tells the holder that everything was delivered. Tried `ACKNOWLEDGE_ATTEMPTS` times; repeating it does no harm.
    ///
    /// # Errors
    /// [`RetrieveError`]: the holder could not be told. What was delivered stays delivered.
    /// # Cancel safety
    /// When the future is dropped, the acknowledgement goes on as a task.
    pub async fn acknowledge(self) -> Result<(), RetrieveError> {
        self.settling.acknowledge().await
    }

    /// As [`Fetched::acknowledge`], as a task that nobody waits for.
    pub fn acknowledge_later(mut self) {
        self.settling.acknowledged(|_result| {});
    }
}

impl Retriever {
    /// Retrieves all of the payload that `record` names into `memory`, which is as long as the payload. A large one comes in two
    /// parts at once, over two connections.
    ///
    /// # Errors
    /// [`RetrieveError`]: as of [`Retriever::start`] and [`super::Retrieval::next`]; the lease was given back.
    /// [`Kind::Malformed`] if the record names no length, or another one than that of `memory`.
    /// # Cancel safety
    /// Dropping the future gives the lease back, and `memory` to where it came from, if need be once the threads that fill it have
    /// noticed.
    pub async fn fetch(&self, record: &Record, mut memory: SegmentMut) -> Result<Fetched, RetrieveError> {
        let length = memory.len();
        if record.length != Some(length as u64) {
            return Err(Kind::Malformed { part: "another length than the memory for it" }.into());
        }
        // Payloads of an invocation may be windowed: of those, the second half is not there before the first one was taken.
        let halves = length >= self.shared.config.parts_min_bytes && record.kind == ReferenceKind::Put;
        let second = halves.then(|| memory.split_off(length.div_ceil(2)));
        let holder = Arc::new(Holder::of(record, zipline_seal::new_lease_id()));
        let to = second.is_some().then_some(memory.len() as u64);
        let answer = self.grant_first(&holder, RetrieveOptions { from: 0, to }).await?;
        // Dropping it from here on gives the lease back.
        let settling = Settling::new(Arc::clone(&self.shared), Arc::clone(&holder));
        let alive = show_life(Arc::clone(&self.shared), Arc::clone(&holder));
        let _alive = self.shared.tasks.spawn_owned("show life", alive);
        let range =
            |from: usize, to: usize| Range { from: from as u64, to: to as u64, length: length as u64 };
        let middle = memory.len();
        let first = Box::pin(Filling::new(&self.shared, &holder, range(0, middle), memory).run(Some(answer)));
        let (memory, found) = match second {
            None => first.await?,
            Some(second) => {
                let second =
                    Box::pin(Filling::new(&self.shared, &holder, range(middle, length), second).run(None));
                let ((mut memory, found), (second, _)) = tokio::try_join!(first, second)?;
                memory.rejoin(second);
                (memory, found)
            }
        };
        let record = verify(&self.shared, record, &memory, found)
            .map_err(|error| error.with_received(length as u64))?;
        Ok(Fetched { bytes: memory.freeze(), record, settling })
    }
}

/// Compares the bytes with the digests that are named.
fn verify(
    shared: &Shared,
    record: &Record,
    bytes: &[u8],
    found: FinalRecord,
) -> Result<FinalRecord, RetrieveError> {
    let named = [record.digest, found.digest];
    let wanted = record.digest.is_some() || bytes.len() as u64 <= shared.config.digest_max_bytes;
    if wanted && named.iter().any(Option::is_some) {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        if named.into_iter().flatten().any(|expected| expected != digest) {
            return Err(Kind::Digest.into());
        }
    }
    Ok(found)
}

/// A part of a payload.
#[derive(Debug, Clone, Copy)]
struct Range {
    from: u64,
    to: u64,
    /// Of the whole payload.
    length: u64,
}

/// Memory that is being filled with a part of a payload.
struct Filling<'a> {
    shared: &'a Shared,
    holder: &'a Holder,
    range: Range,
    /// `None` while a thread fills it.
    memory: Option<SegmentMut>,
    filled: usize,
    /// Connections that failed in a row, each having brought less than [`PROGRESS_BYTES`].
    failures: u32,
    quiet_since: Instant,
}

/// How reading one answer ended.
enum Ended {
    Whole(Box<FinalRecord>),
    /// The connection broke.
    Broken(Source),
    /// Nothing came for so long that a sign of life is asked for.
    Quiet,
}

impl<'a> Filling<'a> {
    fn new(shared: &'a Shared, holder: &'a Holder, range: Range, memory: SegmentMut) -> Self {
        let quiet_since = Instant::now();
        Self { shared, holder, range, memory: Some(memory), filled: 0, failures: 0, quiet_since }
    }

    async fn run(mut self, granted: Option<Answer>) -> Result<(SegmentMut, FinalRecord), RetrieveError> {
        let result = self.fill(granted).await;
        let record = result.map_err(|error| error.with_received(self.filled as u64))?;
        Ok((self.memory.take().expect("no thread has it any more"), record))
    }

    async fn fill(&mut self, granted: Option<Answer>) -> Result<FinalRecord, RetrieveError> {
        self.quiet_since = Instant::now();
        let mut answer = match granted {
            Some(answer) => answer,
            None => self.resume(Duration::ZERO).await?,
        };
        loop {
            if answer.length != Some(self.range.length) {
                return Err(Kind::Malformed { part: "another length than the reference" }.into());
            }
            let pause = match self.read(answer).await? {
                Ended::Whole(record) => return Ok(*record),
                Ended::Broken(source) => self.broke(source)?,
                Ended::Quiet => Duration::ZERO,
            };
            answer = self.resume(pause).await?;
        }
    }

    /// Reads an answer to its end, or as far as it goes.
    async fn read(&mut self, answer: Answer) -> Result<Ended, RetrieveError> {
        let Answer { signed, mut connection, .. } = answer;
        let mut brought = 0;
        loop {
            if connection.wire.bare_bytes() >= MOVE_MIN
                && let Ok(place) = Arc::clone(&self.shared.movers).try_acquire_owned()
            {
                let memory = self.memory.take().expect("no other thread has it");
                let moving = Moving { connection, memory, filled: self.filled, place };
                let moved = tokio::task::spawn_blocking(move || moving.run()).await;
                let (back, result) = moved.expect("reading does not panic");
                let got = back.filled - self.filled;
                (connection, self.filled, self.memory) = (back.connection, back.filled, Some(back.memory));
                brought += got as u64;
                if got > 0 {
                    self.quiet_since = Instant::now();
                }
                if brought >= PROGRESS_BYTES {
                    self.failures = 0;
                }
                if let Err(error) = result {
                    return Ok(Ended::Broken(Arc::new(error)));
                }
            }
            let memory = self.memory.as_mut().expect("no thread has it");
            let room = &mut memory[self.filled..];
            let ask = self.quiet_since + self.shared.config.ask_after();
            // At the end, one byte of room shows whether more comes than there should.
            let mut beyond = [0];
            let full = room.is_empty();
            let room = if full { &mut beyond } else { room };
            let arrived = match timeout_at(ask, poll_fn(|cx| connection.wire.poll_into(cx, room))).await {
                Err(_elapsed) => {
                    tracing::debug!("holder is quiet, asking for a sign of life");
                    return Ok(Ended::Quiet);
                }
                Ok(Err(error)) => {
                    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
                    return Ok(Ended::Broken(Source::from(error)));
                }
                Ok(Ok(arrived)) => arrived,
            };
            self.quiet_since = Instant::now();
            match arrived {
                Arrived::Bytes(_) if full => {
                    return Err(Kind::Malformed { part: "more bytes than it says" }.into());
                }
                Arrived::Bytes(bytes) => {
                    self.filled += bytes;
                    brought += bytes as u64;
                    if brought >= PROGRESS_BYTES {
                        self.failures = 0;
                    }
                }
                Arrived::Trailers(section) => {
                    let record = final_record(&signed, &section).ok_or(Kind::FinalRecord)?;
                    if record.length != self.range.length || !full {
                        return Err(Kind::Malformed { part: "fewer bytes than it says" }.into());
                    }
                    self.shared.pool.put(connection);
                    return Ok(Ended::Whole(Box::new(record)));
                }
                Arrived::End => return Err(Kind::FinalRecord.into()),
            }
        }
    }

    /// A connection ended before the payload did. Says how long to wait before the next one.
    fn broke(&mut self, source: Source) -> Result<Duration, RetrieveError> {
        self.failures += 1;
        tracing::debug!(failures = self.failures, error = %source, "retrieval broke");
        if self.failures >= self.shared.config.attempts {
            let broken = RetrieveError::new(Kind::Broken { attempts: self.failures });
            return Err(broken.with_shared_source(source));
        }
        Ok(RETRY_PAUSE * (self.failures - 1))
    }

    /// Asks for the rest on another connection.
    async fn resume(&mut self, mut pause: Duration) -> Result<Answer, RetrieveError> {
        let limit = self.shared.config.progress_timeout;
        let deadline = self.quiet_since + limit;
        loop {
            sleep_until((Instant::now() + pause).min(deadline)).await;
            let (from, to) = (self.range.from + self.filled as u64, self.range.to);
            let granting = async {
                if self.range.from > 0 {
                    return grant_part(self.shared, self.holder, (from, to), deadline).await;
                }
                let to = (to < self.range.length).then_some(to);
                grant(self.shared, self.holder, from, to, Some(deadline)).await
            };
            pause = match timeout_at(deadline, granting).await {
                Err(_elapsed) => return Err(Kind::Stalled { after: limit }.into()),
                Ok(Ok(answer)) => {
                    self.quiet_since = Instant::now();
                    return Ok(answer);
                }
                Ok(Err(GrantError::Final(error))) => return Err(error),
                Ok(Err(GrantError::Unreachable(error))) => self.broke(Arc::new(error))?,
                Ok(Err(GrantError::Broken(error))) => self.broke(Arc::new(error))?,
            };
        }
    }
}

/// The final record of a trailer section, if it is there once and proven.
pub(super) fn final_record(signed: &SignedRequest, section: &HeaderMap) -> Option<FinalRecord> {
    let trailers = single(section, header::TRAILERS);
    if trailers.is_none() && section.contains_key(header::TRAILERS) {
        return None;
    }
    signed.verify_final(single(section, header::FINAL)?, trailers)
}
