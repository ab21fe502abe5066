//! A histogram with fixed bounds.

/// Upper bounds in seconds for durations: those of OpenTelemetry's HTTP instruments.
pub(crate) const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Upper bounds in bytes for body sizes: OpenTelemetry's defaults.
pub(crate) const BYTES: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

/// Observations counted by size. Memory is fixed: one counter per bound.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds: the last one is what exceeds them all.
    counts: Box<[u64]>,
    sum: f64,
    min: f64,
    max: f64,
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let counts = vec![0; bounds.len() + 1].into_boxed_slice();
        Self { bounds, counts, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }

    /// Counts one observation. A bound belongs to its bucket.
    pub(crate) fn record(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// The upper bounds, without infinity.
    pub(crate) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// Observations per bucket, infinity last.
    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// All observations.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    /// The smallest and the largest observation; `None` before the first.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        (self.min <= self.max).then_some((self.min, self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::new(&BYTES);
        assert_eq!(histogram.range(), None);
        for value in [0.0, 5.0, 5.1, 10_000.0, 10_000.5] {
            histogram.record(value);
        }
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[2], counts[14], counts[15]), (1, 1, 1, 1, 1));
        assert_eq!((histogram.count(), histogram.sum()), (5, 20_010.6));
        assert_eq!(histogram.range(), Some((0.0, 10_000.5)));
    }
}
