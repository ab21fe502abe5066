//! What goes into a store and what comes out: settings, requests, answers, snapshots.
use std::net::IpAddr;
use std::time::Duration;

use zipline_protocol::{LeaseId, PayloadId, ReferenceKind, Retrievals};

/// The settings of a [`Store`](crate::Store).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Hard limit, in bytes, of payload memory: reserved, held, and still referenced by readers.
    pub budget_bytes: u64,
    /// Memory, in bytes, of one payload that cannot be held whole. At most `budget_bytes`.
    pub window_bytes: u64,
    /// Most payloads at once. A payload beyond it waits like one for which there is no memory.
    pub max_payloads: usize,
    /// Most waiters for memory, and most waiters for leases. Further ones are refused with `buffer-full`.
    pub max_waiters: usize,
    /// Longest payload, in bytes, whose SHA-256 is computed.
    pub digest_max_bytes: u64,
}

impl StoreConfig {
    /// The defaults of `docs/protocol.md` section 2 for a budget of `budget_bytes`.
    pub fn with_budget(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            window_bytes: (budget_bytes / 4).clamp(1, 64 << 20),
            max_payloads: 65_536,
            max_waiters: 16_384,
            digest_max_bytes: zipline_protocol::limits::DIGEST_MAX,
        }
    }
}

/// What is to be held.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The payload's id; fresh and random.
    pub id: PayloadId,
    /// What the payload is part of. Shown in snapshots; the rules follow from the other fields.
    pub kind: ReferenceKind,
    /// Its length in bytes; `None` for a growing payload.
    pub length: Option<u64>,
    /// How many acknowledged retrievals use it up.
    pub retrievals: Retrievals,
    /// Life after it is complete; `None`: as long as its guard.
    pub ttl: Option<Duration>,
    /// How long after its last retrieval was acknowledged it can be retrieved again, uncounted.
    pub linger: Duration,
    /// Longest wait for memory, in sum over its growth; `None`: memory at once or not at all.
    pub wait: Option<Duration>,
    /// Whether it may be held in a window when it cannot be held whole.
    pub windowed: bool,
}

/// A request for a lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest {
    /// The payload to be read.
    pub payload: PayloadId,
    /// The receiver's lease id; the same id resumes a running lease.
    pub lease: LeaseId,
    /// The receiver's address, for the cap of leases per address.
    pub peer: IpAddr,
    /// First byte wanted.
    pub from: u64,
    /// End of the range, exclusive; `None`: to the end. Beyond the end counts as the end.
    pub to: Option<u64>,
}

/// A complete payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256, unless it is longer than `digest_max_bytes`.
    pub digest: Option<[u8; 32]>,
}

/// A delivery that an acknowledgement has just told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// What the payload is part of.
    pub kind: ReferenceKind,
    /// Its length in bytes.
    pub length: u64,
    /// How long it had been held by then.
    pub held: Duration,
}

/// How the transfer of a payload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// A receiver acknowledged it.
    Acknowledged,
    /// The receiver gave its lease up and no other lease was running.
    Cancelled,
    /// It is gone: aborted, released, expired.
    Lost,
}

/// When a payload expires, and why then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Time left.
    pub after: Duration,
    /// What bounds it.
    pub bound: ExpiryBound,
}

/// What bounds the life of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryBound {
    /// The ttl that was asked for.
    Ttl,
    /// The holder is draining; its remaining grace is shorter.
    Drain,
}

/// The state of a payload (`docs/protocol.md` section 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadPhase {
    /// Its bytes still arrive.
    Filling,
    /// Complete.
    Held,
    /// Its retrievals are used up; it lingers, or a lease still runs.
    Spent,
}

/// One payload, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadInfo {
    /// Its id. For spans only; never a metric label.
    pub id: PayloadId,
    /// What it is part of.
    pub kind: ReferenceKind,
    /// Its state.
    pub phase: PayloadPhase,
    /// Time since it was accepted.
    pub age: Duration,
    /// Its length in bytes, once known.
    pub length: Option<u64>,
    /// Bytes of it that can be read now.
    pub buffered_bytes: u64,
    /// Acknowledged retrievals left; `None`: unlimited.
    pub retrievals_left: Option<u32>,
    /// Time until it expires; `None`: it lives as long as its invocation, or is not complete yet.
    pub expires_in: Option<Duration>,
    /// Leases running on it.
    pub leases: usize,
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes charged to the budget: reserved, held, or still referenced by readers of payloads already gone.
    pub held_bytes: u64,
    /// The most `held_bytes` ever was.
    pub peak_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// Bytes in warm segments, ready for reuse or prepared for grants. With the used ones never above the budget; given up when
    /// needed, or when none was taken for 30 s.
    pub warm_bytes: u64,
    /// Bytes in buffers that exist now, and in memory that was granted: in use and warm.
    pub allocated_bytes: u64,
    /// Payloads held.
    pub payload_count: usize,
    /// Requests waiting for memory.
    pub waiters: usize,
    /// Retrievals waiting for a lease.
    pub lease_waiters: usize,
    /// Leases running.
    pub leases: usize,
    /// Whether the store drains.
    pub draining: bool,
    /// The payloads, oldest first, at most [`Snapshot::PAYLOADS_MAX`] of them.
    pub payloads: Vec<PayloadInfo>,
}

impl Snapshot {
    /// Most payloads listed in one snapshot.
    pub const PAYLOADS_MAX: usize = 1_000;
}
