//! Counters of the controller. Labels are closed sets: never names of pods or namespaces.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds for one answer, long polls apart.
const SECONDS: [f64; 8] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    path: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GuardLabels {
    outcome: &'static str,
}

/// What came of marking a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardOutcome {
    /// It is as it should be.
    Written,
    /// Somebody else has set it.
    LeftAlone,
    /// The pod is gone.
    PodGone,
    /// The API server refused or could not be asked.
    Failed,
}

impl GuardOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::LeftAlone => "left-alone",
            Self::PodGone => "pod-gone",
            Self::Failed => "failed",
        }
    }
}

/// The metrics of the controller. Clones count into the same registry.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    requests: Family<RequestLabels, Counter>,
    verification: Histogram,
    guards: Family<GuardLabels, Counter>,
    /// Queue-proxies that wait for a change of mode.
    pub waiting: Gauge<u64, AtomicU64>,
}

impl ControllerMetrics {
    /// Makes the metrics and registers them in `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            verification: Histogram::new(SECONDS),
            guards: Family::default(),
            waiting: Gauge::default(),
        };
        registry.register(
            "zipline_controller_requests",
            "Requests by path and outcome, which is ok or the reason of a refusal",
            metrics.requests.clone(),
        );
        registry.register(
            "zipline_controller_keys_duration_seconds",
            "From a request for keys to its answer",
            metrics.verification.clone(),
        );
        registry.register(
            "zipline_controller_guard_writes",
            "Marks set on pods or removed, by outcome",
            metrics.guards.clone(),
        );
        registry.register(
            "zipline_controller_waiting",
            "Queue-proxies that wait for a change of mode",
            metrics.waiting.clone(),
        );
        metrics
    }

    /// Counts a request.
    pub fn request(&self, path: &'static str, outcome: &'static str) {
        self.requests.get_or_create(&RequestLabels { path, outcome }).inc();
    }

    /// Counts how long an answer with keys took.
    pub fn keys_answered(&self, seconds: f64) {
        self.verification.observe(seconds);
    }

    /// Counts a mark.
    pub fn guard(&self, outcome: GuardOutcome) {
        self.guards.get_or_create(&GuardLabels { outcome: outcome.as_str() }).inc();
    }
}
