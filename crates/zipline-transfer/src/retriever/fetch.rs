//! A whole payload of known length, read from the socket straight into memory that its consumer gave.
//!
//! Lease, resumption, signs of life and acknowledgement are those of a [`super::Retrieval`]; what differs is that nobody takes bytes
//! meanwhile, so that silence is counted all the time, and that nothing is let go before the final record was verified.
//!
//! Of a payload for many, this is also where relays come in: the holder may name one, whose copy is retrieved in place of the
//! holder's bytes, and what arrives is a copy for others ([`crate::Copies`]). The lease stays the holder's, who alone counts.

use super::exchange::{Answer, Holder};
use super::filling::{Filling, Part, Range};
use super::grant::{GrantError, Granted, grant};
use super::retrieval::show_life;
use super::room::{Filled, Room};
use super::settling::Settling;
use super::{RetrieveOptions, Retriever, Shared, Unsettled};
use crate::error::{RetrieveError, RetrieveErrorKind as Kind};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::time::{Instant, timeout_at};
use zipline_buffer::CopyWriter;
use zipline_protocol::data::FinalRecord;
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{LeaseId, Record, ReferenceKind};
use zipline_segment::{SegmentBytes, SegmentMut};

/// A payload that was fetched. Dropping it before it was acknowledged gives the lease back.
#[derive(Debug)]
pub struct Fetched {
    bytes: SegmentBytes,
    record: FinalRecord,
    relayed: bool,
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

    /// Whether a relay was named, so that its bytes, or some of them, came from another place than the holder.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        self.relayed
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

/// A relay that has granted its copy.
struct Relay {
    holder: Arc<Holder>,
    /// The copy's lease, which is a lease like any other, but counts for nothing.
    settling: Settling,
}

/// One payload that is being fetched.
struct Fetching<'a> {
    shared: &'a Shared,
    holder: &'a Holder,
    length: usize,
    /// Where its second part begins; `length`: it comes in one.
    middle: usize,
    reached: &'a AtomicU64,
    /// There if what comes is shown to others before it is verified.
    shown: Option<Arc<CopyWriter>>,
}

impl Retriever {
    /// Retrieves all of the payload that `record` names into `memory`, which is as long as the payload. A large one comes in two
    /// parts at once, over two connections; one for many may come from another receiver, and be copied for others.
    ///
    /// # Errors
    /// [`RetrieveError`]: as of [`Retriever::start`] and [`super::Retrieval::next`]; the lease was given back.
    /// [`Kind::Malformed`] if the record names no length, or another one than that of `memory`.
    /// # Cancel safety
    /// Dropping the future gives the lease back, and `memory` to where it came from, if need be once the threads that fill it have
    /// noticed.
    pub async fn fetch(&self, record: &Record, memory: SegmentMut) -> Result<Fetched, RetrieveError> {
        let (shared, length) = (&self.shared, memory.len());
        if record.length != Some(length as u64) {
            return Err(Kind::Malformed { part: "another length than the memory for it" }.into());
        }
        // It is there before anybody can be sent to it.
        let copies = shared.copies.get();
        let copy = copies.and_then(|copies| copies.begin(record)).map(Arc::new);
        let offer = copies.filter(|_| copy.is_some()).map(crate::Copies::place);
        // Payloads of an invocation may be windowed: of those, the second half is not there before the first one was taken.
        let halves = length >= shared.config.parts_min_bytes && record.kind == ReferenceKind::Put;
        let middle = if halves { length.div_ceil(2) } else { length };
        let to = (middle < length).then_some(middle as u64);
        let holder = Arc::new(Holder::of(record, zipline_seal::new_lease_id()));
        let granted = self.grant_first(&holder, RetrieveOptions { from: 0, to }, offer).await?;
        // Dropping it from here on gives the lease back.
        let settling = Settling::new(Arc::clone(shared), Arc::clone(&holder));
        let reached = Arc::new(AtomicU64::new(0));
        let alive = show_life(Arc::clone(shared), Arc::clone(&holder), Arc::clone(&reached));
        let _alive = shared.tasks.spawn_owned("show life", alive);
        let (answer, relay) = match granted {
            Granted::Bytes(answer) => (Some(*answer), None),
            Granted::Relay(None) => (None, None),
            Granted::Relay(Some(place)) => self.ask_relay(&holder, *place, to).await.unzip(),
        };
        // What a digest is there for is shown to nobody before.
        let early = !is_verified(shared, record, length);
        let shown = copy.clone().filter(|_| early);
        let fetching = Fetching { shared, holder: &holder, length, middle, reached: &reached, shown };
        let came_by_relay = relay.is_some();
        let relay_holder = relay.as_ref().map(|relay| &*relay.holder);
        let (filled, mut found, relayed) = fetching.fill(memory, answer, relay_holder).await?;
        let filled = match (verify(shared, record, &filled, &found), relay, filled) {
            (Ok(()), relay, filled) => {
                // Whose copy was left half-way is given its lease back.
                if let Some(mut relay) = relay.filter(|_| relayed) {
                    relay.settling.acknowledged(|_result| {});
                }
                filled
            }
            // The holder's own bytes may be right.
            (Err(error), Some(_), Filled::Open(memory)) => {
                tracing::warn!(%error, "a relay's copy is not what the holder has, which is asked for it");
                let (filled, again, _) = fetching.fill(memory, None, None).await?;
                found = again;
                verify(shared, record, &filled, &found)
                    .map_err(|error| error.with_received(length as u64))?;
                filled
            }
            (Err(error), _, _) => return Err(error.with_received(length as u64)),
        };
        let bytes = filled.freeze();
        if let Some(copy) = copy {
            if !early {
                copy.add(0, bytes.clone());
            }
            copy.finish(found.clone());
        }
        Ok(Fetched { bytes, record: found, relayed: came_by_relay, settling })
    }

