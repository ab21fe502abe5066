//! Order statistics of a few runs.

/// What a row says of its runs' seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) runs: usize,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Sums up; `None` without runs. Quantiles are by nearest rank.
pub(crate) fn summarise(seconds: &[f64]) -> Option<Summary> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Summary {
        runs: sorted.len(),
        median: quantile(&sorted, 50)?,
        p99: quantile(&sorted, 99)?,
        min: *sorted.first()?,
        max: *sorted.last()?,
    })
}

/// A quantile by nearest rank of what is sorted; `None` of nothing.
pub(crate) fn quantile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_ranks() {
        let seconds: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let summary = summarise(&seconds).unwrap();
        assert_eq!((summary.median, summary.p99, summary.min, summary.max), (50.0, 99.0, 1.0, 100.0));
        assert_eq!(summarise(&[3.0]).unwrap().p99, 3.0);
        assert_eq!(summarise(&[]), None);
    }
}
