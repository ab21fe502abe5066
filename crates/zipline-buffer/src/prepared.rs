//! Mappings with pages, ready for the next grant.
//!
//! Memory that a function writes in place is granted before there is a payload. Whoever is granted memory asks at the same time
//! for another mapping of that size, which is made in the background: so the next one finds its pages. Only what nobody has
//! seen yet is here: mappings that were granted never come back.
use std::time::Duration;

use zipline_segment::Mapping;

/// Mappings are unmapped after this time without anyone taking one.
const IDLE: Duration = Duration::from_secs(30);

/// Most mappings: each is a descriptor. The oldest goes first.
const MOST: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The oldest first.
    mappings: Vec<Mapping>,
    quiet_since: Duration,
    /// Bytes of what was granted last.
    wanted: Option<u64>,
}

impl Prepared {
    pub(crate) fn bytes(&self) -> u64 {
        self.mappings.iter().map(|mapping| mapping.capacity() as u64).sum()
    }

    /// One of exactly `bytes`, if it is there; another one is wanted from now on.
    pub(crate) fn take(&mut self, now: Duration, bytes: u64) -> Option<Mapping> {
        self.quiet_since = now;
        self.wanted = Some(bytes);
        let fits = |mapping: &Mapping| mapping.capacity() as u64 == bytes;
        self.mappings.iter().position(fits).map(|at| self.mappings.remove(at))
    }

    /// The size of what is wanted and not there. It is told once.
    pub(crate) fn wanted(&mut self) -> Option<u64> {
        let there = |bytes: &u64| self.mappings.iter().any(|mapping| mapping.capacity() as u64 == *bytes);
        self.wanted.take().filter(|bytes| !there(bytes))
    }

    /// Adds one; gives back what is too much, to be dropped without a lock.
    pub(crate) fn add(&mut self, mapping: Mapping) -> Option<Mapping> {
        let oldest = (self.mappings.len() >= MOST).then(|| self.mappings.remove(0));
        self.mappings.push(mapping);
        oldest
    }

    /// The oldest.
    pub(crate) fn pop(&mut self) -> Option<Mapping> {
        (!self.mappings.is_empty()).then(|| self.mappings.remove(0))
    }

    pub(crate) fn cools_at(&self) -> Option<Duration> {
        (!self.mappings.is_empty()).then(|| self.quiet_since + IDLE)
    }
}
