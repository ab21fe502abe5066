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

#[test]
#[should_panic(expected = "for reading only")]
fn nothing_is_written_through_a_mapping_for_reading() {
    let mapping = Mapping::create(PAGE, HugePages::Off).unwrap();
    let fd = mapping.as_fd().try_clone_to_owned().unwrap();
    let reader = Mapping::adopt(fd, PAGE, Access::ReadOnly).unwrap();
    drop(SegmentMut::whole(reader, None));
}

proptest! {
    /// Payloads written one after the other, several at a time, into the same few mappings: each shows its own bytes until
    /// it is gone, whatever happens to the others.
    #[test]
    fn no_byte_of_one_payload_shows_in_another(
        steps in proptest::collection::vec((1_usize..4 * PAGE, any::<u8>(), 0_usize..4, any::<bool>()), 1..60),
    ) {
        let shelf = Shelf::default();
        let mut held: Vec<(u8, Vec<SegmentBytes>)> = Vec::new();
        for (length, pattern, victim, in_parts) in steps {
            let mut segment = shelf.take();
            segment.truncate(length);
            let parts = if in_parts {
                let second = segment.split_off(length / 2);
                vec![second, segment]
            } else {
                vec![segment]
            };
            let parts = parts.into_iter().map(|mut part| {
                part.fill(pattern);
                part.freeze()
            });
            held.push((pattern, parts.collect()));
            if held.len() > 3 {
                drop(held.remove(victim));
            }
            for (pattern, parts) in &held {
                prop_assert!(parts.iter().all(|part| part.iter().all(|byte| byte == pattern)));
            }
        }
    }
}
