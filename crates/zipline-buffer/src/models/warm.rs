//! Memory that is used again: nobody gets what somebody else has, nothing is lost, and used and warm memory never exceed the
//! budget.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut};
use loom::thread;
use zipline_segment::SegmentMut;

use super::*;
use crate::{InFlight, Recycler};

/// A shelf's smallest mapping.
const UNIT: u64 = 64 * 1024;

/// What the model's threads use of a budget. Its count is no step of the model.
#[derive(Clone)]
struct Used {
    budget: InFlight,
    bytes: Arc<AtomicU64>,
}

impl Used {
    fn of(budget: InFlight) -> Self {
        Self { budget, bytes: Arc::default() }
    }

    fn begins(&self, bytes: u64) {
        let used = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let warm = self.budget.warm_bytes();
        let budget = self.budget.budget_bytes();
        assert!(used + warm <= budget, "{used} used and {warm} warm of {budget}");
    }

    fn ends(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes a segment, writes all of it, and gives it back.
    fn segment(&self, bytes: u64) {
        let mut segment: SegmentMut = block_on(self.budget.segment(bytes)).unwrap();
        self.begins(bytes);
        segment.fill(1);
        self.ends(bytes);
    }

    fn permit(&self, bytes: u64) {
        let permit = block_on(self.budget.acquire(bytes)).unwrap();
        self.begins(bytes);
        self.ends(bytes);
        drop(permit);
    }

    fn assert_exact(&self, warm: impl Fn(u64) -> bool) {
        let (used, waiters) = (self.budget.used_bytes(), self.budget.waiters());
        assert_eq!((used, waiters), (0, 0));
        assert!(warm(self.budget.warm_bytes()), "{} warm", self.budget.warm_bytes());
        // What is warm gives way, all of it.
        self.permit(self.budget.budget_bytes());
        assert_eq!(self.budget.warm_bytes(), 0);
    }
}

#[test]
fn segments_are_nobodys_twice_and_none_is_lost() {
    explore(2, || {
        let used = Used::of(InFlight::new(4 * UNIT));
        let others = [(); 2].map(|()| {
            let used = used.clone();
            thread::spawn(move || used.segment(UNIT))
        });
        used.segment(UNIT);
        others.into_iter().for_each(|other| other.join().unwrap());
        // One after the other they used the same one; at the same time up to as many as may be warm.
        used.assert_exact(|warm| warm == UNIT || warm == 2 * UNIT);
    });
}

#[test]
fn warm_segments_give_way_to_whoever_waits() {
    explore(2, || {
        let used = Used::of(InFlight::new(3 * UNIT));
        let other = used.clone();
        let segments = thread::spawn(move || {
            other.segment(UNIT);
            other.segment(UNIT);
        });
        let other = used.clone();
        let permit = thread::spawn(move || other.permit(2 * UNIT));
        used.permit(3 * UNIT);
        segments.join().unwrap();
        permit.join().unwrap();
        used.assert_exact(|warm| warm <= UNIT);
    });
}

#[test]
fn what_was_missed_is_made_within_the_budget() {
    explore(2, || {
        let used = Used::of(InFlight::new(4 * UNIT));
        let driven = used.budget.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let driver = thread::spawn(move || {
            let (mut driver, mut stopped) = (Box::pin(driven.run_warm()), Box::pin(stopped));
            block_on(std::future::poll_fn(|context| {
                assert!(driver.as_mut().poll(context).is_pending(), "it never resolves");
                stopped.as_mut().poll(context).map(drop)
            }));
        });
        used.segment(UNIT);
        used.permit(3 * UNIT);
        drop(stop);
        driver.join().unwrap();
    });
}

#[test]
fn a_buffer_comes_back_once_after_its_last_piece() {
    explore(3, || {
        let recycler = Recycler::new(4, 4);
        let mut passage = recycler.passage();
        let pieces = [b"ab", b"cd"].map(|bytes| {
            passage.room(2).put_slice(bytes);
            let mut piece = passage.take();
            thread::spawn(move || piece.advance(1))
        });
        drop(passage);
        pieces.into_iter().for_each(|piece| piece.join().unwrap());
        assert_eq!(recycler.warm_bytes(), 4);
    });
}
