//! How often one address may ask.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Addresses remembered. Beyond, those that have been quiet long enough are forgotten; if there is none, new addresses
/// are refused until there is: a flood of addresses must not reset the others' counts.
const ADDRESSES_MAX: usize = 65_536;

/// Token buckets by address.
#[derive(Debug)]
pub struct Rates {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// Lets each address ask `burst` times at once and `per_second` times in the long run.
    #[must_use]
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, buckets: Mutex::default() }
    }

    /// Counts one request; `false` if it is one too many.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&address) {
            buckets.retain(|_, bucket| self.level(*bucket, now) < self.burst);
            if buckets.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let bucket = buckets.entry(address).or_insert(Bucket { left: self.burst, at: now });
        let left = self.level(*bucket, now);
        *bucket = Bucket { left: (left - 1.0).max(0.0), at: now };
        left >= 1.0
    }

    fn level(&self, bucket: Bucket, now: Instant) -> f64 {
        (bucket.left + now.duration_since(bucket.at).as_secs_f64() * self.per_second).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_address_is_slowed_down_and_others_are_not() {
        let rates = Rates::new(1.0, 3.0);
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert_eq!((0..5).filter(|_| rates.allows(one)).count(), 3);
        assert!(rates.allows(other));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((0..5).filter(|_| rates.allows(one)).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_is_bounded() {
        let rates = Rates::new(1.0, 3.0);
        let known = "10.0.0.1".parse().unwrap();
        assert!(rates.allows(known));
        for number in 1..u32::try_from(ADDRESSES_MAX).unwrap() {
            assert!(rates.allows(IpAddr::from((0x0b00_0000 + number).to_be_bytes())));
        }
        let new = "10.9.0.1".parse().unwrap();
        assert!(!rates.allows(new));
        assert!(rates.allows(known));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(rates.allows(new));
    }
}
