//! How long to wait before an instance that failed is started again.

use std::time::Duration;

/// First wait.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(10);
/// An instance that was up for this long has proved itself: the next failure starts from the first wait again.
const PROVED: Duration = Duration::from_secs(10);

/// Doubling waits.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// The wait after a failure of an instance that had been ready for `up`.
    pub(crate) fn after(&mut self, up: Duration) -> Duration {
        if up >= PROVED {
            self.failures = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_ten_seconds_and_starts_over() {
        let mut backoff = BackOff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(PROVED).as_millis(), 100);
        assert_eq!(backoff.after(Duration::from_secs(9)).as_millis(), 200);
    }
}
