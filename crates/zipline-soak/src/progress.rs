//! What is told while a run goes on: once a minute how far it is, and every broken promise as soon as it is known.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::report::Tally;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(60);

/// Tells `say` until dropped.
pub async fn tell(tally: Arc<Tally>, begun: Instant, say: fn(&str)) -> Infallible {
    let mut ticks = interval(EVERY);
    // The first tick is at once, and there is nothing to tell yet.
    ticks.tick().await;
    let mut told = 0;
    loop {
        ticks.tick().await;
        let so_far = tally.so_far();
        say(&format!("soak: {:>3} min: {so_far}", begun.elapsed().as_secs() / 60));
        for violation in so_far.violations.iter().skip(told) {
            say(&format!("soak: broken: {violation}"));
        }
        told = so_far.violations.len();
    }
}
