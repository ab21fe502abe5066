use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::{HugePages, PAGE};

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Mapping>>>);

impl Home for Shelf {
    fn returned(self: Box<Self>, mapping: Mapping) {
        self.0.lock().push(mapping);
    }
}

impl Shelf {
    fn take(&self) -> SegmentMut {
        let warm = self.0.lock().pop();
        let mapping = warm.unwrap_or_else(|| Mapping::create(4 * PAGE, HugePages::Off).unwrap());
        SegmentMut::whole(mapping, Some(Box::new(self.clone())))
    }

    fn warm(&self) -> usize {
        self.0.lock().len()
    }
}

#[test]
fn the_mapping_goes_home_with_its_last_handle() {
    let shelf = Shelf::default();
    let mut segment = shelf.take();
    let mut head = segment.split_to(10);
    let tail = segment.split_off(PAGE);
    assert_eq!((head.len(), segment.len(), tail.len()), (10, PAGE, 3 * PAGE - 10));
    head.copy_from_slice(b"0123456789");
    let head = head.freeze();
    drop((segment, tail));
    let part = head.slice(2..4);
    let bytes = Bytes::from(head.slice(4..));
    drop(head);
    assert_eq!((&*part, &bytes[..], shelf.warm()), (&b"23"[..], &b"456789"[..], 0));
    drop(part);
    assert_eq!(shelf.warm(), 0);
    drop(bytes);
    assert_eq!(shelf.warm(), 1);
    assert_eq!(shelf.take().mapping().touched_bytes(), PAGE, "one page was written");
}

#[test]
fn neighbours_join_and_strangers_do_not() {
    let shelf = Shelf::default();
    let mut segment = shelf.take();
    let mut first = segment.split_to(3).freeze();
    let second = segment.split_to(2).freeze();
    let other = shelf.take().freeze();
    let other = first.join(other).unwrap_err();
    drop(other);
    first.join(second).unwrap();
    assert_eq!((first.len(), first.place().offset), (5, 0));
    let behind = segment.split_to(4);
    drop(segment.split_to(1));
    assert!(first.join(segment.freeze()).is_err(), "a gap lies between");
    drop(behind);
}

#[test]
#[should_panic(expected = "no 0..6 in 5 bytes")]
fn a_slice_never_reaches_beyond() {
    let mut segment = Shelf::default().take();
    drop(segment.split_to(5).freeze().slice(..6));
}

// Miri knows no seals.
#[cfg(not(miri))]
#[test]
#[should_panic(expected = "for reading only")]
fn nothing_is_written_through_a_mapping_for_reading() {
    let mapping = Mapping::create(PAGE, HugePages::Off).unwrap();
    let fd = mapping.as_fd().try_clone_to_owned().unwrap();
    let reader = Mapping::adopt(fd, PAGE, Access::ReadOnly).unwrap();
    drop(SegmentMut::whole(reader, None));
}

#[test]
fn what_was_written_and_given_up_again_still_counts() {
    let shelf = Shelf::default();
    let mut segment = shelf.take();
    segment.fill(1);
    segment.truncate(PAGE);
    drop(segment.freeze());
    assert_eq!(shelf.take().mapping().touched_bytes(), 4 * PAGE);
}

#[test]
fn whichever_thread_lets_go_last_it_goes_home_once() {
    for _ in 0..if cfg!(miri) { 3 } else { 200 } {
        let shelf = Shelf::default();
        let mut rest = shelf.take();
        std::thread::scope(|threads| {
            for pattern in 1..=3 {
                let mut part = rest.split_to(PAGE);
                threads.spawn(move || {
                    part.fill(pattern);
                    let bytes = part.freeze();
                    let copy = bytes.clone();
                    drop(bytes);
                    assert!(copy.iter().all(|byte| *byte == pattern));
                });
            }
            drop(rest);
        });
        assert_eq!(shelf.warm(), 1);
        // Whoever has it next sees every write of those before, and may write everywhere.
        let mut next = shelf.take();
        assert!((0..3).all(|page| usize::from(next[page * PAGE]) == page + 1));
        next.fill(0);
    }
}

/// One payload being written or read in [`no_byte_of_one_payload_shows_in_another`].
struct Payload {
    pattern: u8,
    spare: Vec<SegmentMut>,
    read: Vec<SegmentBytes>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin { pattern: u8, length: usize },
    Split { payload: usize, at: usize },
    Write { payload: usize, count: usize },
    Slice { payload: usize, from: usize, to: usize },
    Forget { payload: usize, part: usize },
    End { payload: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    let payload = 0_usize..4;
    let place = 0..=4 * PAGE;
    prop_oneof![
        3 => (any::<u8>(), 1..=4 * PAGE).prop_map(|(pattern, length)| Step::Begin { pattern, length }),
        2 => (payload.clone(), place.clone()).prop_map(|(payload, at)| Step::Split { payload, at }),
        4 => (payload.clone(), place.clone()).prop_map(|(payload, count)| Step::Write { payload, count }),
        2 => (payload.clone(), place.clone(), place)
            .prop_map(|(payload, from, to)| Step::Slice { payload, from, to }),
        2 => (payload.clone(), 0_usize..8).prop_map(|(payload, part)| Step::Forget { payload, part }),
        2 => payload.prop_map(|payload| Step::End { payload }),
    ]
}

impl Payload {
    fn step(&mut self, step: Step) {
        match step {
            Step::Split { at, .. } => {
                let Some(mut part) = self.spare.pop() else { return };
                let behind = part.split_off(at.min(part.len()));
                // The order in which parts are written is not that in which they lie.
                self.spare.extend([part, behind]);
            }
            Step::Write { count, .. } => {
                let Some(mut part) = self.spare.pop() else { return };
                let mut written = part.split_to(count.min(part.len()));
                written.fill(self.pattern);
                self.read.push(written.freeze());
                self.spare.push(part);
            }
            Step::Slice { from, to, .. } => {
                let Some(last) = self.read.last() else { return };
                let to = to.min(last.len());
                self.read.push(last.slice(from.min(to)..to));
            }
            Step::Forget { part, .. } if !self.read.is_empty() => {
                drop(self.read.swap_remove(part % self.read.len()));
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Up to four payloads at a time are written in parts of any size and order, read in slices, and end at any time, in
    /// mappings that hold what earlier ones left: each shows its own bytes until it is gone.
    #[test]
    fn no_byte_of_one_payload_shows_in_another(
        steps in proptest::collection::vec(steps(), 1..if cfg!(miri) { 20 } else { 120 }),
    ) {
        let shelf = Shelf::default();
        let mut payloads: Vec<Payload> = Vec::new();
        for step in steps {
            match step {
                Step::Begin { pattern, length } if payloads.len() < 4 => {
                    let mut segment = shelf.take();
                    segment.truncate(length);
                    payloads.push(Payload { pattern, spare: vec![segment], read: Vec::new() });
                }
                Step::Begin { .. } => {}
                Step::End { payload } if payload < payloads.len() => drop(payloads.swap_remove(payload)),
                Step::Split { payload, .. } | Step::Write { payload, .. } | Step::Slice { payload, .. }
                | Step::Forget { payload, .. } | Step::End { payload } => {
                    if let Some(payload) = payloads.get_mut(payload) {
                        payload.step(step);
                    }
                }
            }
            for payload in &payloads {
                let own = |part: &SegmentBytes| part.iter().all(|byte| *byte == payload.pattern);
                prop_assert!(payload.read.iter().all(own));
            }
        }
        drop(payloads);
        prop_assert!(shelf.warm() <= 4, "as many as were out at once");
    }
}
