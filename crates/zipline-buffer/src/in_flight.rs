//! The budget of bytes that pass through a process without being held.
//!
//! First come, first served; at most [`InFlight::WAITERS_MAX`] wait, further ones are refused. What has to lie in one piece
//! gets a segment from a [`Shelf`], whose warm memory takes at most half of the budget and always gives way.
use std::fmt;
use std::sync::Arc;

use zipline_segment::{Home, Mapping, PAGE, SegmentMut};

use crate::error::InFlightError;
use crate::shelf::Shelf;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{OnceLock, OwnedSemaphorePermit, Semaphore};

/// Bytes per permit of the semaphore, whose counts are 32 bits wide.
const UNIT_BYTES: u64 = 1_024;

/// A budget of bytes in flight. Clones share it.
#[derive(Clone, Debug)]
pub struct InFlight {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    semaphore: Arc<Semaphore>,
    units: u32,
    waiters: AtomicUsize,
    shelf: Shelf,
    /// Asked for memory when there is too little.
    lenders: OnceLock<GiveWay>,
}

/// Gives some of the budget back that is used without need. False if there is nothing to give.
struct GiveWay(Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for GiveWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GiveWay")
    }
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub struct Permit {
    units: u64,
    _permit: OwnedSemaphorePermit,
}

/// Where a segment goes, with its share of the budget.
struct Returning {
    permit: Permit,
    shelf: Shelf,
}

