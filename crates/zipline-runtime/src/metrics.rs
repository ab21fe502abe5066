use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// A metrics registry that is passed to whoever has something to count; never global. Clones share it.
///
/// Metrics are registered once, at start; how many there are is fixed by the code, and their labels are closed sets.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// Media type of what [`Metrics::encode`] gives.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `register` add its metrics, and gives what it returns (usually the handles to count with).
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock())
    }

    /// Every metric in Prometheus' text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock()).expect("writing to a String does not fail");
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn what_is_counted_is_encoded() {
        let metrics = Metrics::new();
        let retrievals = metrics.clone().register(|registry| {
            let retrievals = Counter::<u64>::default();
            registry.register("zipline_retrievals", "Retrievals served", retrievals.clone());
            retrievals
        });
        retrievals.inc_by(3);
        assert_eq!(
            metrics.encode(),
            "# HELP zipline_retrievals Retrievals served.\n# TYPE zipline_retrievals counter\n\
             zipline_retrievals_total 3\n# EOF\n"
        );
    }
}
