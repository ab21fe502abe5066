//! No byte of one payload ever shows in another one, however memory comes and goes.
//!
//! Every byte says which payload it is of and where it stands. Payloads are written, adopted, read, released and expire in any
//! order; pieces of them are kept across all of it, and looked at after each step.
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use proptest::prelude::*;
use zipline_segment::{Home, HugePages, Mapping, SegmentMut};

use super::*;
use crate::piece::Piece;

const SLOTS: usize = 5;
/// Pieces that are kept at a time.
const KEPT: usize = 10;

#[derive(Clone, Debug)]
enum Step {
    Begin { slot: usize, length: Option<u64>, windowed: bool },
    Write { slot: usize, bytes: usize },
    Reserve { slot: usize, bytes: usize, written: usize },
    Finish { slot: usize },
    Abort { slot: usize },
    Adopt { slot: usize, bytes: usize },
    Read { slot: usize, most: usize, reads: usize },
    Leave { slot: usize },
    Release { slot: usize },
    Forget { piece: usize },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let slot = || 0..SLOTS;
    let bytes = || prop_oneof![1..3_000_usize, 200_000..600_000_usize];
    let length = prop_oneof![Just(None), (1..1_500_000_u64).prop_map(Some), Just(Some(2 * SEGMENT))];
    prop_oneof![
        3 => (slot(), length, any::<bool>())
            .prop_map(|(slot, length, windowed)| Step::Begin { slot, length, windowed }),
        6 => (slot(), bytes()).prop_map(|(slot, bytes)| Step::Write { slot, bytes }),
        4 => (slot(), bytes(), bytes())
            .prop_map(|(slot, bytes, written)| Step::Reserve { slot, bytes, written }),
        2 => slot().prop_map(|slot| Step::Finish { slot }),
        1 => slot().prop_map(|slot| Step::Abort { slot }),
        2 => (slot(), bytes()).prop_map(|(slot, bytes)| Step::Adopt { slot, bytes }),
        8 => (slot(), bytes(), 1..4_usize)
            .prop_map(|(slot, most, reads)| Step::Read { slot, most, reads }),
        1 => slot().prop_map(|slot| Step::Leave { slot }),
        2 => slot().prop_map(|slot| Step::Release { slot }),
        2 => (0..KEPT).prop_map(|piece| Step::Forget { piece }),
        1 => (1..70_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// The byte of payload `of` at `offset`.
fn byte(of: u32, offset: u64) -> u8 {
    let at = u32::try_from(offset).unwrap();
    ((of.wrapping_mul(0x9E37_79B9) ^ at.wrapping_mul(0x85EB_CA6B)) >> 24) as u8
}

fn fill(of: u32, offset: u64, bytes: &mut [u8]) {
    for (byte_of, at) in bytes.iter_mut().zip(offset..) {
        *byte_of = byte(of, at);
    }
}

/// Memory that one function writes, used again as soon as nobody looks at it.
#[derive(Clone, Default)]
struct Own(Arc<Mutex<Vec<(Mapping, Charge)>>>);

struct Lent(Own, Charge);

impl Home for Lent {
    fn returned(self: Box<Self>, mapping: Mapping) {
        let Self(own, charge) = *self;
        own.0.lock().push((mapping, charge));
    }
}

struct Live {
    of: u32,
    id: PayloadId,
    writer: Option<PayloadWriter>,
    reader: Option<(u64, PayloadReader)>,
    _guard: PayloadGuard,
}

/// A piece, and what it is a piece of.
struct Kept {
    of: u32,
    offset: u64,
    piece: Piece,
}

impl Kept {
    /// Looks at one byte of so many, and at the last.
    fn check(&self, every: usize) {
        let last = self.piece.len() - 1;
        for at in (0..last).step_by(every).chain([last]) {
            let wanted = byte(self.of, self.offset + at as u64);
            assert_eq!(self.piece[at], wanted, "byte {at} of a piece of payload {} is another's", self.of);
        }
    }
}

struct Run {
    store: Store,
    own: Own,
    live: [Option<Live>; SLOTS],
    kept: VecDeque<Kept>,
    next: u32,
    read_bytes: u64,
}

/// What comes out at once; whoever would wait gives up.
fn at_once<T>(attempt: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(tokio::task::unconstrained(attempt)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

impl Run {
    fn new() -> Self {
        let store = store(3 * MIB, MIB / 2);
        let (own, live, kept) = (Own::default(), Default::default(), VecDeque::new());
        Self { store, own, live, kept, next: 0, read_bytes: 0 }
    }

    fn spec(&mut self, length: Option<u64>, windowed: bool) -> (u32, Spec) {
        self.next += 1;
        let mut id = [0; 16];
        id[..4].copy_from_slice(&self.next.to_be_bytes());
        let retrievals = Retrievals::Unlimited;
        let id = PayloadId::from_bytes(id);
        (self.next, Spec { id, retrievals, windowed, wait: None, ..put(0, length) })
    }

    fn begin(&mut self, slot: usize, length: Option<u64>, windowed: bool) {
        let (of, spec) = self.spec(length, windowed);
        let id = spec.id;
        if let Some(Ok((writer, guard))) = at_once(self.store.begin(spec)) {
            self.live[slot] = Some(Live { of, id, writer: Some(writer), reader: None, _guard: guard });
        }
    }

    fn adopt(&mut self, slot: usize, bytes: usize) {
        let warm = self.own.0.lock().pop();
        let fresh = || {
            let charge = at_once(self.store.grant(MIB, None))?.ok()?;
            Some((Mapping::create(1 << 20, HugePages::Off).unwrap(), charge))
        };
        let Some((mapping, charge)) = warm.or_else(fresh) else { return };
        let home = Lent(self.own.clone(), charge);
        let mut segment = SegmentMut::whole(mapping, Some(Box::new(home)));
        let (of, spec) = self.spec(None, false);
        let id = spec.id;
        fill(of, 0, &mut segment[..bytes]);
        segment.truncate(bytes);
        if let Ok((_, guard)) = self.store.adopt(spec, segment.freeze()) {
            self.live[slot] = Some(Live { of, id, writer: None, reader: None, _guard: guard });
        }
    }

    fn write(&mut self, slot: usize, bytes: usize) {
        let Some(live) = &mut self.live[slot] else { return };
        let Some(writer) = &mut live.writer else { return };
        let mut data = vec![0; bytes];
        fill(live.of, writer.written(), &mut data);
        if !matches!(at_once(writer.write(data.into())), Some(Ok(()))) {
            live.writer = None;
        }
    }

    fn reserve(&mut self, slot: usize, bytes: usize, written: usize) {
        let Some(live) = &mut self.live[slot] else { return };
        let Some(writer) = &mut live.writer else { return };
        if let Some(Ok(mut spare)) = at_once(writer.reserve(bytes)) {
            fill(live.of, writer.written(), &mut spare);
            let written = written.min(spare.len());
            // Nobody may be able to read it any more.
            let _ = writer.commit(spare, written);
        }
    }

    fn read(&mut self, slot: usize, most: usize, reads: usize) {
        let Some(live) = &mut self.live[slot] else { return };
        if live.reader.is_none() {
            let lease = LeaseId::from_bytes([1; 16]);
            let request = LeaseRequest { payload: live.id, lease, peer: PEER, from: 0, to: None };
            let reader = at_once(self.store.lease(request));
            live.reader = reader.and_then(Result::ok).map(|reader| (0, reader));
        }
        for _ in 0..reads {
            let Some((offset, reader)) = &mut live.reader else { return };
            match at_once(reader.next_piece(most)) {
                Some(Some(Ok(piece))) => {
                    self.read_bytes += piece.len() as u64;
                    let kept = Kept { of: live.of, offset: *offset, piece };
                    *offset += kept.piece.len() as u64;
                    kept.check(1);
                    self.kept.push_back(kept);
                }
                Some(_) => live.reader = None,
                None => return,
            }
        }
        while self.kept.len() > KEPT {
            self.kept.pop_front().iter().for_each(|kept| kept.check(1));
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Begin { slot, length, windowed } => self.begin(slot, length, windowed),
            Step::Write { slot, bytes } => self.write(slot, bytes),
            Step::Reserve { slot, bytes, written } => self.reserve(slot, bytes, written),
            Step::Adopt { slot, bytes } => self.adopt(slot, bytes),
            Step::Read { slot, most, reads } => self.read(slot, most, reads),
            Step::Release { slot } => drop(self.live[slot].take()),
            Step::Finish { slot } => {
                if let Some(writer) = self.live[slot].as_mut().and_then(|live| live.writer.take()) {
                    // Shorter than it was declared, it is aborted.
                    let _ = writer.finish(Vec::new());
                }
            }
            Step::Abort { slot } => drop(self.live[slot].as_mut().and_then(|live| live.writer.take())),
            Step::Leave { slot } => drop(self.live[slot].as_mut().and_then(|live| live.reader.take())),
            Step::Forget { piece } => {
                if piece < self.kept.len() {
                    self.kept.swap_remove_back(piece).iter().for_each(|kept| kept.check(1));
                }
            }
            Step::Wait { seconds } => tokio::time::advance(Duration::from_secs(seconds)).await,
        }
        let now = self.store.totals();
        assert!(now.held_bytes <= now.budget_bytes && now.allocated_bytes <= now.budget_bytes, "{now:?}");
        self.kept.iter().for_each(|kept| kept.check(61));
    }

    fn end(mut self) {
        self.kept.drain(..).for_each(|kept| kept.check(1));
        self.live.iter_mut().for_each(|live| drop(live.take()));
        self.own.0.lock().clear();
        assert_empty(&self.store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_of_one_payload_shows_in_another(steps in proptest::collection::vec(step(), 20..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut run = Run::new();
            for step in steps {
                run.step(step).await;
            }
            run.end();
        });
    }
}

/// The property is worth something only if much is read while memory is used again.
#[tokio::test(start_paused = true)]
async fn pieces_outlive_their_payloads_while_others_are_written() {
    let mut run = Run::new();
    for round in 0..8 {
        let slot = round % SLOTS;
        run.begin(slot, Some(2 * SEGMENT), false);
        run.write(slot, 2 * limits::SEGMENT);
        run.read(slot, usize::MAX, 1);
        run.step(Step::Release { slot }).await;
        run.step(Step::Forget { piece: 0 }).await;
    }
    assert!(run.read_bytes >= 8 * SEGMENT, "{}", run.read_bytes);
    assert!(run.store.totals().warm_bytes > 0, "memory is used again");
    run.end();
}
