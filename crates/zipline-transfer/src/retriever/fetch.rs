//! A whole payload of known length, read from the socket straight into memory that its consumer gave.
//!
//! Lease, resumption, signs of life and acknowledgement are those of a [`super::Retrieval`]; what differs is that nobody takes bytes
//! meanwhile, so that silence is counted all the time, and that nothing is let go before the final record was verified.

use super::exchange::{Answer, Holder, single};
use super::grant::{GrantError, grant};
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
use zipline_protocol::{LeaseId, Record, header};
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
    /// Retrieves all of the payload that `record` names into `memory`, which is as long as the payload.
    ///
    /// # Errors
    /// [`RetrieveError`]: as of [`Retriever::start`] and [`super::Retrieval::next`]; the lease was given back.
    /// [`Kind::Malformed`] if the record names no length, or another one than that of `memory`.
    /// # Cancel safety
    /// Dropping the future gives the lease back, and `memory` to where it came from.
    pub async fn fetch(&self, record: &Record, mut memory: SegmentMut) -> Result<Fetched, RetrieveError> {
        if record.length != Some(memory.len() as u64) {
            return Err(Kind::Malformed { part: "another length than the memory for it" }.into());
        }
        let holder = Arc::new(Holder::of(record, zipline_seal::new_lease_id()));
        let answer = self.grant_first(&holder, RetrieveOptions::default()).await?;
        // Dropping it from here on gives the lease back.
        let settling = Settling::new(Arc::clone(&self.shared), Arc::clone(&holder));
        let alive = show_life(Arc::clone(&self.shared), Arc::clone(&holder));
        let _alive = self.shared.tasks.spawn_owned("show life", alive);
        let mut filling = Filling {
            shared: &self.shared,
            holder: &holder,
            filled: 0,
            failures: 0,
            quiet_since: Instant::now(),
        };
        let fetched = filling.run(answer, &mut memory).await;
        let record = fetched
            .and_then(|found| verify(&self.shared, record, &memory, found))
            .map_err(|error| error.with_received(filling.filled as u64))?;
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

/// Memory that is being filled.
struct Filling<'a> {
    shared: &'a Shared,
    holder: &'a Holder,
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

impl Filling<'_> {
    async fn run(&mut self, mut answer: Answer, memory: &mut [u8]) -> Result<FinalRecord, RetrieveError> {
        self.quiet_since = Instant::now();
        loop {
            if answer.length != Some(memory.len() as u64) {
                return Err(Kind::Malformed { part: "another length than the reference" }.into());
            }
            let pause = match self.read(answer, memory).await? {
                Ended::Whole(record) => return Ok(*record),
                Ended::Broken(source) => self.broke(source)?,
                Ended::Quiet => Duration::ZERO,
            };
            answer = self.resume(pause).await?;
        }
    }

    /// Reads an answer to its end, or as far as it goes.
    async fn read(&mut self, answer: Answer, memory: &mut [u8]) -> Result<Ended, RetrieveError> {
        let Answer { signed, mut connection, .. } = answer;
        let mut brought = 0;
        loop {
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
                    if record.length != memory.len() as u64 || !full {
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
            let granting = grant(self.shared, self.holder, self.filled as u64, None, Some(deadline));
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
