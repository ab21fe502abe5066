//! One neighbour's connection: proof first, then the operation, then what was shared until it is returned.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tokio::net::UnixStream;
use tokio::time::timeout;
use zipline_buffer::{Delivered, LeaseRequest, PayloadReader, Piece, ReadError, Store};
use zipline_protocol::data::{FinalRecord, Operation};
use zipline_protocol::host::{Ask, Reply};
use zipline_protocol::sdk::INLINE_MAX;
use zipline_protocol::{BootId, ErrorCode, LeaseId, PayloadId, limits};
use zipline_seal::{Keyring, ProvenRequest};

use super::SHARES_MAX;
use super::frames::{Frames, invalid};

/// The address that leases of neighbours are counted under.
const NEIGHBOURS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

type OnDelivered = dyn Fn(Delivered) + Send + Sync;

/// What all connections of a port share.
pub(super) struct Serving {
    boot: BootId,
    keyring: Keyring,
    store: Store,
    on_delivered: Box<OnDelivered>,
}

impl Serving {
    pub(super) fn new(boot: BootId, keyring: Keyring, store: Store, on_delivered: Box<OnDelivered>) -> Self {
        Self { boot, keyring, store, on_delivered }
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// Serves until the neighbour closes or sends what is no frame.
pub(super) async fn connection(serving: &Serving, stream: UnixStream) {
    let mut neighbour = Neighbour { serving, shares: HashMap::new(), open: HashMap::new(), next: 0 };
    if let Err(error) = neighbour.serve(Frames::new(stream)).await {
        tracing::debug!(%error, "a neighbour's connection broke");
    }
}

struct Neighbour<'a> {
    serving: &'a Serving,
    /// What is mapped on the other side.
    shares: HashMap<u64, Piece>,
    /// Leases that were neither acknowledged nor cancelled.
    open: HashMap<LeaseId, PayloadId>,
    next: u64,
}

/// Not so, and why.
struct Refusal {
    status: u16,
    code: ErrorCode,
    detail: String,
}

impl Refusal {
    fn new(status: u16, code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// The data port can do what this way cannot.
    fn elsewhere(detail: &str) -> Self {
        Self::new(404, ErrorCode::NotFound, detail)
    }

    fn frame(&self, proof: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        let (status, code, detail) = (self.status, Some(self.code), self.detail.as_str());
        Reply::Refused { status, code, detail, proof }.write(&mut frame);
        frame
    }
}

impl Neighbour<'_> {
    async fn serve(&mut self, mut frames: Frames) -> io::Result<()> {
        loop {
            let Some((head, body, descriptor)) = frames.next().await? else { return Ok(()) };
            if descriptor.is_some() {
                return Err(invalid("a descriptor from a receiver"));
            }
            match Ask::read(head, body).map_err(invalid)? {
                Ask::Returned { share } => drop(self.shares.remove(&share)),
                Ask::Prove { operation, proof } => {
                    let (frame, piece) = self.answer(operation, proof).await;
                    let place = piece.as_ref().and_then(Piece::place);
                    frames.send(&frame, place.as_ref().map(|place| place.fd())).await?;
                }
            }
        }
    }

    /// The answer, and what lies in the memory whose descriptor goes with it.
    async fn answer(&mut self, operation: Operation, proof: &str) -> (Vec<u8>, Option<Piece>) {
        let proven = match self.serving.keyring.verify_request_waiting(operation, proof).await {
            Ok(proven) => proven,
            Err(error) => {
                let status = if error.code() == ErrorCode::ReferenceInvalid { 400 } else { 403 };
                return (Refusal::new(status, error.code(), "no proof of the tenant's key").frame(""), None);
            }
        };
        match self.operate(operation, &proven).await {
            Ok(answered) => answered,
            Err(refusal) => (refusal.frame(&proven.sign_reply(refusal.status, Some(0))), None),
        }
    }