impl Home for Returning {
    fn returned(self: Box<Self>, mapping: Mapping) {
        let Self { permit, shelf } = *self;
        let bytes = permit.bytes();
        shelf.give(mapping, permit, bytes);
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InFlight {
    /// Most requests that wait at once.
    pub const WAITERS_MAX: usize = 16_384;

    /// A budget of `budget_bytes`, rounded up to whole KiB, at least one.
    pub fn new(budget_bytes: u64) -> Self {
        let units = u32::try_from(budget_bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let permits = usize::try_from(units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let semaphore = Arc::new(Semaphore::new(permits));
        let free = Arc::clone(&semaphore);
        let half = u64::from(units) * UNIT_BYTES / 2;
        let room = move |returning: u64| (free.available_permits() as u64 * UNIT_BYTES + returning).min(half);
        let shelf = Shelf::new(room);
        Self {
            shared: Arc::new(Shared {
                semaphore,
                units,
                waiters: AtomicUsize::new(0),
                shelf,
                lenders: OnceLock::new(),
            }),
        }
    }

    /// Whoever finds too little of the budget free calls `give_way`, which gives some of it back that is used without need, and says
    /// whether it may have; it is called again as long as that did not suffice. Then it waits. The first function given stays.
    pub fn when_short(&self, give_way: impl Fn() -> bool + Send + Sync + 'static) {
        // A second one changes nothing, as documented.
        let _ = self.shared.lenders.set(GiveWay(Box::new(give_way)));
    }

    /// Waits for `bytes` of the budget; more than the whole budget counts as the whole budget.
    ///
    /// # Errors
    /// [`InFlightError::TooMany`] at once when [`Self::WAITERS_MAX`] wait already.
    /// # Cancel safety
    /// Dropping the future gives up its place.
    pub async fn acquire(&self, bytes: u64) -> Result<Permit, InFlightError> {
        let permit = self.take(bytes).await?;
        // Warm memory gives way to used memory.
        self.shared.shelf.shrink();
        Ok(permit)
    }

    /// As [`Self::acquire`]; the shelf is still to be shrunk before the share is used.
    async fn take(&self, bytes: u64) -> Result<Permit, InFlightError> {
        let wanted = bytes.div_ceil(UNIT_BYTES).min(u64::from(self.shared.units));
        let units = u32::try_from(wanted).unwrap_or(self.shared.units);
        let waiters = self.shared.waiters.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.shared.waiters);
        if waiters >= Self::WAITERS_MAX {
            return Err(InFlightError::TooMany { waiters });
        }
        let semaphore = || Arc::clone(&self.shared.semaphore);
        let permit = loop {
            // Whoever waits already has what is free, so this overtakes nobody.
            if let Ok(permit) = semaphore().try_acquire_many_owned(units) {
                break permit;
            }
            if !self.shared.lenders.get().is_some_and(|lenders| lenders.0()) {
                break semaphore().acquire_many_owned(units).await.expect("the semaphore is never closed");
            }
        };
        Ok(Permit { units: u64::from(units), _permit: permit })
    }

    /// Waits for `length` bytes of the budget, and gives memory for them in one piece, warm if there is some. The share and the
    /// memory come back when the last part of it is dropped.
    ///
    /// # Errors
    /// As [`Self::acquire`]'s; [`InFlightError::TooLarge`] if it is more than the budget; [`InFlightError::Kernel`].
    /// # Cancel safety
    /// Dropping the future gives up its place.
    pub async fn segment(&self, length: u64) -> Result<SegmentMut, InFlightError> {
        let budget_bytes = self.budget_bytes();
        let too_large = InFlightError::TooLarge { length, budget_bytes };
        let Some(bytes) = usize::try_from(length).ok().filter(|_| length <= budget_bytes) else {
            return Err(too_large);
        };
        // Memory is used in whole pages.
        let permit = self.take(length.next_multiple_of(PAGE as u64)).await?;
        let shelf = &self.shared.shelf;
        // First what is taken leaves the shelf, then what remains there gives way.
        let taken = shelf.take(bytes);
        shelf.shrink();
        let mapping = taken.map_err(|source| InFlightError::Kernel { length, source })?;
        let home = Returning { permit, shelf: shelf.clone() };
        let mut segment = SegmentMut::whole(mapping, Some(Box::new(home)));
        segment.truncate(bytes);
        Ok(segment)
    }

    /// Keeps warm memory for [`Self::segment`] as it is wanted, and gives it back when it is not. Never resolves; its owner runs
    /// one of it as a task.
    pub async fn run_warm(&self) {
        let reserve = |bytes: u64| {
            let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
            Arc::clone(&self.shared.semaphore).try_acquire_many_owned(units).ok()
        };
        self.shared.shelf.run(reserve).await;
    }

    /// Bytes of warm memory that wait to be used again; not part of [`Self::used_bytes`].
    pub fn warm_bytes(&self) -> u64 {
        self.shared.shelf.warm_bytes()
    }

    /// Bytes taken now.
    pub fn used_bytes(&self) -> u64 {
        let free = self.shared.semaphore.available_permits() as u64;
        u64::from(self.shared.units).saturating_sub(free) * UNIT_BYTES
    }

    /// The budget in bytes.
    pub fn budget_bytes(&self) -> u64 {
        u64::from(self.shared.units) * UNIT_BYTES
    }

    /// Requests waiting now.
    pub fn waiters(&self) -> usize {
        self.shared.waiters.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// Bytes of the budget it stands for.
    pub fn bytes(&self) -> u64 {
        self.units * UNIT_BYTES
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_to_come_is_served_first() {
        let budget = InFlight::new(10 * UNIT_BYTES);
        let most = budget.acquire(8 * UNIT_BYTES - 1).await.unwrap();
        assert_eq!((most.bytes(), budget.used_bytes()), (8 * UNIT_BYTES, 8 * UNIT_BYTES));
        let mut large = Box::pin(budget.acquire(u64::MAX));
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut large).await.is_err());
        let small = tokio::time::timeout(Duration::from_secs(1), budget.acquire(1)).await;
        assert!(small.is_err(), "the small one does not overtake");
        assert_eq!(budget.waiters(), 1);
        drop(most);
        let all = large.await.unwrap();
        assert_eq!(all.bytes(), budget.budget_bytes());
        drop(all);
        assert_eq!((budget.used_bytes(), budget.waiters()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_used_without_need_gives_way_before_anybody_waits() {
        let budget = InFlight::new(10 * UNIT_BYTES);
        let lent = Arc::new(parking_lot::Mutex::new(Vec::new()));
        for _ in 0..3 {
            let permit = budget.acquire(3 * UNIT_BYTES).await.unwrap();
            lent.lock().push(permit);
        }
        let lenders = Arc::clone(&lent);
        budget.when_short(move || lenders.lock().pop().is_some());
        let fits = budget.acquire(UNIT_BYTES).await.unwrap();
        assert_eq!(lent.lock().len(), 3, "there was enough");
        let large = budget.acquire(5 * UNIT_BYTES).await.unwrap();
        assert_eq!(lent.lock().len(), 1, "no more gave way than had to");
        let waits = tokio::time::timeout(Duration::from_secs(1), budget.acquire(10 * UNIT_BYTES)).await;
        assert!(waits.is_err() && lent.lock().is_empty());
        drop((fits, large));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn segments_come_back_warm_and_give_way() {
        let budget = InFlight::new(4 << 20);
        let mut segment = budget.segment(1 << 20).await.unwrap();
        assert_eq!((segment.len(), budget.used_bytes()), (1 << 20, 1 << 20));
        segment.fill(1);
        let bytes = segment.freeze();
        let place = bytes.as_ptr();
        drop(bytes);
        assert_eq!((budget.used_bytes(), budget.warm_bytes()), (0, 1 << 20));
        let again = budget.segment(1 << 20).await.unwrap();
        assert_eq!(again.as_ptr(), place, "the same memory");
        drop(again);
        let all = budget.acquire(4 << 20).await.unwrap();
        assert_eq!(budget.warm_bytes(), 0, "used and warm memory never exceed the budget");
        drop(all);
        let error = budget.segment((4 << 20) + 1).await.unwrap_err();
        assert_eq!(error.code(), zipline_protocol::ErrorCode::PayloadTooLarge);
        assert!(error.to_string().contains("4194305 bytes in one piece"), "{error}");
    }

    /// What an actor of [`in_every_order_the_budget_holds`] does.
    #[derive(Clone, Copy)]
    enum Step {
        Take(u64),
        Return,
        Acquire(u64),
    }

    #[derive(Default)]
    struct Actor {
        segment: Option<SegmentMut>,
        permit: Option<Permit>,
    }

    /// What it gives at once; whoever would wait stays out.
    fn at_once<T>(attempt: impl Future<Output = Result<T, InFlightError>>) -> Option<T> {
        match std::pin::pin!(attempt).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done.ok(),
            Poll::Pending => None,
        }
    }

    impl Actor {
        fn step(&mut self, budget: &InFlight, step: Step, pattern: u8) {
            match step {
                Step::Take(bytes) => {
                    self.segment = at_once(budget.segment(bytes));
                    self.segment.iter_mut().for_each(|segment| segment.fill(pattern));
                }
                Step::Acquire(bytes) => self.permit = at_once(budget.acquire(bytes)),
                Step::Return => drop(std::mem::take(self)),
            }
        }
    }

    /// Every order in which as many steps of each actor as are `left` can follow one another.
    fn orders(left: &mut [usize; 3], order: &mut Vec<usize>, each: &mut impl FnMut(&[usize])) {
        if left.iter().all(|left| *left == 0) {
            return each(order);
        }
        for actor in 0..left.len() {
            if left[actor] > 0 {
                left[actor] -= 1;
                order.push(actor);
                orders(left, order, each);
                order.pop();
                left[actor] += 1;
            }
        }
    }

    /// Each step changes what is shared under one lock, so their orders are all there is: in none of them do used and warm
    /// memory exceed the budget, or does anybody write what another one has.
    #[tokio::test(start_paused = true)]
    async fn in_every_order_the_budget_holds() {
        const UNIT: u64 = 64 * 1024;
        let scripts: [&[Step]; 3] = [
            &[Step::Take(2 * UNIT), Step::Return, Step::Take(UNIT), Step::Return],
            &[Step::Take(3 * UNIT - 5), Step::Return, Step::Take(2 * UNIT), Step::Return],
            &[Step::Acquire(2 * UNIT + 1), Step::Return],
        ];
        let (mut count, mut ever_warm) = (0, 0);
        orders(&mut scripts.map(<[Step]>::len), &mut Vec::new(), &mut |order| {
            count += 1;
            let budget = InFlight::new(6 * UNIT);
            let mut actors: [Actor; 3] = Default::default();
            let mut scripts = scripts.map(<[Step]>::iter);
            for &turn in order {
                let step = scripts[turn].next().unwrap();
                actors[turn].step(&budget, *step, u8::try_from(turn).unwrap());
                let (used, warm) = (budget.used_bytes(), budget.warm_bytes());
                assert!(used + warm <= 6 * UNIT && warm <= 3 * UNIT, "{order:?}: {used} used, {warm} warm");
                ever_warm += warm;
                for (pattern, actor) in actors.iter().enumerate() {
                    let own = |byte: &u8| usize::from(*byte) == pattern;
                    assert!(actor.segment.iter().all(|segment| segment.iter().all(own)), "{order:?}");
                }
            }
            assert_eq!(budget.used_bytes(), 0, "{order:?}");
        });
        assert!(count == 3_150 && ever_warm > 0);
    }
}
