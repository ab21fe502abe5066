//! Gets of an SDK.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};
use zipline_buffer::LeaseRequest;
use zipline_protocol::sdk::{INLINE_MAX, Origin};
use zipline_protocol::{ErrorCode, LeaseId, PayloadId, Record, ReferenceKind, Way};
use zipline_seal::new_lease_id;
use zipline_segment::{SegmentBytes, SegmentMut};
use zipline_transfer::host::{self, Receipt, SharedBytes};
use zipline_transfer::{Fetched, Retrieval, RetrieveOptions};

use super::memory::Incoming;
use super::segments::Mappings;
use crate::api::Refusal;
use crate::api::reference::open_text;
use crate::edges::{Direction, Zones};
use crate::state::{Shared, Transfer};

/// A payload that is there as a whole. Dropping it without [`Gotten::delivered`] gives its lease back: nothing is spent.
#[derive(Debug)]
pub(super) struct Gotten {
    pub(super) origin: Origin,
    pub(super) content_type: Option<Vec<u8>>,
    pub(super) bytes: GottenBytes,
    lease: Lease,
}

#[derive(Debug)]
pub(super) enum GottenBytes {
    /// Few enough for a frame.
    Inline(Bytes),
    /// In memory that can be shown.
    Memory(SegmentBytes),
}

/// What has to be told once the function has it.
#[derive(Debug)]
enum Lease {
    Own(OwnLease),
    Host(Receipt),
    Remote(Arc<Shared>, Box<Retrieval>),
    Fetched(Box<Fetched>),
}

#[derive(Debug)]
struct OwnLease {
    shared: Arc<Shared>,
    payload: PayloadId,
    lease: LeaseId,
    settled: bool,
}

impl Drop for OwnLease {
    fn drop(&mut self) {
        if !self.settled {
            // The payload may be gone, which ends its leases.
            let _ = self.shared.store.cancel(&self.payload, &self.lease);
        }
    }
}

impl Gotten {
    /// The function gets it: its retrieval counts.
    pub(super) fn delivered(self) {
        match self.lease {
            Lease::Own(mut own) => {
                own.settled = true;
                if let Ok(Some(delivered)) = own.shared.store.acknowledge(&own.payload, &own.lease) {
                    own.shared.delivered(delivered);
                }
            }
            Lease::Fetched(fetched) => fetched.acknowledge_later(),
            Lease::Host(receipt) => receipt.acknowledge_in_background(),
            // The holder is told, whatever becomes of the connection.
            Lease::Remote(shared, retrieval) => {
                drop(shared.tasks.clone().spawn("acknowledge a get", async move {
                    if let Err(error) = retrieval.acknowledge().await {
                        tracing::warn!(%error, "a retrieval could not be acknowledged");
                    }
                    drop(shared);
                }));
            }
        }
    }
}

/// Memory of the connection that gets.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Mappings,
}

/// Gets what a reference names, before `deadline`. Whether large ones can be shown is `mapped`.
pub(super) async fn get(
    shared: Arc<Shared>,
    memory: Memory,
    reference: String,
    mapped: bool,
    deadline: Instant,
) -> Result<Gotten, Refusal> {
    let got = timeout_at(deadline, async {
        let record = open_text(&shared, &reference).await?;
        if !mapped && record.length.is_none_or(|length| length > INLINE_MAX as u64) {
            return Err(Refusal::new(
                ErrorCode::PayloadTooLarge,
                format_args!(
                    "more than {INLINE_MAX} bytes cannot come without a descriptor: get it over HTTP"
                ),
            ));
        }
        if record.boot == shared.boot {
            own(&shared, &memory, record).await
        } else {
            remote(&shared, &memory.incoming, record).await
        }
    });
    got.await.unwrap_or_else(|_elapsed| {
        Err(Refusal::new(
            ErrorCode::DeadlineExceeded,
            "the payload did not come within the time limit: allow more, or ask again; nothing was spent",
        ))
    })
}

async fn own(shared: &Arc<Shared>, memory: &Memory, record: Record) -> Result<Gotten, Refusal> {
    let (payload, lease) = (record.payload, new_lease_id());
    let lost = |code, error: &dyn std::fmt::Display| {
        Refusal::new(code, format_args!("payload {}: {error}", payload.to_text()))
    };
    let request = LeaseRequest { payload, lease, peer: IpAddr::from(Ipv4Addr::LOCALHOST), from: 0, to: None };
    let mut reader = shared.store.lease(request).await.map_err(|error| lost(error.code(), &error))?;
    let lease = OwnLease { shared: Arc::clone(shared), payload, lease, settled: false };
    let length = reader.completed().await.map_err(|error| lost(error.code(), &error))?.length;
    let gotten = |bytes| Gotten {
        origin: Origin::Own,
        content_type: record.content_type.clone(),
        bytes,
        lease: Lease::Own(lease),
    };
    let mut place = None;
    while let Some(piece) = reader.next_piece(usize::MAX).await {
        let piece = piece.map_err(|error| lost(error.code(), &error))?;
        // What this function put lies in memory that it has mapped already. Any other memory of the store's would be used
        // again while the function may still look at it, should its connection break: so it is copied.
        if let Some(segment) = piece.as_segment()
            && segment.len() as u64 == length
            && memory.outgoing.segment_of(segment).is_some()
        {
            return Ok(gotten(GottenBytes::Memory(segment.clone())));
        }
        let place = match &mut place {
            Some(place) => place,
            None => place.insert(Filling::for_bytes(&memory.incoming, length).await?),
        };
        place.add(&piece)?;
    }
    let place = match place {
        Some(place) => place,
        None => Filling::for_bytes(&memory.incoming, 0).await?,
    };
    Ok(gotten(place.filled()?))
}

