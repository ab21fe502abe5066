//! Whether a run counts.

use serde::Serialize;

use super::rows::Row;

/// Baselines, and how many times as long as the bare pull they took on a quiet machine like the one the targets were set on
/// (1-1, network, cubic, warm; Redis 7.0, s3s-fs 0.14).
const BASELINES: [(&str, u64, f64); 6] = [
    ("redis", 10_000_000, 8.7 / 0.59),
    ("redis", 100_000_000, 108.0 / 8.7),
    ("redis-py", 10_000_000, 23.6 / 0.59),
    ("redis-py", 100_000_000, 341.0 / 8.7),
    ("s3fs", 10_000_000, 60.0 / 0.59),
    ("s3fs", 100_000_000, 761.0 / 8.7),
];
/// A baseline that is slower than this part of its speed would flatter us.
const ENOUGH: f64 = 0.75;

/// A baseline in a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Baseline {
    system: &'static str,
    size_bytes: u64,
    /// How many times as long as the bare pull it took.
    times_bare: f64,
    expected_times_bare: f64,
    /// Its speed over the expected one, both relative to the bare pull.
    reached: f64,
}

/// All that were measured.
pub(super) fn baselines(rows: &[Row]) -> Vec<Baseline> {
    let median = |system: &str, bytes: u64| {
        let case = |row: &&Row| {
            row.case == "transfer"
                && row.system == system
                && (row.path, row.pattern, row.state) == ("network", "1-1", "warm")
                && row.size_bytes == bytes
        };
        rows.iter().find(case).map(|row| row.median_seconds)
    };
    let measured = BASELINES.iter().filter_map(|(system, bytes, expected)| {
        let times_bare = median(system, *bytes)? / median("bare", *bytes)?;
        let reached = expected / times_bare;
        Some(Baseline { system, size_bytes: *bytes, times_bare, expected_times_bare: *expected, reached })
    });
    measured.collect()
}

/// Whether a baseline misses too much of what it was.
pub(super) fn is_void(baselines: &[Baseline]) -> bool {
    baselines.iter().any(|baseline| baseline.reached < ENOUGH)
}

/// One line per baseline.
pub(super) fn text(baselines: &[Baseline]) -> String {
    let line = |baseline: &Baseline| {
        let Baseline { system, size_bytes, times_bare, expected_times_bare, reached } = baseline;
        format!(
            "baseline {system}, {size_bytes} bytes: {times_bare:.1} x bare pull, expected {expected_times_bare:.1}: {:.0} % of its speed\n",
            reached * 100.0
        )
    };
    let mut text: String = baselines.iter().map(line).collect();
    if is_void(baselines) {
        text += "VOID: a baseline reached less than 75 % of its ratio to the bare pull, so this run says nothing\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::systems::{Path, Pattern, State, System};
    use super::*;

    #[test]
    fn a_slow_baseline_makes_a_run_void() {
        let row = |system, ms: f64| {
            let shape = Pattern::OneToOne.shape(1);
            Row::of_seconds("transfer", system, Path::Network, shape, 100_000_000, State::Warm, &[ms / 1e3])
                .unwrap()
        };
        let run = |redis| baselines(&[row(System::Bare, 8.7), row(System::Redis, redis)]);
        assert!(!is_void(&run(108.0)) && !is_void(&run(50.0)) && !is_void(&run(140.0)));
        assert!(is_void(&run(150.0)));
        assert!(text(&run(150.0)).contains("VOID"));
        assert!(baselines(&[row(System::Redis, 1.0)]).is_empty());
    }
}
