//! Rows of the report.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plan::Cell;
use super::systems::{Path, Shape, State, System};
use super::world::Sample;
use crate::statistics::{Summary, quantile, summarise};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// One system in one case. What does not apply is left out.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// `transfer`, `round-trip` (a POST and its answer), `memory` or `rest`.
    pub(super) case: &'static str,
    pub(super) system: &'static str,
    pub(super) path: &'static str,
    pub(super) pattern: &'static str,
    pub(super) degree: u32,
    pub(super) givers: u32,
    pub(super) takers: u32,
    pub(super) size_bytes: u64,
    pub(super) state: &'static str,
    /// Roles on one core, servers or queue-proxies on another.
    pub(super) pinned: bool,
    pub(super) runs: usize,
    pub(super) median_seconds: f64,
    pub(super) p99_seconds: f64,
    pub(super) min_seconds: f64,
    pub(super) max_seconds: f64,
    pub(super) quartile_seconds: [f64; 2],
    pub(super) bytes_per_second: f64,
    /// Payloads that takers had per second.
    pub(super) payloads_per_second: f64,
    /// Of all processes: roles in the timed part, servers or queue-proxies in the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_seconds_per_gib: Option<f64>,
    /// Of servers or queue-proxies alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) servers_cpu_seconds_per_gib: Option<f64>,
    /// Median of the longest taking in itself: from knowing of the payload to having it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) taking_median_seconds: Option<f64>,
    /// Median of the longest first reading afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_read_median_seconds: Option<f64>,
    /// Median of what the givers' host put on the cable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sent_bytes: Option<u64>,
    /// Memory that all processes of the system keep after the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) touched_bytes: Option<u64>,
    /// For each peer of the same case, how many times longer it took.
    pub(super) times_faster_than: BTreeMap<&'static str, f64>,
    /// Measured figures of cases that are no transfers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) figures: BTreeMap<&'static str, f64>,
}

/// What one system did in one cell.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) samples: Vec<Sample>,
    pub(super) servers_cpu: f64,
    pub(super) touched_bytes: u64,
}

impl Row {
    /// The row of a cell's runs; `None` without any.
    pub(super) fn of_transfer(
        system: System,
        path: Path,
        shape: Shape,
        cell: &Cell,
        pinned: bool,
        measured: &Measured,
    ) -> Option<Self> {
        let column = |of: fn(&Sample) -> f64| measured.samples.iter().map(of).collect::<Vec<_>>();
        let median = |of| summarise(&column(of)).map(|summary| summary.median);
        let seconds = column(|sample| sample.seconds);
        let payload_bytes = cell.bytes as f64 * shape.deliveries() as f64;
        let gib = payload_bytes * measured.samples.len() as f64 / GIB;
        let roles_cpu: f64 = measured.samples.iter().map(|sample| sample.roles_cpu).sum();
        let mut sent: Vec<u64> = measured.samples.iter().map(|sample| sample.sent_bytes).collect();
        sent.sort_unstable();
        let mut row = Self::of_seconds("transfer", system, path, shape, cell.bytes, cell.state, &seconds)?;
        row.pinned = pinned;
        row.cpu_seconds_per_gib = Some((roles_cpu + measured.servers_cpu) / gib);
        row.servers_cpu_seconds_per_gib = Some(measured.servers_cpu / gib);
        row.taking_median_seconds = median(|sample| sample.taking).filter(|seconds| *seconds > 0.0);
        row.first_read_median_seconds = median(|sample| sample.first_read);
        row.sent_bytes = (path == Path::Network).then(|| quantile(&sent, 50)).flatten();
        row.touched_bytes = Some(measured.touched_bytes);
        Some(row)
    }

    /// A row of times alone.
    pub(super) fn of_seconds(
        case: &'static str,
        system: System,
        path: Path,
        shape: Shape,
        bytes: u64,
        state: State,
        seconds: &[f64],
    ) -> Option<Self> {
        let Summary { runs, median, p99, min, max } = summarise(seconds)?;
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let deliveries = shape.deliveries() as f64;
        Some(Self {
            case,
            system: system.as_str(),
            path: path.as_str(),
            pattern: shape.pattern.as_str(),
            degree: shape.degree(),
            givers: shape.givers,
            takers: shape.takers,
            size_bytes: bytes,
            state: state.as_str(),
            pinned: false,
            runs,
            median_seconds: median,
            p99_seconds: p99,
            min_seconds: min,
            max_seconds: max,
            quartile_seconds: [quantile(&sorted, 25)?, quantile(&sorted, 75)?],
            bytes_per_second: bytes as f64 * deliveries / median,
            payloads_per_second: deliveries / median,
            cpu_seconds_per_gib: None,
            servers_cpu_seconds_per_gib: None,
            taking_median_seconds: None,
            first_read_median_seconds: None,
            sent_bytes: None,
            touched_bytes: None,
            times_faster_than: BTreeMap::new(),
            figures: BTreeMap::new(),
        })
    }

