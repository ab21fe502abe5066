//! The asynchronous face over ledger and segments.
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use zipline_protocol::data::FinalRecord;
use zipline_protocol::{LeaseId, PayloadId};

use crate::config::{Complete, Expiry, LeaseRequest, PayloadInfo, Settled, Snapshot, Spec, StoreConfig};
use crate::error::{AckError, BeginError, LeaseError, ReadError, ReleaseError, WriteError};

/// The payloads of one holder. Clones share them.
#[derive(Clone, Debug)]
pub struct Store {}

/// The writing end of one payload.
#[derive(Debug)]
pub struct PayloadWriter {}

/// Ties a payload to its invocation.
#[derive(Debug)]
pub struct PayloadGuard {}

/// The reading end of one lease.
#[derive(Debug)]
pub struct PayloadReader {}

impl Store {
    /// An empty store.
    pub fn new(_config: StoreConfig) -> Self {
        todo!()
    }
    /// Keeps at most `segments` warm segments for reuse.
    pub fn keep_warm(&self, _segments: usize) {
        todo!()
    }
    /// Accepts a payload, once there is memory for it.
    pub fn begin(
        &self,
        _spec: Spec,
    ) -> impl Future<Output = Result<(PayloadWriter, PayloadGuard), BeginError>> + Send + 'static {
        async { todo!() }
    }
    /// Takes or resumes a lease.
    pub fn lease(
        &self,
        _request: LeaseRequest,
    ) -> impl Future<Output = Result<PayloadReader, LeaseError>> + Send + 'static {
        async { todo!() }
    }
    /// Every byte of the lease was delivered. Idempotent.
    pub fn acknowledge(&self, _payload: &PayloadId, _lease: &LeaseId) -> Result<(), AckError> {
        todo!()
    }
    /// The lease is given up. Idempotent.
    pub fn cancel(&self, _payload: &PayloadId, _lease: &LeaseId) -> Result<(), AckError> {
        todo!()
    }
    /// Frees a payload. Idempotent for spent ones.
    pub fn release(&self, _payload: &PayloadId) -> Result<(), ReleaseError> {
        todo!()
    }
    /// One payload's state.
    pub fn info(&self, _payload: &PayloadId) -> Option<PayloadInfo> {
        todo!()
    }
    /// Begins to drain.
    pub fn drain(&self, _grace: Duration) {
        todo!()
    }
    /// Resolves when draining and either nothing is held or the grace is over.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        async { todo!() }
    }
    /// Drives expiry, lapses, linger. Never resolves; the caller owns it as a task.
    pub fn run_expiry(&self) -> impl Future<Output = ()> + Send + 'static {
        async { todo!() }
    }
    /// What is held now.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
}

impl PayloadWriter {
    /// Adds bytes; waits for memory or window room.
    pub async fn write(&mut self, _bytes: Bytes) -> Result<(), WriteError> {
        todo!()
    }
    /// Completes the payload.
    pub fn finish(self, _trailers: Vec<u8>) -> Result<Complete, WriteError> {
        todo!()
    }
    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        todo!()
    }
}

impl PayloadGuard {
    /// The payload's id.
    pub fn id(&self) -> &PayloadId {
        todo!()
    }
    /// Lets the payload live on by its ttl and retrievals.
    pub fn keep(self) {
        todo!()
    }
    /// When it expires; `None` before it is complete, or when it has no ttl.
    pub fn expiry(&self) -> Option<Expiry> {
        todo!()
    }
    /// Resolves when it was acknowledged, cancelled by its receiver, or lost.
    pub fn settled(&self) -> impl Future<Output = Settled> + Send + 'static {
        async { todo!() }
    }
    /// Reads it locally from byte 0; `None` when byte 0 has left the window or the payload is gone.
    pub fn reader_from_start(&self) -> Option<PayloadReader> {
        todo!()
    }
}

impl PayloadReader {
    /// The payload's length, once known.
    pub fn payload_length(&self) -> Option<u64> {
        todo!()
    }
    /// Offset of the next byte.
    pub fn position(&self) -> u64 {
        todo!()
    }
    /// The next bytes, at most `SEGMENT` of them; `None` at the end of the range.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        todo!()
    }
    /// The final record, once the payload is complete.
    pub fn final_record(&self) -> Option<FinalRecord> {
        todo!()
    }
}
