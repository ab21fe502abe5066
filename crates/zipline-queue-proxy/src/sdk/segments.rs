//! The outgoing segments of one connection, as the queue-proxy sees them (section 8.2's table).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use zipline_buffer::Charge;
use zipline_protocol::ErrorCode;
use zipline_protocol::sdk::{Place, SEGMENTS_MAX};
use zipline_segment::SegmentBytes;

use super::memory::{Granted, Returns};
use crate::api::Refusal;

#[derive(Debug)]
enum State {
    /// The client writes it.
    Owned(Granted),
    /// A payload lies in it.
    Put,
    /// The client has forgotten it while a payload lay in it.
    Forgotten,
    /// It will not be written again, and is not mapped here any more; charged until the client has unmapped it.
    Dropped { _charge: Charge },
}

/// Segments whose payloads are gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Returned {
    /// Those that the client may write again.
    pub(super) free: Vec<u32>,
    /// Those that it is to unmap: their memory reached another function.
    pub(super) dropped: Vec<u32>,
}

/// The mappings of a connection's outgoing segments, and which segment each is. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Mappings(Arc<Mutex<HashMap<u64, u32>>>);

impl Mappings {
    /// The segment that these bytes lie in.
    pub(super) fn segment_of(&self, bytes: &SegmentBytes) -> Option<u32> {
        self.0.lock().get(&bytes.place().mapping.id()).copied()
    }
}

#[derive(Debug)]
pub(super) struct Segments {
    known: HashMap<u32, State>,
    /// Which mapping is which segment.
    mappings: Mappings,
    next: u32,
    returns: Arc<Returns>,
    /// Whether memory that reached another function and was returned may be written again.
    trusting: bool,
}

impl Segments {
    pub(super) fn new(trusting: bool) -> Self {
        let (known, mappings, returns) = (HashMap::new(), Mappings::default(), Arc::default());
        Self { known, mappings, next: 0, returns, trusting }
    }

    pub(super) fn mappings(&self) -> Mappings {
        self.mappings.clone()
    }

    pub(super) fn returns(&self) -> Arc<Returns> {
        Arc::clone(&self.returns)
    }

    /// Whether one more may be granted; grants that run count.
    ///
    /// # Errors
    /// `buffer-full` if not.
    pub(super) fn room(&self, granting: usize) -> Result<(), Refusal> {
        if self.known.len() + granting < SEGMENTS_MAX {
            return Ok(());
        }
        let detail = format!("the function has {SEGMENTS_MAX} segments already: put or drop buffers first");
        Err(Refusal::new(ErrorCode::BufferFull, detail))
    }

    /// Takes a new one in; its id.
    pub(super) fn add(&mut self, charged: Granted) -> u32 {
        self.next = self.next.wrapping_add(1);
        while self.known.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        self.mappings.0.lock().insert(charged.mapping.id(), self.next);
        self.known.insert(self.next, State::Owned(charged));
        self.next
    }

    /// The bytes of a payload that is put.
    ///
    /// # Errors
    /// `request-invalid` if the place is none of the client's to put.
    pub(super) fn put(&mut self, place: Place) -> Result<SegmentBytes, Refusal> {
        let Place { segment: id, offset, len } = place;
        let Some(state) = self.known.get_mut(&id) else {
            return Err(Refusal::invalid(format_args!("there is no segment {id}")));
        };
        let State::Owned(charged) = state else {
            return Err(Refusal::invalid(format_args!("a payload lies in segment {id} already")));
        };
        let capacity = charged.mapping.capacity() as u64;
        let range = offset.checked_add(len).filter(|end| *end <= capacity);
        let range = range.and_then(|end| Some((usize::try_from(offset).ok()?, usize::try_from(end).ok()?)));
        let Some((start, end)) = range else {
            return Err(Refusal::invalid(format_args!(
                "{len} bytes from {offset} on do not lie in segment {id} of {capacity} bytes"
            )));
        };
        let State::Owned(charged) = std::mem::replace(state, State::Put) else {
            return Err(Refusal::invalid("no such segment"));
        };
        let returns = Arc::clone(&self.returns);
        let mut whole = charged.lend(move |charged| returns.give(id, charged));
        whole.truncate(end);
        Ok(whole.split_off(start).freeze())
    }

    /// Whether the client may write it.
    pub(super) fn is_owned(&self, id: u32) -> bool {
        matches!(self.known.get(&id), Some(State::Owned(_)))
    }