async fn remote(shared: &Arc<Shared>, incoming: &Incoming, record: Record) -> Result<Gotten, Refusal> {
    let started = Instant::now();
    let lost = |code, error: &dyn std::fmt::Display| {
        let payload = record.payload.to_text();
        Refusal::new(code, format_args!("payload {payload} could not be retrieved from its holder: {error}"))
    };
    if let Some(neighbours) = &shared.neighbours {
        let payload = neighbours.share(&record).await.map_err(|error| lost(error.code(), &error))?;
        if let Some(host::Shared { bytes, receipt }) = payload {
            let bytes = match bytes {
                SharedBytes::Inline(bytes) => GottenBytes::Inline(bytes),
                SharedBytes::Segment(bytes) => GottenBytes::Memory(bytes),
            };
            received(shared, shared.zones(&record.zone), Way::SameHost, bytes.len(), started);
            let lease = Lease::Host(receipt);
            return Ok(Gotten { origin: Origin::Host, content_type: record.content_type, bytes, lease });
        }
    }
    let mut zones = shared.zones(&record.zone);
    let (bytes, lease) = match record.length.filter(|length| *length > INLINE_MAX as u64) {
        // The socket is read straight into memory that the function will see.
        Some(length) => {
            let memory = incoming.segment(length).await?;
            let fetched = shared.retriever.fetch(&record, memory).await;
            let fetched = fetched.map_err(|error| lost(error.code(), &error))?;
            if fetched.is_relayed() {
                // Nobody says where a relay is.
                zones = Zones::Unknown;
            }
            (GottenBytes::Memory(fetched.bytes()), Lease::Fetched(Box::new(fetched)))
        }
        None => {
            let granted = shared.retriever.start(&record, RetrieveOptions::default()).await;
            let mut retrieval = granted.map_err(|error| lost(error.code(), &error))?;
            let Some(length) = record.length.or_else(|| retrieval.length()) else {
                let detail = "it is still growing, and has no length to make room for";
                return Err(lost(ErrorCode::PayloadLost, &detail));
            };
            let mut place = Filling::for_bytes(incoming, length).await?;
            while let Some(chunk) = retrieval.next().await {
                place.add(&chunk.map_err(|error| lost(error.code(), &error))?)?;
            }
            (place.filled()?, Lease::Remote(Arc::clone(shared), Box::new(retrieval)))
        }
    };
    received(shared, zones, Way::Network, bytes.len(), started);
    Ok(Gotten { origin: Origin::Network, content_type: record.content_type, bytes, lease })
}

fn received(shared: &Shared, zones: Zones, way: Way, bytes: u64, started: Instant) {
    let elapsed = started.elapsed();
    shared.metrics.retrieved(elapsed);
    shared.record(Transfer {
        direction: Direction::Received,
        kind: ReferenceKind::Put,
        peer: None,
        way,
        reason: None,
        zones,
        bytes,
        elapsed,
    });
}

impl GottenBytes {
    fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }
}

/// Where bytes of a known number go as they come.
enum Filling {
    Inline(BytesMut, usize),
    Memory(SegmentMut, usize),
}

impl Filling {
    async fn for_bytes(incoming: &Incoming, length: u64) -> Result<Self, Refusal> {
        match usize::try_from(length) {
            Ok(length) if length <= INLINE_MAX => Ok(Self::Inline(BytesMut::with_capacity(length), length)),
            _ => Ok(Self::Memory(incoming.segment(length).await?, 0)),
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Inline(filled, length) if filled.len() + bytes.len() <= *length => {
                filled.extend_from_slice(bytes)
            }
            Self::Memory(segment, filled) if *filled + bytes.len() <= segment.len() => {
                segment[*filled..*filled + bytes.len()].copy_from_slice(bytes);
                *filled += bytes.len();
            }
            _ => return Err(wrong_length()),
        }
        Ok(())
    }

    fn filled(self) -> Result<GottenBytes, Refusal> {
        match self {
            Self::Inline(filled, length) if filled.len() == length => {
                Ok(GottenBytes::Inline(filled.freeze()))
            }
            Self::Memory(segment, filled) if filled == segment.len() => {
                Ok(GottenBytes::Memory(segment.freeze()))
            }
            _ => Err(wrong_length()),
        }
    }
}

fn wrong_length() -> Refusal {
    Refusal::new(ErrorCode::PayloadLost, "the payload has another length than was said: put it again")
}
