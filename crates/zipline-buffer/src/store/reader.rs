//! The reading end of one lease.
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use zipline_protocol::data::FinalRecord;
use zipline_protocol::limits;

use super::Shared;
use crate::content::{Content, Found};
use crate::error::ReadError;
use crate::ledger::{Grant, LeaseKey};
use crate::piece::Piece;
use zipline_segment::Place;

/// The reading end of one lease. Dropping it leaves a receiver's lease running until it lapses, so that the receiver can
/// resume.
pub struct PayloadReader {
    shared: Arc<Shared>,
    content: Arc<Content>,
    grant: Grant,
    from: u64,
    position: u64,
    to: Option<u64>,
    /// The lease it reads a part for.
    part_of: Option<LeaseKey>,
    /// Nothing of the payload goes before all of it does.
    whole: bool,
    /// The mapping that was queued last.
    queued: Option<u64>,
}

impl PayloadReader {
    pub(super) fn new(
        shared: Arc<Shared>,
        content: Arc<Content>,
        grant: Grant,
        from: u64,
        to: Option<u64>,
    ) -> Self {
        let whole = shared.with(|state, _| state.ledger.keeps_all(&grant.payload));
        Self { shared, content, grant, from, position: from, to, part_of: None, whole, queued: None }
    }

    /// Reads for `lease` from now on: what is read is its progress, and with it the reading ends.
    pub(super) fn part_of(mut self, lease: LeaseKey) -> Self {
        self.part_of = Some(lease);
        self
    }

    /// The payload's whole length in bytes, once known.
    pub fn payload_length(&self) -> Option<u64> {
        self.content.length()
    }

    /// Offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// As [`Self::next_piece`], at most `SEGMENT` bytes.
    ///
    /// # Errors
    /// See [`ReadError`]; nothing follows an error.
    /// # Cancel safety
    /// Yes: bytes are taken only when the future is ready.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        self.next_piece(limits::SEGMENT).await.map(|piece| piece.map(Bytes::from))
    }

    /// The next bytes, never empty, at most `most` of them and without a copy; `None` at the end of the range or of the
    /// payload. Waits for bytes that are not written yet. Each call that yields is progress of the lease.
    ///
    /// The bytes stay charged to the budget until they are dropped.
    /// # Errors
    /// See [`ReadError`]; nothing follows an error.
    /// # Cancel safety
    /// Yes: bytes are taken only when the future is ready.
    pub async fn next_piece(&mut self, most: usize) -> Option<Result<Piece, ReadError>> {
        let most = most.max(1);
        tokio::task::coop::consume_budget().await;
        loop {
            let content = Arc::clone(&self.content);
            match content.read(self.from, self.position, self.to, most) {
                Ok(Found::Bytes(bytes)) => {
                    let position = self.position + bytes.len() as u64;
                    if let Err(error) = self.progress(position) {
                        return Some(Err(error));
                    }
                    self.position = position;
                    return Some(Ok(bytes));
                }
                Ok(Found::End) => return None,
                Ok(Found::Nothing) => {}
                Err(error) => return Some(Err(error)),
            }
            let mut readable = std::pin::pin!(content.readable.notified());
            readable.as_mut().enable();
            // What came between looking and listening would not be heard.
            if let Ok(Found::Nothing) = content.read(self.from, self.position, self.to, most)
                && let Err(error) = self.starve(readable).await
            {
                return Some(Err(error));
            }
        }
    }

    /// Where a piece of it lies, if the kernel may be handed its pages in place of a copy. Its memory is then not written again
    /// before the lease is acknowledged; if it never is, not at all.
    ///
    /// `None`: copy it. It is ordinary memory, belongs to a window, which uses memory again as soon as it was sent, or too many
    /// are out.
    pub fn queue<'a>(&mut self, piece: &'a Piece) -> Option<Place<'a>> {
        let place = piece.place().filter(|_| self.whole)?;
        let mapping = place.mapping.id();
        if self.queued != Some(mapping) {
            let lease = self.part_of.unwrap_or(self.grant.key);
            if !self.content.queue(lease, place.mapping) {
                return None;
            }
            self.queued = Some(mapping);
        }
        Some(place)
    }

    /// Waits until the payload is complete: the final record speaks of the whole payload, whatever the range.
    ///
    /// # Errors
    /// See [`ReadError`].
    /// # Cancel safety
    /// Yes.
    pub async fn completed(&mut self) -> Result<FinalRecord, ReadError> {
        let content = Arc::clone(&self.content);
        loop {
            let mut readable = std::pin::pin!(content.readable.notified());
            readable.as_mut().enable();
            if let Some(record) = content.final_record() {
                return Ok(record);
            }
            if let Some(gone) = content.gone.get() {
                return Err(ReadError::Gone(*gone));
            }
            self.starve(readable).await?;
        }
    }

    /// The final record, once the payload is complete.
    pub fn final_record(&self) -> Option<FinalRecord> {
        self.content.final_record()
    }

    /// Whether the payload is complete.
    pub fn is_complete(&self) -> bool {
        self.content.is_complete()
    }

    /// Waits while the lease is known to wait for the writer.
    async fn starve(&self, readable: impl Future<Output = ()>) -> Result<(), ReadError> {
        let Self { shared, grant, .. } = self;
        self.explain(shared.with(|state, now| state.ledger.starve(now, grant, true)))?;
        let _starving = Starving { shared, grant };
        readable.await;
        Ok(())
    }

    fn progress(&self, position: u64) -> Result<(), ReadError> {
        self.explain(self.shared.with(|state, now| match self.part_of {
            Some(lease) if !state.ledger.support(now, &self.grant.payload, lease) => Err(ReadError::Ended),
            _ => state.ledger.progress(now, &self.grant, position),
        }))
    }

    /// The ledger forgets why a payload is gone; the content knows.
    fn explain(&self, result: Result<(), ReadError>) -> Result<(), ReadError> {
        result.map_err(|error| match (error, self.content.gone.get()) {
            (ReadError::Gone(_), Some(gone)) => ReadError::Gone(*gone),
            (error, _) => error,
        })
    }
}

struct Starving<'a> {
    shared: &'a Shared,
    grant: &'a Grant,
}

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        // A lease that ended meanwhile has nothing to be told.
        let _ended = self.shared.with(|state, now| state.ledger.starve(now, self.grant, false));
    }
}

impl Drop for PayloadReader {
    fn drop(&mut self) {
        self.shared.with(|state, now| state.ledger.detach(now, &self.grant));
    }
}

impl fmt::Debug for PayloadReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadReader").field("position", &self.position).finish_non_exhaustive()
    }
}
