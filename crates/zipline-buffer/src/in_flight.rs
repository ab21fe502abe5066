//! The budget of bytes that pass through a process without being held.
//!
//! First come, first served; at most [`InFlight::WAITERS_MAX`] wait, further ones are refused.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::InFlightError;

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
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub struct Permit {
    units: u64,
    _permit: OwnedSemaphorePermit,
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
        Self {
            shared: Arc::new(Shared {
                semaphore: Arc::new(Semaphore::new(permits)),
                units,
                waiters: AtomicUsize::new(0),
            }),
        }
    }

    /// Waits for `bytes` of the budget; more than the whole budget counts as the whole budget.
    ///
    /// # Errors
    /// [`InFlightError::TooMany`] at once when [`Self::WAITERS_MAX`] wait already.
    /// # Cancel safety
    /// Dropping the future gives up its place.
    pub async fn acquire(&self, bytes: u64) -> Result<Permit, InFlightError> {
        let wanted = bytes.div_ceil(UNIT_BYTES).min(u64::from(self.shared.units));
        let units = u32::try_from(wanted).unwrap_or(self.shared.units);
        let waiters = self.shared.waiters.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.shared.waiters);
        if waiters >= Self::WAITERS_MAX {
            return Err(InFlightError::TooMany { waiters });
        }
        let permit = Arc::clone(&self.shared.semaphore)
            .acquire_many_owned(units)
            .await
            .expect("the semaphore is never closed");
        Ok(Permit { units: u64::from(units), _permit: permit })
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
mod tests {
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
}
