//! Outgoing segments of one connection.
//!
//! | state | event | next |
//! |---|---|---|
//! | – | granted | `Out` |
//! | `Out` | a put of it is sent | `Put` |
//! | `Out` | its buffer is dropped | `Free` |
//! | `Put` | FREE, or the put was refused | `Freed` |
//! | `Freed` | its last hold or payload is dropped | `Free`; – if enough is free already |
//! | `Free` | taken for another put | `Out` |
//! | `Free` | idle for long, or DROP | –, FORGOT |
//! | `Put` | DROP | `Freed`, and then – in place of `Free` |
//! | `Out`, `Freed` | DROP | the same, and – in place of `Free` |
//!
//! So memory is written again only when neither the queue-proxy nor anybody in this process looks at it.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

use zipline_segment::{Home, Mapping, SegmentBytes, SegmentMut};

use super::link::Link;

/// A segment may be this many times larger than the payload it is taken for, or
const WASTE_MAX: usize = 8;
/// so large: there are none much smaller, and small payloads would otherwise get a new one each time.
const SMALL: usize = 1 << 20;

/// An outgoing segment that may be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: u32,
    pub(crate) memory: SegmentMut,
}

#[derive(Debug)]
enum State {
    Out,
    Put(SegmentBytes),
    Freed,
    Free { mapping: Mapping, since: Duration },
}

#[derive(Debug)]
struct Segment {
    state: State,
    /// The queue-proxy wants it back.
    unwanted: bool,
}

/// All outgoing segments of one connection.
#[derive(Debug, Default)]
pub(super) struct Segments {
    known: HashMap<u32, Segment>,
    /// Bytes of free segments that are kept: they count against the queue-proxy's budget, which others need too.
    pub(super) keep_most: u64,
}

/// Where an outgoing segment goes when nobody in this process has it.
struct Owner {
    link: Weak<Link>,
    id: u32,
}

impl Home for Owner {
    fn returned(self: Box<Self>, mapping: Mapping) {
        if let Some(link) = self.link.upgrade() {
            link.segment_returned(self.id, mapping);
        }
    }
}

impl Segments {
    /// A segment that was granted, to be written.
    pub(super) fn granted(&mut self, id: u32, mapping: Mapping, link: Weak<Link>) -> Outgoing {
        self.known.insert(id, Segment { state: State::Out, unwanted: false });
        Outgoing { id, memory: SegmentMut::whole(mapping, Some(Box::new(Owner { link, id }))) }
    }

    /// The smallest free segment that is large enough.
    pub(super) fn take(&mut self, len: usize, link: Weak<Link>) -> Option<Outgoing> {
        let most = len.saturating_mul(WASTE_MAX).max(SMALL);
        let fits = |segment: &Segment| match &segment.state {
            State::Free { mapping, .. } if (len..=most).contains(&mapping.capacity()) => {
                Some(mapping.capacity())
            }
            _ => None,
        };
        let best = self.known.iter().filter_map(|(id, segment)| Some((fits(segment)?, *id))).min();
        let (_, id) = best?;
        let segment = self.known.get_mut(&id)?;
        let State::Free { mapping, .. } = std::mem::replace(&mut segment.state, State::Out) else {
            return None;
        };
        Some(Outgoing { id, memory: SegmentMut::whole(mapping, Some(Box::new(Owner { link, id }))) })
    }

    /// What is about to be put lies in it.
    pub(super) fn put(&mut self, id: u32, bytes: SegmentBytes) {
        if let Some(segment) = self.known.get_mut(&id) {
            segment.state = State::Put(bytes);
        }
    }

    /// The queue-proxy does not look at it any more, and may want it back. What comes out is to be dropped without a lock.
    pub(super) fn freed(&mut self, id: u32) -> Option<SegmentBytes> {
        let segment = self.known.get_mut(&id)?;
        match std::mem::replace(&mut segment.state, State::Freed) {
            State::Put(bytes) => Some(bytes),
            other => {
                segment.state = other;
                None
            }
        }
    }

    /// Bytes of a segment that is put.
    pub(super) fn bytes(&self, id: u32, offset: u64, len: u64) -> Option<SegmentBytes> {
        let State::Put(bytes) = &self.known.get(&id)?.state else { return None };
        let start = usize::try_from(offset.checked_sub(bytes.place().offset)?).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (end <= bytes.len()).then(|| bytes.slice(start..end))
    }

    /// Nobody in this process has it any more. What comes out is forgotten, and to be dropped without a lock.
    pub(super) fn returned(&mut self, id: u32, mapping: Mapping, now: Duration) -> Option<Mapping> {
        let kept = self.free_bytes() + mapping.capacity() as u64 <= self.keep_most;
        match self.known.get_mut(&id) {
            Some(segment) if !segment.unwanted && kept => {
                segment.state = State::Free { mapping, since: now };
                None
            }
            _ => {
                self.known.remove(&id);
                Some(mapping)
            }
        }
    }

    /// The queue-proxy wants it back: now if it is free, else when it is.
    pub(super) fn unwanted(&mut self, id: u32) -> Option<Mapping> {
        let segment = self.known.get_mut(&id)?;
        segment.unwanted = true;
        if !matches!(segment.state, State::Free { .. }) {
            return None;
        }
        match self.known.remove(&id)?.state {
            State::Free { mapping, .. } => Some(mapping),
            _ => None,
        }
    }

    fn free_bytes(&self) -> u64 {
        let bytes = |segment: &Segment| match &segment.state {
            State::Free { mapping, .. } => mapping.capacity() as u64,
            _ => 0,
        };
        self.known.values().map(bytes).sum()
    }

    /// Free ones that were not used since `before`.
    pub(super) fn idle(&self, before: Duration) -> Vec<u32> {
        let idle = |segment: &Segment| matches!(segment.state, State::Free { since, .. } if since <= before);
        self.known.iter().filter(|(_, segment)| idle(segment)).map(|(id, _)| *id).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
