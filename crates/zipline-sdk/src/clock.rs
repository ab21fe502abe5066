//! Time, as the blocking client sees it: it has no runtime whose clock could be paused.
#![expect(clippy::disallowed_types, reason = "the blocking client works without tokio")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Time since this process asked first.
pub(crate) fn now() -> Duration {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed()
}
