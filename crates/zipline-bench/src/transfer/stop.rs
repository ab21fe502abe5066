//! Whether somebody wants this to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::bail;
use tokio::time::{Duration, Instant};

use super::launch::pause;

const STEP: Duration = Duration::from_millis(200);

/// Set by a signal, seen between runs: then everything is taken down in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Asks for the end, because of a signal that gives this exit code.
    pub(super) fn ask(&self, exit_code: u8) {
        self.0.store(exit_code, Ordering::Relaxed);
    }

    /// The exit code, if somebody asked.
    pub(super) fn asked(&self) -> Option<u8> {
        Some(self.0.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }

    /// # Errors
    /// If somebody asked.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.asked().is_some() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Lets `time` pass.
    ///
    /// # Errors
    /// If somebody asks meanwhile.
    pub(super) fn wait(&self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            pause(STEP.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}
