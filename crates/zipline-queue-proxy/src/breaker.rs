//! The concurrency limit of a function: so many requests run, so many wait in turn, further ones are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait for each one that may run, as Knative has it.
const QUEUE_PER_SLOT: usize = 10;

/// The queue is full; the request was refused at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{running} requests run and {queued} wait; no more are taken")]
pub struct BreakerFull {
    /// Requests that run.
    pub running: usize,
    /// Requests that wait.
    pub queued: usize,
}

/// Limits how many requests the function works on. Clones share the limit.
#[derive(Debug, Clone)]
pub struct Breaker {
    limit: Option<Limit>,
    counts: Arc<Counts>,
}

#[derive(Debug, Clone)]
struct Limit {
    slots: Arc<Semaphore>,
    queue: usize,
}

#[derive(Debug, Default)]
struct Counts {
    running: AtomicUsize,
    queued: AtomicUsize,
}

/// The right to run one request; given back on drop.
#[derive(Debug)]
pub struct Slot {
    counts: Arc<Counts>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counts.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a waiting request, however the wait ends.
struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Breaker {
    /// Lets `concurrency` requests run and ten times as many wait; 0 sets no limit.
    #[must_use]
    pub fn new(concurrency: u32) -> Self {
        let slots = concurrency as usize;
        let limit = (slots > 0)
            .then(|| Limit { slots: Arc::new(Semaphore::new(slots)), queue: slots * QUEUE_PER_SLOT });
        Self { limit, counts: Arc::default() }
    }

    /// Waits in turn for a slot.
    ///
    /// # Errors
    /// [`BreakerFull`] at once when the queue is full.
    /// # Cancel safety
    /// Dropping the future gives up its place in the queue.
    pub async fn acquire(&self) -> Result<Slot, BreakerFull> {
        let permit = match &self.limit {
            None => None,
            Some(limit) => match Arc::clone(&limit.slots).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => Some(self.wait(limit).await?),
            },
        };
        self.counts.running.fetch_add(1, Ordering::Relaxed);
        Ok(Slot { counts: Arc::clone(&self.counts), _permit: permit })
    }

    /// Lets a request run beside the limit. Knative does so for probes of the kubelet.
    #[must_use]
    pub fn pass(&self) -> Slot {
        self.counts.running.fetch_add(1, Ordering::Relaxed);
        Slot { counts: Arc::clone(&self.counts), _permit: None }
    }

    async fn wait(&self, limit: &Limit) -> Result<OwnedSemaphorePermit, BreakerFull> {
        let queued = self.counts.queued.fetch_add(1, Ordering::Relaxed);
        let _queued = Queued(&self.counts.queued);
        if queued >= limit.queue {
            return Err(BreakerFull { running: self.in_flight(), queued });
        }
        Ok(Arc::clone(&limit.slots).acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Whether there is a limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Requests that run.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.counts.running.load(Ordering::Relaxed)
    }

    /// Requests that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.counts.queued.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::{join_all, poll_immediate};
    use proptest::prelude::*;

    #[tokio::test]
    async fn runs_queues_refuses() {
        let breaker = Breaker::new(1);
        let slot = breaker.acquire().await.unwrap();
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(breaker.acquire())).collect();
        for wait in &mut waiting {
            assert!(poll_immediate(wait).await.is_none());
        }
        assert_eq!((breaker.in_flight(), breaker.queued()), (1, 10));
        assert_eq!(breaker.acquire().await.unwrap_err(), BreakerFull { running: 1, queued: 10 });
        // The first gives up, so the second is the first in turn.
        drop(waiting.remove(0));
        drop(slot);
        assert!(poll_immediate(&mut waiting[1]).await.is_none());
        let next = poll_immediate(&mut waiting[0]).await.unwrap().unwrap();
        assert_eq!((breaker.in_flight(), breaker.queued()), (1, 8));
        drop((waiting, next));
        assert_eq!((breaker.in_flight(), breaker.queued()), (0, 0));
    }

    #[tokio::test]
    async fn no_limit_counts_all_the_same() {
        let breaker = Breaker::new(0);
        let slots = join_all((0..1000).map(|_| breaker.acquire())).await;
        assert_eq!((breaker.in_flight(), breaker.queued()), (1000, 0));
        drop(slots);
        assert_eq!(breaker.in_flight(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask,
        /// Finishes or gives up the one at this place, counted round.
        End(usize),
    }

    proptest! {
        #[test]
        fn never_more_than_the_limits_and_always_in_turn(
            concurrency in 1_u32..4,
            steps in proptest::collection::vec(
                prop_oneof![2 => Just(Step::Ask), 1 => any::<usize>().prop_map(Step::End)],
                0..200,
            ),
        ) {
            let breaker = Breaker::new(concurrency);
            let (running_max, queued_max) = (concurrency as usize, concurrency as usize * QUEUE_PER_SLOT);
            let mut running: Vec<Slot> = Vec::new();
            let mut waiting = Vec::new();
            for step in steps {
                match step {
                    Step::Ask => {
                        let mut asked = Box::pin({ let breaker = breaker.clone(); async move { breaker.acquire().await } });
                        match asked.as_mut().now_or_never() {
                            Some(Ok(slot)) => {
                                prop_assert!(waiting.is_empty(), "overtook those who wait");
                                running.push(slot);
                            }
                            Some(Err(full)) => {
                                prop_assert_eq!(full, BreakerFull { running: running_max, queued: queued_max });
                            }
                            None => waiting.push(asked),
                        }
                    }
                    Step::End(place) if running.len() + waiting.len() > 0 => {
                        let place = place % (running.len() + waiting.len());
                        if place < running.len() {
                            drop(running.remove(place));
                        } else {
                            drop(waiting.remove(place - running.len()));
                        }
                    }
                    Step::End(_) => {}
                }
                // A freed slot goes to the first in turn and to nobody else.
                while running.len() < running_max && !waiting.is_empty() {
                    let slot = waiting.remove(0).now_or_never();
                    prop_assert!(matches!(slot, Some(Ok(_))), "a slot is free and the first in turn has none");
                    running.extend(slot.and_then(Result::ok));
                }
                for wait in &mut waiting {
                    prop_assert!(wait.as_mut().now_or_never().is_none());
                }
                prop_assert_eq!((breaker.in_flight(), breaker.queued()), (running.len(), waiting.len()));
                prop_assert!(running.len() <= running_max && waiting.len() <= queued_max);
            }
        }
    }
}
