//! One payload's entry in the ledger.
use std::time::Duration;

use zipline_protocol::{PayloadId, ReferenceKind, Retrievals};

use super::lease::Leases;
use super::memory::{Growth, Memory};
use super::{Admission, Serial};
use crate::config::{PayloadInfo, PayloadPhase, Settled};

#[derive(Debug)]
pub(super) struct Payload {
    pub(super) serial: Serial,
    pub(super) kind: ReferenceKind,
    pub(super) phase: PayloadPhase,
    pub(super) begun: Duration,
    /// Declared, or known since it is complete.
    pub(super) length: Option<u64>,
    pub(super) written: u64,
    pub(super) retrievals: Retrievals,
    pub(super) acknowledged: u32,
    pub(super) ttl: Option<Duration>,
    pub(super) linger: Duration,
    /// When it expires; set when it is complete.
    pub(super) expires: Option<Duration>,
    pub(super) capped_by_drain: bool,
    pub(super) lingers_until: Option<Duration>,
    pub(super) settled: Option<Settled>,
    pub(super) memory: Memory,
    pub(super) leases: Leases,
}

impl Payload {
    pub(super) fn new(
        now: Duration,
        serial: Serial,
        admission: Admission,
        reserve: u64,
        growth: Growth,
    ) -> Self {
        Self {
            serial,
            kind: admission.kind,
            phase: PayloadPhase::Filling,
            begun: now,
            length: admission.length,
            written: 0,
            retrievals: admission.retrievals,
            acknowledged: 0,
            ttl: admission.ttl,
            linger: admission.linger,
            expires: None,
            capped_by_drain: false,
            lingers_until: None,
            settled: None,
            memory: Memory::new(growth, reserve, admission.windowed),
            leases: Leases::default(),
        }
    }

    pub(super) fn set_expiry(&mut self, now: Duration, drain_deadline: Option<Duration>) {
        let Some(ttl) = self.ttl else { return };
        let asked = now.saturating_add(ttl);
        self.capped_by_drain = drain_deadline.is_some_and(|deadline| deadline < asked);
        self.expires = Some(drain_deadline.map_or(asked, |deadline| deadline.min(asked)));
    }

    /// Whether as many retrievals were acknowledged as are allowed.
    pub(super) fn used_up(&self) -> bool {
        matches!(self.retrievals, Retrievals::Limited(max) if self.acknowledged >= max)
    }

    /// Whether it is spent and stays for retries.
    pub(super) fn lingers(&self, now: Duration) -> bool {
        self.lingers_until.is_some_and(|until| until > now)
    }

    /// Retrievals neither acknowledged nor taken by a running lease.
    pub(super) fn free_retrievals(&self) -> u32 {
        match self.retrievals {
            Retrievals::Unlimited => u32::MAX,
            Retrievals::Limited(max) => {
                max.saturating_sub(self.acknowledged).saturating_sub(self.leases.taking())
            }
        }
    }

    pub(super) fn info(&self, now: Duration, id: PayloadId) -> PayloadInfo {
        PayloadInfo {
            id,
            kind: self.kind,
            phase: self.phase,
            age: now.saturating_sub(self.begun),
            length: self.length,
            buffered_bytes: self.written - self.memory.start(),
            retrievals_left: match self.retrievals {
                Retrievals::Unlimited => None,
                Retrievals::Limited(max) => Some(max.saturating_sub(self.acknowledged)),
            },
            expires_in: self.expires.map(|at| at.saturating_sub(now)),
            leases: self.leases.running(),
        }
    }
}