    async fn operate(
        &mut self,
        operation: Operation,
        proven: &ProvenRequest,
    ) -> Result<(Vec<u8>, Option<Piece>), Refusal> {
        let asked = proven.request();
        if asked.boot != self.serving.boot {
            return Err(Refusal::new(421, ErrorCode::PayloadLost, "the payload belongs to another process"));
        }
        let store = &self.serving.store;
        let done = match operation {
            Operation::Share | Operation::Retrieve | Operation::Part => return self.share(proven).await,
            Operation::Acknowledge => store.acknowledge(&asked.payload, &asked.lease).map(|delivered| {
                self.open.remove(&asked.lease);
                if let Some(delivered) = delivered {
                    (self.serving.on_delivered)(delivered);
                }
            }),
            Operation::Cancel => {
                self.open.remove(&asked.lease);
                store.cancel(&asked.payload, &asked.lease)
            }
            Operation::Alive => store.alive(&asked.payload, &asked.lease, 0),
        };
        done.map_err(|error| Refusal::new(error.data_status(), error.code(), error.to_string()))?;
        let mut frame = Vec::new();
        Reply::Done { proof: &proven.sign_reply(204, Some(0)) }.write(&mut frame);
        Ok((frame, None))
    }

    async fn share(&mut self, proven: &ProvenRequest) -> Result<(Vec<u8>, Option<Piece>), Refusal> {
        let asked = proven.request();
        if self.shares.len() >= SHARES_MAX {
            let detail = format!("{SHARES_MAX} shares of this connection were not returned");
            return Err(Refusal::new(507, ErrorCode::BufferFull, detail));
        }
        let (payload, lease) = (asked.payload, asked.lease);
        let wanted = LeaseRequest { payload, lease, peer: NEIGHBOURS, from: 0, to: None };
        let mut reader = self
            .serving
            .store
            .lease(wanted)
            .await
            .map_err(|error| Refusal::new(error.data_status(), error.code(), error.to_string()))?;
        // From here on there is a lease, whatever becomes of this request.
        self.open.insert(lease, payload);
        let whole = whole(&mut reader).await;
        drop(reader);
        let (piece, record) = match whole {
            Ok(whole) => whole,
            Err(refusal) => {
                self.give_up(&lease);
                return Err(refusal);
            }
        };
        let proof = proven.sign_reply(200, Some(record.length));
        let mut frame = Vec::new();
        if piece.len() <= INLINE_MAX {
            Reply::Inline { digest: record.digest, proof: &proof, bytes: &piece }.write(&mut frame);
            return Ok((frame, None));
        }
        let Some(place) = piece.place() else {
            self.give_up(&lease);
            return Err(Refusal::elsewhere("the payload lies in memory that cannot be passed"));
        };
        // Before anybody else has the descriptor: no mapping made from it can ever be written.
        place.mapping.mark_shared();
        if let Err(error) = place.mapping.seal_future_write() {
            tracing::warn!(%error, "memory cannot be sealed, so it is not shared");
            self.give_up(&lease);
            return Err(Refusal::elsewhere("the payload's memory cannot be sealed"));
        }
        let (share, offset, length) = (self.next, place.offset, record.length);
        self.next += 1;
        Reply::Shared { share, offset, length, digest: record.digest, proof: &proof }.write(&mut frame);
        self.shares.insert(share, piece.clone());
        Ok((frame, Some(piece)))
    }

    fn give_up(&mut self, lease: &LeaseId) {
        if let Some(payload) = self.open.remove(lease) {
            // Gone already, which is as good.
            let _ = self.serving.store.cancel(&payload, lease);
        }
    }
}

impl Drop for Neighbour<'_> {
    fn drop(&mut self) {
        for piece in self.shares.values() {
            // Nobody will say when the other side has let go of it.
            if let Some(place) = piece.place() {
                place.mapping.mark_abandoned();
            }
        }
        for (lease, payload) in self.open.drain() {
            let _ = self.serving.store.cancel(&payload, &lease);
        }
    }
}

/// The payload in one piece, once it is complete.
async fn whole(reader: &mut PayloadReader) -> Result<(Piece, FinalRecord), Refusal> {
    let lost = |error: ReadError| Refusal::new(424, ErrorCode::PayloadLost, error.to_string());
    let completed = timeout(limits::KEY_WAIT, reader.completed()).await;
    let record =
        completed.map_err(|_elapsed| Refusal::elsewhere("the payload still grows"))?.map_err(lost)?;
    if !record.trailers.is_empty() {
        return Err(Refusal::elsewhere("the payload has trailers"));
    }
    let most = usize::try_from(record.length).unwrap_or(usize::MAX);
    match reader.next_piece(most).await {
        Some(piece) => {
            let piece = piece.map_err(lost)?;
            if piece.len() as u64 == record.length {
                return Ok((piece, record));
            }
        }
        // Nothing at all is a piece as well.
        None if record.length == 0 => return Err(Refusal::elsewhere("the payload is empty")),
        None => {}
    }
    Err(Refusal::elsewhere("the payload lies in more pieces than one"))
}
