//! Memory of the queue-proxy that was shown to this connection: mapped once, for all payloads that come to lie in it. Memory
//! that belongs to a holder on the same host is shown for one payload alone, and is unmapped with it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use zipline_segment::{Access, AdoptError, Mapping, SegmentBytes};

#[derive(Debug)]
struct Shown {
    whole: SegmentBytes,
    used: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Mappings {
    known: HashMap<u32, Shown>,
}

/// Bytes in memory that is shown for them alone.
pub(super) fn alone(descriptor: OwnedFd, offset: u64, len: u64) -> Result<Option<SegmentBytes>, AdoptError> {
    let place = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let (start, end) = (place(offset), place(offset.saturating_add(len)));
    let mapping = Mapping::adopt(descriptor, end, Access::ReadOnly)?;
    Ok(SegmentBytes::of_adopted(mapping, start..end, None))
}

impl Mappings {
    /// Maps what is shown for the first time.
    pub(super) fn show(
        &mut self,
        id: u32,
        descriptor: OwnedFd,
        wanted: usize,
        now: Duration,
    ) -> Result<(), AdoptError> {
        let mapping = Mapping::adopt(descriptor, wanted, Access::ReadOnly)?;
        let capacity = mapping.capacity();
        if let Some(whole) = SegmentBytes::of_adopted(mapping, 0..capacity, None) {
            self.known.insert(id, Shown { whole, used: now });
        }
        Ok(())
    }

    /// Bytes of what was shown before.
    pub(super) fn bytes(&mut self, id: u32, offset: u64, len: u64, now: Duration) -> Option<SegmentBytes> {
        let shown = self.known.get_mut(&id)?;
        shown.used = now;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (end <= shown.whole.len()).then(|| shown.whole.slice(start..end))
    }

    /// Forgets one; payloads in it keep it mapped. What comes out is to be dropped without a lock.
    pub(super) fn forget(&mut self, id: u32) -> Option<SegmentBytes> {
        self.known.remove(&id).map(|shown| shown.whole)
    }

    /// Those that no payload came to lie in since `before`.
    pub(super) fn idle(&self, before: Duration) -> Vec<u32> {
        self.known.iter().filter(|(_, shown)| shown.used <= before).map(|(id, _)| *id).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