    /// Takes back those whose payloads are gone.
    pub(super) fn returned(&mut self) -> Returned {
        let mut returned = Returned::default();
        for (id, charged) in self.returns.take() {
            match self.known.get_mut(&id) {
                Some(state @ State::Put) if charged.mapping.may_be_written_again(self.trusting) => {
                    *state = State::Owned(charged);
                    returned.free.push(id);
                }
                Some(state @ State::Put) => {
                    self.mappings.0.lock().remove(&charged.mapping.id());
                    *state = State::Dropped { _charge: charged.unmap() };
                    returned.dropped.push(id);
                }
                _ => self.gone(id, charged),
            }
        }
        returned
    }

    /// The client has unmapped it.
    pub(super) fn forgotten(&mut self, id: u32) {
        match self.known.get_mut(&id) {
            Some(state @ State::Put) => *state = State::Forgotten,
            Some(State::Owned(_)) => {
                if let Some(State::Owned(charged)) = self.known.remove(&id) {
                    self.gone(id, charged);
                }
            }
            Some(State::Dropped { .. }) => drop(self.known.remove(&id)),
            Some(State::Forgotten) | None => {}
        }
    }

    fn gone(&mut self, id: u32, charged: Granted) {
        self.known.remove(&id);
        self.mappings.0.lock().remove(&charged.mapping.id());
    }

    /// The segment that these bytes lie in, if the client still has it mapped.
    pub(super) fn holding(&self, bytes: &SegmentBytes) -> Option<u32> {
        let id = self.mappings.segment_of(bytes)?;
        matches!(self.known.get(&id), Some(State::Put)).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zipline_buffer::{Store, StoreConfig};

    use super::super::memory::grant;
    use super::*;

    async fn one() -> (Segments, u32) {
        let mut segments = Segments::new(false);
        let store = Store::new(StoreConfig::with_budget(1 << 20));
        let charged = grant(&store, 5_000, Duration::ZERO).await.unwrap();
        let id = segments.add(charged);
        (segments, id)
    }

    #[tokio::test]
    async fn a_segment_is_free_when_nobody_reads_its_payload() {
        let (mut segments, id) = one().await;
        let place = Place { segment: id, offset: 64, len: 4_000 };
        let bytes = segments.put(place).unwrap();
        assert_eq!((bytes.len(), bytes.place().offset), (4_000, 64));
        assert_eq!(segments.holding(&bytes), Some(id));
        assert_eq!(
            segments.put(place).unwrap_err().code(),
            ErrorCode::RequestInvalid,
            "one payload at a time"
        );
        let reader = bytes.clone();
        drop(bytes);
        assert_eq!(segments.returned(), Returned::default());
        drop(reader);
        segments.returns().some().await;
        assert_eq!(segments.returned(), Returned { free: vec![id], dropped: Vec::new() });
        assert!(segments.put(place).is_ok());
    }

    #[tokio::test]
    async fn what_reached_another_function_is_written_again_only_on_trust() {
        for trusting in [false, true] {
            let (mut segments, id) = one().await;
            segments.trusting = trusting;
            let place = Place { segment: id, offset: 0, len: 4_000 };
            let bytes = segments.put(place).unwrap();
            bytes.place().mapping.mark_shared();
            drop(bytes);
            let (free, dropped) = if trusting { (vec![id], Vec::new()) } else { (Vec::new(), vec![id]) };
            assert_eq!(segments.returned(), Returned { free, dropped });
            assert_eq!((segments.is_owned(id), segments.put(place).is_ok()), (trusting, trusting));
            segments.forgotten(id);
            assert!(!segments.is_owned(id));
        }
    }

    #[tokio::test]
    async fn what_does_not_lie_in_it_is_refused() {
        let (mut segments, id) = one().await;
        for (segment, offset, len) in
            [(id + 1, 0, 1), (id, 262_144, 1), (id, 0, 262_145), (id, u64::MAX, 2), (id, 1, u64::MAX)]
        {
            let refusal = segments.put(Place { segment, offset, len }).unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::RequestInvalid);
        }
        assert!(segments.put(Place { segment: id, offset: 262_144, len: 0 }).is_ok());
    }

    #[tokio::test]
    async fn a_forgotten_segment_goes_with_its_payload() {
        let (mut segments, id) = one().await;
        let bytes = segments.put(Place { segment: id, offset: 0, len: 1 }).unwrap();
        segments.forgotten(id);
        assert_eq!(segments.holding(&bytes), None);
        drop(bytes);
        assert_eq!(segments.returned(), Returned::default());
        assert!(segments.known.is_empty() && segments.mappings.0.lock().is_empty());
    }
}
