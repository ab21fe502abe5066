//! Asks the function whether it is ready, when somebody asks for it and not otherwise.
//!
//! Those who ask at the same time share one run and its result. Several probes of one run go side by side and must all
//! pass. A probe with a period is one attempt; one without is tried every 50 ms, until it has passed often enough in a
//! row or 10 s are over. A run goes on when those who asked for it have left.
//!
//! # Source
//! knative/serving `pkg/queue/readiness/probe.go`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use zipline_knative::Probe;
use zipline_knative::contract::{
    AGGRESSIVE_PROBE_INTERVAL, AGGRESSIVE_PROBE_TIMEOUT, AGGRESSIVE_PROBE_TOTAL,
};
use zipline_runtime::Tasks;

mod attempt;
mod grpc;
mod http;
mod trust;

pub use trust::TrustFiles;

/// Runs the probes of one revision. Clones share runs.
#[derive(Debug, Clone)]
pub(super) struct Prober {
    inner: Arc<Inner>,
    tasks: Tasks,
}

#[derive(Debug)]
struct Inner {
    probes: Vec<Counted>,
    means: attempt::Means,
    running: Mutex<Option<watch::Receiver<Option<bool>>>>,
}

/// A probe and its successes in a row, which outlast a run.
#[derive(Debug)]
struct Counted {
    probe: Probe,
    successes: AtomicU32,
}

impl Prober {
    /// `detect_http2`: HTTP probes try h2c first. `tasks` owns the runs.
    pub(super) fn new(probes: Vec<Probe>, detect_http2: bool, trust: TrustFiles, tasks: Tasks) -> Self {
        let probes =
            probes.into_iter().map(|probe| Counted { probe, successes: AtomicU32::new(0) }).collect();
        let means = attempt::Means::new(detect_http2, trust, tasks.clone());
        Self { inner: Arc::new(Inner { probes, means, running: Mutex::new(None) }), tasks }
    }

    /// Whether the function is ready. Without a probe it always is.
    ///
    /// # Cancel safety
    /// A run goes on without those who wait for it.
    pub(super) async fn is_ready(&self) -> bool {
        if self.inner.probes.is_empty() {
            return true;
        }
        let mut result = self.join();
        let result = result.wait_for(Option::is_some).await;
        // The run is gone without a result only when the process ends.
        result.is_ok_and(|result| *result == Some(true))
    }

    fn join(&self) -> watch::Receiver<Option<bool>> {
        let mut running = self.inner.running.lock();
        if let Some(result) = &*running {
            return result.clone();
        }
        let (done, result) = watch::channel(None);
        *running = Some(result.clone());
        let inner = Arc::clone(&self.inner);
        drop(self.tasks.spawn("readiness probe", async move {
            let passed = inner.run().await;
            *inner.running.lock() = None;
            done.send_replace(Some(passed));
        }));
        result
    }
}

impl Inner {
    async fn run(&self) -> bool {
        let results = join_all(self.probes.iter().map(|probe| self.one(probe))).await;
        results.into_iter().all(|passed| passed)
    }

    async fn one(&self, counted: &Counted) -> bool {
        let Counted { probe, successes } = counted;
        if !probe.is_aggressive() {
            return self.attempt(probe, probe.timeout).await;
        }
        let end = Instant::now() + AGGRESSIVE_PROBE_TOTAL;
        let mut ticks = interval(AGGRESSIVE_PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let passes = async {
            loop {
                ticks.tick().await;
                if self.attempt(probe, AGGRESSIVE_PROBE_TIMEOUT).await {
                    if successes.fetch_add(1, Ordering::Relaxed) + 1 >= probe.success_threshold {
                        return;
                    }
                } else {
                    successes.store(0, Ordering::Relaxed);
                }
            }
        };
        timeout_at(end, passes).await.is_ok()
    }

    async fn attempt(&self, probe: &Probe, limit: Duration) -> bool {
        let failure = self.means.attempt(&probe.check, limit).await.err();
        if let Some(failure) = &failure {
            tracing::debug!(failure, "readiness probe failed");
        }
        failure.is_none()
    }
}

#[cfg(test)]
mod tests;
