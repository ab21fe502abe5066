//! A part of a payload on its way into memory.
//!
//! | source | event | next |
//! |---|---|---|
//! | relay | final record, valid | done |
//! | relay | anything else: refused, broken, quiet, malformed | holder, from the byte reached |
//! | holder | final record, valid | done |
//! | holder | the connection breaks | holder, or failed after `RETRIEVE_ATTEMPTS` in a row without progress |
//! | holder | silence for two thirds of `PROGRESS_TIMEOUT` | holder: a grant is a sign of life |
//! | holder | refused, unproven, malformed, `PROGRESS_TIMEOUT` over | failed |

use super::exchange::{Answer, Holder, single};
use super::grant::{GrantError, grant, grant_part};
use super::moving::{MOVE_MIN, Moving};
use super::retrieval::PROGRESS_BYTES;
use super::room::Room;
use super::wire::Arrived;
use super::{RETRY_PAUSE, Shared};
use crate::error::{RetrieveError, RetrieveErrorKind as Kind, Source};
use http::HeaderMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use zipline_protocol::data::FinalRecord;
use zipline_protocol::header;
use zipline_seal::SignedRequest;

/// A part of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Of the whole payload.
    pub(super) length: u64,
}

/// Memory that is being filled with a part of a payload.
pub(super) struct Filling<'a> {
    pub(super) shared: &'a Shared,
    pub(super) holder: &'a Holder,
    /// Who is asked in the holder's place, until anything is wrong.
    pub(super) relay: Option<&'a Holder>,
    pub(super) range: Range,
    /// Bytes of the payload that came from anywhere, over all its parts.
    pub(super) reached: &'a AtomicU64,
    /// `None` while a thread fills it.
    room: Option<Room>,
    /// Connections that failed in a row, each having brought less than [`PROGRESS_BYTES`].
    failures: u32,
    quiet_since: Instant,
}

/// A part that is there.
pub(super) struct Part {
    pub(super) room: Room,
    pub(super) record: FinalRecord,
    /// Whether its last bytes came from the relay.
    pub(super) relayed: bool,
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
    pub(super) fn new(
        shared: &'a Shared,
        holder: &'a Holder,
        relay: Option<&'a Holder>,
        range: Range,
        reached: &'a AtomicU64,
        room: Room,
    ) -> Self {
        let quiet_since = Instant::now();
        Self { shared, holder, relay, range, reached, room: Some(room), failures: 0, quiet_since }
    }

    /// Fills it, beginning with an answer that was granted, if there is one.
    pub(super) async fn run(mut self, granted: Option<Answer>) -> Result<Part, RetrieveError> {
        let result = self.fill(granted).await;
        let room = self.room.take().expect("no thread has it any more");
        let record = result.map_err(|error| error.with_received(room.filled() as u64))?;
        Ok(Part { room, record, relayed: self.relay.is_some() })
    }

    async fn fill(&mut self, granted: Option<Answer>) -> Result<FinalRecord, RetrieveError> {
        self.quiet_since = Instant::now();
        let mut answer = match granted {
            Some(answer) => answer,
            None => self.first().await?,
        };
        loop {
            let read = match answer.length == Some(self.range.length) {
                true => self.read(answer).await,
                false => Err(Kind::Malformed { part: "another length than the reference" }.into()),
            };
            let pause = match read {
                Ok(Ended::Whole(record)) => return Ok(*record),
                other if self.relay.is_some() => {
                    self.leave_relay(
                        &other.map_or_else(|error| error.to_string(), |ended| ended.to_string()),
                    );
                    Duration::ZERO
                }
                Ok(Ended::Broken(source)) => self.broke(source)?,
                Ok(Ended::Quiet) => Duration::ZERO,
                Err(error) => return Err(error),
            };
            answer = self.resume(pause).await?;
        }
    }

    /// The first answer of a part that no grant came with.
    async fn first(&mut self) -> Result<Answer, RetrieveError> {
        if let Some(relay) = self.relay {
            let deadline = Instant::now() + self.shared.config.relay_wait;
            match grant_part(self.shared, relay, (self.range.from, self.range.to), deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.leave_relay(&error.to_string()),
            }
        }
        self.resume(Duration::ZERO).await
    }

    /// From here on the holder is asked, who has not been silent.
    fn leave_relay(&mut self, why: &str) {
        tracing::debug!(why, "back to the holder, as the relay does not serve");
        self.relay = None;
        self.failures = 0;
        self.quiet_since = Instant::now();
    }

    fn filled(&self) -> usize {
        self.room.as_ref().map_or(0, Room::filled)
    }

    fn came(&mut self, bytes: usize, brought: &mut u64) {
        *brought += bytes as u64;
        self.reached.fetch_add(bytes as u64, Ordering::Relaxed);
        if *brought >= PROGRESS_BYTES {
            self.failures = 0;
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
                let room = self.room.take().expect("no other thread has it");
                let before = room.filled();
                let moving = Moving { connection, room, place };
                let moved = tokio::task::spawn_blocking(move || moving.run()).await;
                let (back, result) = moved.expect("reading does not panic");
                let got = back.room.filled() - before;
                (connection, self.room) = (back.connection, Some(back.room));
                if got > 0 {
                    self.quiet_since = Instant::now();
                }
                self.came(got, &mut brought);
                if let Err(error) = result {
                    return Ok(Ended::Broken(Arc::new(error)));
                }
            }
            let room = self.room.as_mut().expect("no thread has it");
            let free = room.free();
            let ask = self.quiet_since + self.shared.config.ask_after();
            // At the end, one byte of room shows whether more comes than there should.
            let mut beyond = [0];
            let full = free.is_empty();
            let free = if full { &mut beyond } else { free };
            let arrived = match timeout_at(ask, poll_fn(|cx| connection.wire.poll_into(cx, free))).await {
                Err(_elapsed) => return Ok(Ended::Quiet),
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
                    room.wrote(bytes);
                    self.came(bytes, &mut brought);
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

    /// Asks the holder for the rest on another connection.
    async fn resume(&mut self, mut pause: Duration) -> Result<Answer, RetrieveError> {
        let limit = self.shared.config.progress_timeout;
        let deadline = self.quiet_since + limit;
        loop {
            sleep_until((Instant::now() + pause).min(deadline)).await;
            let (from, to) = (self.range.from + self.filled() as u64, self.range.to);
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

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(_) => f.write_str("it is there"),
            Self::Broken(source) => write!(f, "the connection broke: {source}"),
            Self::Quiet => f.write_str("nothing came for too long"),
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
