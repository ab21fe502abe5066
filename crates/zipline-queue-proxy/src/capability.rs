//! Which destinations open references (protocol, section 5.4).
//!
//! A destination is believed because the engine told so, or because an ordinary response of it carried the version header.
//! Both expire. One missing proof ends both until an ordinary response renews it; a destination that could not retrieve
//! from here is left alone for [`UNREACHABLE`]. Nothing is ever sent just to find out.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use zipline_protocol::limits::{CAPABILITY_LEARNED, UNREACHABLE};
use zipline_protocol::{FunctionName, InlineReason};

/// Destinations remembered; beyond it the one whose knowledge ends first is forgotten, which costs it one inline payload.
const MAX_DESTINATIONS: usize = 4096;

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    told_until: Option<Instant>,
    learned_until: Option<Instant>,
    unreachable_until: Option<Instant>,
    /// A proof was missing: the engine's word does not count until an ordinary response renews it.
    distrusted: bool,
}

impl Entry {
    fn believed(&self, now: Instant) -> bool {
        let told = !self.distrusted && self.told_until.is_some_and(|until| now < until);
        told || self.learned_until.is_some_and(|until| now < until)
    }

    fn last(&self) -> Option<Instant> {
        self.told_until.max(self.learned_until).max(self.unreachable_until)
    }
}

/// The table of destinations. Bounded; the entry whose knowledge ends first makes room.
#[derive(Debug, Default)]
pub struct Capabilities {
    entries: Mutex<HashMap<FunctionName, Entry>>,
}

impl Capabilities {
    /// An empty table: every destination is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether payloads for `function` may be deferred now.
    ///
    /// # Errors
    /// The reason why they may not.
    pub fn check(&self, function: &FunctionName) -> Result<(), InlineReason> {
        let now = Instant::now();
        let entries = self.entries.lock();
        let entry = entries.get(function).filter(|entry| entry.believed(now));
        let entry = entry.ok_or(InlineReason::UnknownReceiver)?;
        if entry.unreachable_until.is_some_and(|until| now < until) {
            return Err(InlineReason::Unreachable);
        }
        Ok(())
    }

    /// Whether the destination opens references, reachable from here or not.
    #[must_use]
    pub fn is_known(&self, function: &FunctionName) -> bool {
        self.entries.lock().get(function).is_some_and(|entry| entry.believed(Instant::now()))
    }

    /// The engine named all functions that open references; what it told before no longer counts.
    pub fn told(&self, functions: &[FunctionName], valid: Duration) {
        let mut entries = self.entries.lock();
        for entry in entries.values_mut() {
            entry.told_until = None;
        }
        let until = Instant::now() + valid;
        for function in functions {
            if let Some(entry) = room(&mut entries, function) {
                entry.told_until = Some(until);
            }
        }
    }

    /// An ordinary response of the destination carried the version header.
    pub fn learned(&self, function: &FunctionName) {
        let mut entries = self.entries.lock();
        if let Some(entry) = room(&mut entries, function) {
            entry.learned_until = Some(Instant::now() + CAPABILITY_LEARNED);
            entry.distrusted = false;
        }
    }

    /// A response to a deferred request lacked its proof.
    pub fn forget(&self, function: &FunctionName) {
        if let Some(entry) = room(&mut self.entries.lock(), function) {
            entry.learned_until = None;
            entry.distrusted = true;
        }
    }

    /// The destination could not retrieve from here.
    pub fn unreachable(&self, function: &FunctionName) {
        if let Some(entry) = room(&mut self.entries.lock(), function) {
            entry.unreachable_until = Some(Instant::now() + UNREACHABLE);
        }
    }
}

fn room<'a>(entries: &'a mut HashMap<FunctionName, Entry>, function: &FunctionName) -> Option<&'a mut Entry> {
    if !entries.contains_key(function) && entries.len() >= MAX_DESTINATIONS {
        let first = entries.iter().min_by_key(|(_, entry)| entry.last()).map(|(name, _)| name.clone())?;
        entries.remove(&first);
    }
    Some(entries.entry(function.clone()).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> FunctionName {
        name.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn told_and_learned_expire() {
        let table = Capabilities::new();
        let (a, b) = (function("a.x"), function("b.x"));
        assert_eq!(table.check(&a), Err(InlineReason::UnknownReceiver));
        table.told(std::slice::from_ref(&a), Duration::from_secs(60));
        table.learned(&b);
        assert_eq!((table.check(&a), table.check(&b)), (Ok(()), Ok(())));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((table.check(&a), table.check(&b)), (Err(InlineReason::UnknownReceiver), Ok(())));
        tokio::time::advance(Duration::from_secs(240)).await;
        assert_eq!(table.check(&b), Err(InlineReason::UnknownReceiver));
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_proof_outweighs_the_engine_until_an_ordinary_response() {
        let table = Capabilities::new();
        let a = function("a.x");
        let told = || table.told(std::slice::from_ref(&a), Duration::from_secs(60));
        told();
        table.forget(&a);
        told();
        assert_eq!(table.check(&a), Err(InlineReason::UnknownReceiver));
        table.learned(&a);
        assert_eq!(table.check(&a), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn unreachable_ends_by_itself() {
        let table = Capabilities::new();
        let a = function("a.x");
        table.learned(&a);
        table.unreachable(&a);
        assert_eq!(table.check(&a), Err(InlineReason::Unreachable));
        assert!(table.is_known(&a));
        tokio::time::advance(UNREACHABLE).await;
        assert_eq!(table.check(&a), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let table = Capabilities::new();
        for number in 0..=MAX_DESTINATIONS {
            table.learned(&function(&format!("f{number}.x")));
            tokio::time::advance(Duration::from_nanos(1)).await;
        }
        assert_eq!(table.entries.lock().len(), MAX_DESTINATIONS);
        assert!(!table.is_known(&function("f0.x")));
    }
}
