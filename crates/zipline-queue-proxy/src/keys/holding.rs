//! Tells the controller when this pod begins to hold payloads, holds many, or holds nothing any more.
//!
//! Only edges are told, and at most one every [`HOLDING_PAUSE`]: most payloads come and go within milliseconds, and what
//! removes pods looks at its marks every ten seconds or so.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use zipline_buffer::Store;
use zipline_protocol::controller::{HOLDING_PAUSE, Holding, HoldingReport};

use super::controller::Controller;

/// How often it is looked at what is held.
const LOOK: Duration = Duration::from_secs(1);
/// One part in so many of the budget is much; it stays so until half of that is left.
const MUCH: u64 = 4;
/// Nothing must be held for this long before it is said.
const QUIET: Duration = Duration::from_secs(10);

/// Watches `store` and reports to `controller`, for ever. What could not be told is told again.
pub async fn report(controller: &Controller, store: &Store) {
    let mut edges = Edges::new();
    loop {
        sleep(LOOK).await;
        let totals = store.totals();
        let Some(holding) = edges.look(totals.held_bytes, totals.budget_bytes) else { continue };
        match controller.tell("/v1/holding", &HoldingReport { holding }).await {
            Ok(()) => edges.told(holding),
            Err(error) => {
                tracing::debug!(%error, "what is held could not be told");
                edges.not_told();
            }
        }
    }
}

/// From levels to edges.
#[derive(Debug)]
struct Edges {
    told: Holding,
    /// What the last look saw, and since when it is the same.
    seen: (Holding, Instant),
    not_before: Instant,
}

impl Edges {
    fn new() -> Self {
        let now = Instant::now();
        Self { told: Holding::Nothing, seen: (Holding::Nothing, now), not_before: now }
    }

    /// Takes a level; gives what is to be told now.
    fn look(&mut self, held: u64, budget: u64) -> Option<Holding> {
        let now = Instant::now();
        let much = budget / MUCH;
        let level = match held {
            0 => Holding::Nothing,
            held if held >= much => Holding::Much,
            held if self.seen.0 == Holding::Much && held >= much / 2 => Holding::Much,
            _ => Holding::Some,
        };
        if level != self.seen.0 {
            self.seen = (level, now);
        }
        // What was held for less than a look is nobody's business.
        let settled = if level == Holding::Nothing { QUIET } else { LOOK };
        let due = now >= self.not_before && now.duration_since(self.seen.1) >= settled;
        (due && level != self.told).then_some(level)
    }

    fn told(&mut self, holding: Holding) {
        self.told = holding;
        self.not_before = Instant::now() + HOLDING_PAUSE;
    }

    fn not_told(&mut self) {
        self.not_before = Instant::now() + HOLDING_PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second; gives what was told, with the second.
    async fn told(levels: &[(u32, u64)]) -> Vec<(u32, Holding)> {
        let (mut edges, mut told, mut second) = (Edges::new(), Vec::new(), 0);
        for (seconds, held) in levels {
            for _ in 0..*seconds {
                if let Some(holding) = edges.look(*held, 1000) {
                    edges.told(holding);
                    told.push((second, holding));
                }
                tokio::time::advance(LOOK).await;
                second += 1;
            }
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn edges_are_told_and_flicker_is_not() {
        // Payloads that are gone by the next look are never told.
        assert_eq!(told(&[(1, 10), (1, 0), (1, 10), (1, 0), (1, 300), (5, 0)]).await, []);
        // Much stays much until half of it is left, and nothing is nothing after a while.
        let levels = [(3, 300), (20, 200), (12, 100), (5, 0), (1, 10), (30, 0)];
        assert_eq!(told(&levels).await, [(1, Holding::Much), (24, Holding::Some), (51, Holding::Nothing)]);
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_one_edge_in_ten_seconds() {
        let levels: Vec<(u32, u64)> = (0..20).map(|turn| (2, if turn % 2 == 0 { 300 } else { 10 })).collect();
        let told = told(&levels).await;
        assert!(told.len() >= 2);
        assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 10), "{told:?}");
    }
}
