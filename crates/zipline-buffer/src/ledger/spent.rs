//! Ids of payloads that are gone and why, so that a late request learns the reason.
//!
//! Bounded: the oldest is forgotten first. An id is also forgotten at its own time.
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use zipline_protocol::PayloadId;

use crate::error::Gone;

#[derive(Debug)]
pub(super) struct SpentMemory {
    max: usize,
    reasons: HashMap<PayloadId, (Gone, Duration)>,
    order: VecDeque<PayloadId>,
}

impl SpentMemory {
    pub(super) fn new(max: usize) -> Self {
        Self { max, reasons: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn remember(&mut self, now: Duration, id: PayloadId, reason: Gone, until: Duration) {
        // Memory shrinks as time goes by, not only when it is full; each entry is looked at a constant number of times.
        while let Some(oldest) = self.order.front() {
            let passed = self.reasons.get(oldest).is_none_or(|(_, until)| *until <= now);
            if !passed && self.order.len() < self.max {
                break;
            }
            self.reasons.remove(oldest);
            self.order.pop_front();
        }
        if self.max > 0 && self.reasons.insert(id, (reason, until)).is_none() {
            self.order.push_back(id);
        }
    }

    pub(super) fn recall(&self, now: Duration, id: &PayloadId) -> Option<Gone> {
        self.reasons.get(id).filter(|(_, until)| *until > now).map(|(reason, _)| *reason)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn forgets_the_oldest_first_and_each_at_its_time() {
        let mut memory = SpentMemory::new(2);
        let ids = [1, 2, 3].map(|n| PayloadId::from_bytes([n; 16]));
        memory.remember(Duration::ZERO, ids[0], Gone::Spent, HOUR);
        memory.remember(Duration::ZERO, ids[1], Gone::Expired, HOUR);
        assert_eq!(memory.recall(Duration::ZERO, &ids[0]), Some(Gone::Spent));
        memory.remember(Duration::ZERO, ids[2], Gone::Spent, HOUR * 2);
        assert_eq!(memory.recall(Duration::ZERO, &ids[0]), None);
        assert_eq!(memory.recall(Duration::ZERO, &ids[1]), Some(Gone::Expired));
        assert_eq!(memory.recall(HOUR, &ids[1]), None);
        assert_eq!(memory.recall(HOUR, &ids[2]), Some(Gone::Spent));
    }
}
