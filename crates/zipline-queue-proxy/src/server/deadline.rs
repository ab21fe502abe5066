//! The end of the grace, which further orders can bring nearer but never move away.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::control::DrainOrder;

#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    orders: mpsc::Receiver<DrainOrder>,
}

impl Deadline {
    pub(super) fn new(at: Instant, orders: mpsc::Receiver<DrainOrder>) -> Self {
        Self { at, orders }
    }

    /// What `work` gives, or `None` once the grace has passed.
    pub(super) async fn bound<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.passed() => None,
        }
    }

    async fn passed(&mut self) {
        loop {
            tokio::select! {
                () = sleep_until(self.at) => return,
                Some(order) = self.orders.recv() => self.at = self.at.min(Instant::now() + order.grace),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn orders_only_shorten() {
        let (orders, received) = mpsc::channel(2);
        let start = Instant::now();
        let mut deadline = Deadline::new(start + Duration::from_secs(10), received);
        orders.send(DrainOrder { grace: Duration::from_secs(60) }).await.unwrap();
        orders.send(DrainOrder { grace: Duration::from_secs(2) }).await.unwrap();
        assert_eq!(deadline.bound(pending::<()>()).await, None);
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        assert_eq!(deadline.bound(async { 1 }).await, Some(1));
    }
}