    /// Asks the relay that the holder has named. `None`: the holder is asked again.
    async fn ask_relay(&self, holder: &Holder, place: CopyPlace, to: Option<u64>) -> Option<(Answer, Relay)> {
        // What came by TLS is not to come without.
        if holder.certificate.is_some() && place.certificate.is_none() {
            return None;
        }
        let CopyPlace { boot, addresses, certificate } = place;
        let relay = Arc::new(Holder { boot, addresses, certificate, may_wait: false, ..holder.clone() });
        let mut unsettled = Unsettled { shared: &self.shared, holder: &relay, granted: true };
        let deadline = Instant::now() + self.shared.config.relay_wait;
        let granted = timeout_at(deadline, grant(&self.shared, &relay, 0, to, Some(deadline))).await;
        let answer = match granted {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                unsettled.granted = error.may_hold_a_lease();
                if matches!(error, GrantError::Unreachable(_)) {
                    self.stay_away();
                }
                tracing::debug!(%error, "back to the holder, as the relay did not grant its copy");
                return None;
            }
            Err(_elapsed) => {
                tracing::debug!("back to the holder, as the relay did not answer");
                self.stay_away();
                return None;
            }
        };
        unsettled.granted = false;
        let settling = Settling::new(Arc::clone(&self.shared), Arc::clone(&relay));
        let holder = Arc::clone(&relay);
        Some((answer, Relay { holder, settling }))
    }

    /// Where receivers cannot reach each other, not every retrieval is to find that out.
    fn stay_away(&self) {
        if let Some(copies) = self.shared.copies.get() {
            copies.pause();
        }
    }
}

impl Fetching<'_> {
    /// Fills `memory`. Says as well whether all of it came from the relay.
    async fn fill(
        &self,
        mut memory: SegmentMut,
        answer: Option<Answer>,
        relay: Option<&Holder>,
    ) -> Result<(Filled, FinalRecord, bool), RetrieveError> {
        let second = (self.middle < self.length).then(|| memory.split_off(self.middle));
        let part = |from: usize, to: usize, memory: SegmentMut| {
            let range = Range { from: from as u64, to: to as u64, length: self.length as u64 };
            let room = Room::new(range.from, memory, self.shown.clone());
            Filling::new(self.shared, self.holder, relay, range, self.reached, room)
        };
        let first = Box::pin(part(0, self.middle, memory).run(answer));
        let Some(second) = second else {
            let Part { room, record, relayed } = first.await?;
            return Ok((room.into_filled(None), record, relayed));
        };
        let second = Box::pin(part(self.middle, self.length, second).run(None));
        let (first, second) = tokio::try_join!(first, second)?;
        let relayed = first.relayed && second.relayed;
        Ok((first.room.into_filled(Some(second.room)), first.record, relayed))
    }
}

/// Whether the bytes of such a payload are compared with a digest that they may have.
fn is_verified(shared: &Shared, record: &Record, length: usize) -> bool {
    record.digest.is_some() || length as u64 <= shared.config.digest_max_bytes
}

/// Compares the bytes with the digests that are named.
fn verify(shared: &Shared, record: &Record, bytes: &[u8], found: &FinalRecord) -> Result<(), RetrieveError> {
    let named = [record.digest, found.digest];
    if is_verified(shared, record, bytes.len()) && named.iter().any(Option::is_some) {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        if named.into_iter().flatten().any(|expected| expected != digest) {
            return Err(Kind::Digest.into());
        }
    }
    Ok(())
}
