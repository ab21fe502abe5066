//! The writing end of one payload.
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};
use zipline_protocol::PayloadId;
use zipline_protocol::data::FinalRecord;
use zipline_segment::SegmentBytes;

use super::Shared;
use super::wait::PendingGrowth;
use crate::block::{Block, Charged};
use crate::config::Complete;
use crate::content::Content;
use crate::error::{Gone, WriteError};
use crate::ledger::{Room, Serial};
use crate::piece::Spare;
use crate::sync::oneshot;
use crate::sync::time::Instant;

/// The writing end of one payload. Dropping it before [`Self::finish`] aborts the payload.
pub struct PayloadWriter {
    shared: Arc<Shared>,
    content: Arc<Content>,
    id: PayloadId,
    serial: Serial,
    declared: Option<u64>,
    written: u64,
    hasher: Option<Sha256>,
    /// What is left of the time it may wait for memory.
    wait_left: Option<Duration>,
    /// A write was dropped half-way.
    torn: bool,
    finished: bool,
}

impl PayloadWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        content: Arc<Content>,
        id: PayloadId,
        serial: Serial,
        declared: Option<u64>,
        wait: Option<Duration>,
    ) -> Self {
        let digested = declared.is_none_or(|length| length <= shared.config.digest_max_bytes);
        Self {
            shared,
            content,
            id,
            serial,
            declared,
            written: 0,
            hasher: digested.then(Sha256::new),
            wait_left: wait,
            torn: false,
            finished: false,
        }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Adds bytes; they are copied once. A windowed payload waits until a receiver has taken enough, a growing one for
    /// memory, in sum no longer than its `wait`.
    ///
    /// # Errors
    /// See [`WriteError`]. After an error the payload can only be dropped.
    /// # Cancel safety
    /// Dropping the future gives up its place. If a part of `bytes` was taken already, later calls fail with
    /// [`WriteError::Torn`].
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), WriteError> {
        if self.torn {
            return Err(WriteError::Torn);
        }
        let total = self.written.saturating_add(bytes.len() as u64);
        if let Some(declared) = self.declared.filter(|declared| total > *declared) {
            return Err(WriteError::TooLong { declared });
        }
        if total > self.shared.config.digest_max_bytes {
            self.hasher = None;
        }
        while !bytes.is_empty() {
            let taken = self.content.append(&bytes);
            if taken > 0 {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&bytes[..taken]);
                }
                bytes.advance(taken);
                self.written += taken as u64;
                self.torn = !bytes.is_empty();
                self.content.readable.notify_waiters();
            }
            if !bytes.is_empty() {
                self.make_room().await?;
            }
        }
        self.torn = false;
        let (id, serial, written) = (self.id, self.serial, self.written);
        let alive = self.shared.with(|state, _| state.ledger.advance(&id, serial, written));
        if alive { Ok(()) } else { Err(self.gone()) }
    }

    /// Memory of the payload for the writer to fill by itself, at least one byte and at most `most`; what was written is told
    /// by [`Self::commit`]. Waits for memory as [`Self::write`] does. Never more than a declared length leaves.
    ///
    /// # Errors
    /// See [`WriteError`]; [`WriteError::TooLong`] also when a declared length is reached already.
    /// # Cancel safety
    /// Dropping the future gives up its place. A spare that is dropped without a commit leaves the payload torn.
    pub async fn reserve(&mut self, most: usize) -> Result<Spare, WriteError> {
        if self.torn {
            return Err(WriteError::Torn);
        }
        let left = self.declared.map_or(u64::MAX, |declared| declared - self.written);
        let most = most.max(1).min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 {
            return Err(WriteError::TooLong { declared: self.written });
        }
        loop {
            if let Some(gone) = self.content.gone.get() {
                return Err(WriteError::Gone(*gone));
            }
            if let Some(spare) = self.content.reserve(most) {
                self.torn = true;
                return Ok(spare);
            }
            self.make_room().await?;
        }
    }

    /// The first `written` bytes of `spare` are the payload's next ones.
    ///
    /// # Errors
    /// [`WriteError::Gone`]: nobody can read them any more.
    /// # Panics
    /// If more was written than there was room for.
    pub fn commit(&mut self, spare: Spare, written: usize) -> Result<(), WriteError> {
        assert!(written <= spare.len(), "{written} bytes do not fit into {}", spare.len());
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&spare[..written]);
        }
        self.content.commit(spare, written);
        self.written += written as u64;
        self.torn = false;
        self.content.readable.notify_waiters();
        let (id, serial, written) = (self.id, self.serial, self.written);
        let alive = self.shared.with(|state, _| state.ledger.advance(&id, serial, written));
        if alive { Ok(()) } else { Err(self.gone()) }
    }

    /// Takes all of the payload's bytes, which lie in memory of its own.
    pub(super) fn adopt(&mut self, bytes: SegmentBytes) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.written = bytes.len() as u64;
        self.content.adopt(bytes);
        let (id, serial, written) = (self.id, self.serial, self.written);
        // Whether it is still there shows when it is finished.
        self.shared.with(|state, _| state.ledger.advance(&id, serial, written));
    }

    async fn make_room(&mut self) -> Result<(), WriteError> {
        tokio::task::coop::consume_budget().await;
        let (id, serial, written) = (self.id, self.serial, self.written);
        loop {
            let content = Arc::clone(&self.content);
            let mut writable = std::pin::pin!(content.writable.notified());
            writable.as_mut().enable();
            let (room, warm, discarded) = self.shared.with(|state, now| {
                let room = state.ledger.advance(&id, serial, written).then(|| state.ledger.room(&id, serial));
                let (warm, discarded) = match room.flatten() {
                    Some(Room::Block(bytes)) => state.pool.take(now, bytes),
                    _ => (None, Vec::new()),
                };
                (room.flatten(), warm, discarded)
            });
            drop(discarded);
            match room {
                None => return Err(self.gone()),
                Some(Room::Block(bytes)) => {
                    let home: Weak<Shared> = Arc::downgrade(&self.shared);
                    let charged = Charged { home, payload: id, serial, bytes };
                    self.content.add_block(Block::new(charged, warm));
                    return Ok(());
                }
                Some(Room::Evict(start)) => drop(self.content.evict(start)),
                Some(Room::Full) => writable.await,
                Some(Room::Grow(bytes)) => self.grow(bytes).await?,
                Some(Room::TooLarge) => {
                    let budget_bytes = self.shared.config.budget_bytes;
                    return Err(WriteError::TooLarge { written, budget_bytes });
                }
            }
        }
    }

    async fn grow(&mut self, bytes: u64) -> Result<(), WriteError> {
        let (id, serial) = (self.id, self.serial);
        let budget_bytes = self.shared.config.budget_bytes;
        let full = WriteError::BufferFull { written: self.written, budget_bytes };
        let Some(wait) = self.wait_left else { return Err(full) };
        let queued = self.shared.with(|state, _| {
            let (answer, answered) = oneshot::channel();
            let ticket = state.ledger.queue_growth(&id, serial, bytes)?;
            state.growths.insert(ticket, answer);
            Some((ticket, answered))
        });
        let Some((ticket, answered)) = queued else {
            return Err(self.content.gone.get().map_or(full, |gone| WriteError::Gone(*gone)));
        };
        let began = Instant::now();
        let grown = PendingGrowth::new(Arc::clone(&self.shared), ticket, id).wait(wait, answered).await;
        self.wait_left = Some(wait.saturating_sub(began.elapsed()));
        if grown { Ok(()) } else { Err(full) }
    }

    /// Completes the payload with the trailers block that travels behind it. The life of a put begins here.
    ///
    /// # Errors
    /// [`WriteError::TooShort`]: fewer bytes than declared; the payload is aborted. [`WriteError::Gone`]: nobody can
    /// read it any more.
    pub fn finish(mut self, trailers: Vec<u8>) -> Result<Complete, WriteError> {
        if self.torn {
            return Err(WriteError::Torn);
        }
        let length = self.written;
        if let Some(declared) = self.declared.filter(|declared| *declared != length) {
            return Err(WriteError::TooShort { declared, written: length });
        }
        let digest = self.hasher.take().map(|hasher| hasher.finalize().into());
        let (id, serial) = (self.id, self.serial);
        // Bytes written are known to the ledger, except for those of a payload that never had any.
        if !self.shared.with(|state, now| state.ledger.finish(now, &id, serial)) {
            return Err(self.gone());
        }
        self.finished = true;
        self.content.finish(FinalRecord { length, digest, trailers });
        self.content.readable.notify_waiters();
        Ok(Complete { length, digest })
    }

    fn gone(&self) -> WriteError {
        WriteError::Gone(self.content.gone.get().copied().unwrap_or(Gone::Released))
    }
}

impl Drop for PayloadWriter {
    fn drop(&mut self) {
        if !self.finished {
            let (id, serial) = (self.id, self.serial);
            self.shared.with(|state, now| state.ledger.end(now, &id, serial, Gone::Aborted));
        }
    }
}

impl fmt::Debug for PayloadWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadWriter").field("written", &self.written).finish_non_exhaustive()
    }
}