    /// A row of named figures.
    pub(super) fn of_figures(
        case: &'static str,
        system: System,
        path: Path,
        figures: BTreeMap<&'static str, f64>,
    ) -> Option<Self> {
        let shape = super::systems::Pattern::OneToOne.shape(1);
        let mut row = Self::of_seconds(case, system, path, shape, 0, State::Warm, &[1.0])?;
        (row.median_seconds, row.p99_seconds, row.min_seconds, row.max_seconds) = (0.0, 0.0, 0.0, 0.0);
        (row.quartile_seconds, row.payloads_per_second, row.runs) = ([0.0; 2], 0.0, 0);
        row.figures = figures;
        Some(row)
    }

    /// The row for people.
    pub(super) fn line(&self) -> String {
        if !self.figures.is_empty() {
            let figures: Vec<String> =
                self.figures.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
            return format!("{:<20} {:<10} {}: {}", self.system, self.path, self.case, figures.join(", "));
        }
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        format!(
            "{:<20} {:<10} {:<10} {:>3}x{:<3} {:>11} {:<6}{} {:>5} {:>11.3} {:>11.3} {:>11.3} {:>9.0} {:>9} {:>9} {:>9} {:>9}",
            self.system,
            self.path,
            if self.case == "transfer" { self.pattern } else { self.case },
            self.givers,
            self.takers,
            self.size_bytes,
            self.state,
            if self.pinned { "p" } else { " " },
            self.runs,
            self.median_seconds * 1e3,
            self.p99_seconds * 1e3,
            self.min_seconds * 1e3,
            self.bytes_per_second / 1e6,
            number(self.cpu_seconds_per_gib, 3),
            number(self.servers_cpu_seconds_per_gib, 3),
            number(self.taking_median_seconds.map(|seconds| seconds * 1e3), 3),
            number(self.touched_bytes.map(|bytes| bytes as f64 / 1e6), 0),
        )
    }
}

/// Fills in how each row compares with the others of its case.
pub(super) fn compare(rows: &mut [Row]) {
    let key = |row: &Row| {
        (row.case, row.path, row.pattern, row.givers, row.takers, row.size_bytes, row.state, row.pinned)
    };
    let mut cases: BTreeMap<_, Vec<(&'static str, f64)>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.median_seconds > 0.0) {
        cases.entry(key(row)).or_default().push((row.system, row.median_seconds));
    }
    for row in rows.iter_mut().filter(|row| row.median_seconds > 0.0) {
        for (system, seconds) in cases.get(&key(row)).into_iter().flatten() {
            if *system != row.system {
                row.times_faster_than.insert(system, seconds / row.median_seconds);
            }
        }
    }
}

/// All rows for people.
pub(super) fn table(rows: &[Row]) -> String {
    let mut table = format!(
        "{:<20} {:<10} {:<10} {:>7} {:>11} {:<7} {:>5} {:>11} {:>11} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "system",
        "path",
        "pattern",
        "g x t",
        "bytes",
        "state",
        "runs",
        "median ms",
        "p99 ms",
        "min ms",
        "MB/s",
        "cpu s/GiB",
        "servers",
        "take ms",
        "MB kept"
    );
    for row in rows {
        table += &row.line();
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::systems::Pattern;
    use super::*;

    fn row(system: System, seconds: &[f64]) -> Row {
        let shape = Pattern::Broadcast.shape(4);
        Row::of_seconds("transfer", system, Path::Network, shape, 1000, State::Warm, seconds).unwrap()
    }

    #[test]
    fn rows_of_one_case_are_compared() {
        let mut rows = vec![row(System::Redis, &[9.0, 8.0, 10.0]), row(System::Zipline, &[1.0, 3.0, 2.0])];
        compare(&mut rows);
        assert_eq!(rows[1].times_faster_than, BTreeMap::from([("redis", 4.5)]));
        assert_eq!(rows[1].bytes_per_second, 2000.0);
        assert_eq!(rows[1].payloads_per_second, 2.0);
        assert!(
            Row::of_seconds(
                "transfer",
                System::Redis,
                Path::Network,
                Pattern::OneToOne.shape(1),
                1,
                State::Warm,
                &[]
            )
            .is_none()
        );
    }
}
