//! Copies of payloads that others hold, in memory of their receiver's, read by others while it fills.
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zipline_protocol::data::FinalRecord;
use zipline_protocol::{PayloadId, ReferenceKind, Retrievals};
use zipline_segment::SegmentBytes;

use super::{Shared, Store};
use crate::content::Content;
use crate::error::{BeginError, Gone};
use crate::ledger::{Admission, Begun, Serial};

/// The writing end of a copy. Dropping it before [`Self::finish`] ends the copy and its readers.
pub struct CopyWriter {
    shared: Arc<Shared>,
    content: Arc<Content>,
    id: PayloadId,
    serial: Serial,
    finished: AtomicBool,
}

impl Store {
    /// Begins a copy of `length` bytes of a payload that is held elsewhere. It can be retrieved at once, as far as it is there,
    /// any number of times, and lives for `ttl` once it is complete. Its bytes lie in memory that somebody else accounts for.
    ///
    /// # Errors
    /// [`BeginError`]: a payload of that id is there, the store drains, or it has no place for another payload.
    pub fn copy(&self, id: PayloadId, length: u64, ttl: Duration) -> Result<CopyWriter, BeginError> {
        let content = Arc::new(Content::new(Some(length)));
        let admission = Admission {
            id,
            kind: ReferenceKind::Put,
            length: Some(length),
            retrievals: Retrievals::Unlimited,
            ttl: Some(ttl),
            linger: Duration::ZERO,
            windowed: false,
            adopted: true,
        };
        let serial = self.shared.with(|state, now| match state.ledger.begin(now, admission, false)? {
            Begun::Accepted(serial) => {
                state.contents.insert(id, Arc::clone(&content));
                Ok(serial)
            }
            Begun::Waits(_) => {
                Err(BeginError::BufferFull { wanted_bytes: 0, budget_bytes: self.shared.config.budget_bytes })
            }
        })?;
        let finished = AtomicBool::new(false);
        Ok(CopyWriter { shared: Arc::clone(&self.shared), content, id, serial, finished })
    }
}

impl CopyWriter {
    /// Adds bytes from `offset` on. They follow what is there, or lie ahead of one gap that is filled later; what comes ahead of
    /// it follows each other in one mapping. False if they do neither, or the copy is gone; then nobody reads them.
    pub fn add(&self, offset: u64, bytes: SegmentBytes) -> bool {
        let Some(written) = self.content.place(offset, bytes) else { return false };
        self.content.readable.notify_waiters();
        self.shared.with(|state, _| state.ledger.advance(&self.id, self.serial, written))
    }

    /// Completes the copy with the final record of the payload. False if it is gone, or bytes are missing.
    pub fn finish(&self, record: FinalRecord) -> bool {
        if self.content.written() != record.length {
            return false;
        }
        let (id, serial) = (self.id, self.serial);
        if !self.shared.with(|state, now| state.ledger.finish(now, &id, serial)) {
            return false;
        }
        self.finished.store(true, Ordering::Relaxed);
        self.content.finish(record);
        self.content.readable.notify_waiters();
        true
    }
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        if !*self.finished.get_mut() {
            let (id, serial) = (self.id, self.serial);
            self.shared.with(|state, now| state.ledger.end(now, &id, serial, Gone::Aborted));
        }
    }
}

impl fmt::Debug for CopyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyWriter").field("finished", &self.finished).finish_non_exhaustive()
    }
}
