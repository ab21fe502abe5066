//! Every order in which two threads let a mapping go, and a socket's peer reads it.

use std::sync::{Arc, OnceLock};

use loom::thread;

use super::*;
use crate::{Home, SegmentMut};

/// Tries every order.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    loom::model::Builder::new().check(model);
}

/// Keeps the mapping that came back.
#[derive(Clone, Default)]
struct Back(Arc<OnceLock<Mapping>>);

impl Home for Back {
    fn returned(self: Box<Self>, mapping: Mapping) {
        assert!(self.0.set(mapping).is_ok(), "it comes back once");
    }
}

impl Back {
    fn mapping(self) -> Mapping {
        let back = Arc::into_inner(self.0).and_then(OnceLock::into_inner);
        back.expect("the last handle to go brings the mapping back")
    }
}

/// The right to write a mapping of so many pages, and where that goes.
fn segment(pages: usize) -> (SegmentMut, Back) {
    let back = Back::default();
    let mapping = Mapping::create(pages * PAGE, HugePages::Off).expect("a mapping");
    (SegmentMut::whole(mapping, Some(Box::new(back.clone()))), back)
}

#[test]
fn it_comes_back_once_and_when_everybody_is_done() {
    explore(|| {
        let (mut first, back) = segment(3);
        let mut second = first.split_off(PAGE);
        let writer = thread::spawn(move || {
            second.fill(2);
            let shared = second.freeze();
            shared.place().mapping.mark_shared();
            let clone = shared.clone();
            let reader = thread::spawn(move || assert!(clone.iter().all(|byte| *byte == 2)));
            assert_eq!(shared[0], 2);
            drop(shared);
            reader.join().unwrap();
        });
        first.fill(1);
        assert!(first.freeze().iter().all(|byte| *byte == 1));
        writer.join().unwrap();
        let mapping = back.mapping();
        mapping.traced().write(0..3 * PAGE);
        assert_eq!(mapping.touched_bytes(), 3 * PAGE, "whoever wrote last, all of its pages are known");
        assert!(mapping.may_be_written_again(true) && !mapping.may_be_written_again(false));
    });
}

#[test]
fn what_a_thread_said_of_it_is_known_to_whoever_gets_it_back() {
    struct Shared(Back);
    impl Home for Shared {
        fn returned(self: Box<Self>, mapping: Mapping) {
            assert!(!mapping.may_be_written_again(true), "it was abandoned");
            assert_eq!(mapping.touched_bytes(), 2 * PAGE);
            // Whoever gets it may write all of it.
            mapping.traced().write(0..2 * PAGE);
            Box::new(self.0).returned(mapping);
        }
    }
    explore(|| {
        let back = Back::default();
        let mapping = Mapping::create(2 * PAGE, HugePages::Off).unwrap();
        let mut whole = SegmentMut::whole(mapping, Some(Box::new(Shared(back.clone()))));
        let mut half = whole.split_to(PAGE);
        let other = thread::spawn(move || {
            half.fill(1);
            half.mapping().mark_abandoned();
        });
        whole.fill(2);
        whole.mapping().mark_shared();
        drop(whole);
        other.join().unwrap();
        drop(back.mapping());
    });
}

#[test]
fn nothing_is_written_where_a_socket_may_have_pages() {
    explore(|| {
        let (mut segment, back) = segment(1);
        segment.fill(7);
        let bytes = segment.freeze();
        let peers = [(); 2].map(|()| {
            let queued = bytes.place().mapping.queue();
            let pages = bytes.place().mapping.traced().clone();
            thread::spawn(move || {
                pages.read_all();
                queued.were_read();
            })
        });
        drop(bytes);
        let mapping = back.mapping();
        if mapping.may_be_written_again(false) {
            mapping.traced().write(0..PAGE);
        }
        peers.into_iter().for_each(|peer| peer.join().unwrap());
        assert!(mapping.may_be_written_again(false), "both peers have read it");
        drop(mapping.queue());
        assert!(!mapping.may_be_written_again(true), "nobody will ever say that this was read");
    });
}
