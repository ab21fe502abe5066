//! Rows of the report: medians over the rounds, and how far the rounds lay apart.

use serde::Serialize;

use super::cell::Outcome;
use super::systems::System;
use super::wire::Protocol;
use crate::statistics::summarise;

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// One round of one case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    requests: f64,
    requests_per_second: f64,
    median_seconds: f64,
    p99_seconds: f64,
    cpu_seconds: f64,
    memory_bytes: u64,
}

impl From<Outcome> for Sample {
    fn from(outcome: Outcome) -> Self {
        let Outcome { measured, cpu_seconds, memory_bytes } = outcome;
        Self {
            requests: measured.requests,
            requests_per_second: measured.requests / measured.seconds,
            median_seconds: measured.median_seconds,
            p99_seconds: measured.p99_seconds,
            cpu_seconds,
            memory_bytes,
        }
    }
}

/// One start of one system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) ready_seconds: f64,
    pub(super) memory_bytes: u64,
}

/// One case, or (`case` is `rest`) what the starts of one system gave.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// `load` or `rest`.
    pub(super) case: &'static str,
    pub(super) system: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body_bytes: Option<u64>,
    /// Rounds, or starts.
    pub(super) runs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests_per_second: Option<f64>,
    /// The slowest and the fastest round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests_per_second_range: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) median_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_seconds: Option<f64>,
    /// Of the system alone; nothing for `direct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_seconds_per_request: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_seconds_per_gib: Option<f64>,
    /// Resident memory of the system's processes, added up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_bytes: Option<u64>,
    /// From the start of its process to the first answer through it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ready_seconds: Option<f64>,
}

impl Row {
    pub(super) fn of_samples(
        system: System,
        protocol: Protocol,
        connections: usize,
        body_bytes: u64,
        samples: &[Sample],
    ) -> Self {
        let rates = summarise(&column(samples, |sample| sample.requests_per_second));
        let proxy = system != System::Direct;
        let per_request = median(samples, |sample| sample.cpu_seconds / sample.requests).filter(|_| proxy);
        Self {
            case: "load",
            system: system.as_str(),
            protocol: Some(protocol.as_str()),
            connections: Some(connections),
            body_bytes: Some(body_bytes),
            runs: samples.len(),
            requests_per_second: rates.map(|rates| rates.median),
            requests_per_second_range: rates.map(|rates| [rates.min, rates.max]),
            median_seconds: median(samples, |sample| sample.median_seconds),
            p99_seconds: median(samples, |sample| sample.p99_seconds),
            cpu_seconds_per_request: per_request,
            cpu_seconds_per_gib: per_request
                .filter(|_| body_bytes > 0)
                .map(|seconds| seconds / body_bytes as f64 * GIB),
            memory_bytes: samples.iter().map(|sample| sample.memory_bytes).max().filter(|_| proxy),
            ready_seconds: None,
        }
    }

    pub(super) fn of_starts(system: &'static str, starts: &[Start]) -> Self {
        Self {
            case: "rest",
            system,
            protocol: None,
            connections: None,
            body_bytes: None,
            runs: starts.len(),
            requests_per_second: None,
            requests_per_second_range: None,
            median_seconds: None,
            p99_seconds: None,
            cpu_seconds_per_request: None,
            cpu_seconds_per_gib: None,
            memory_bytes: starts.iter().map(|start| start.memory_bytes).max(),
            ready_seconds: median(starts, |start| start.ready_seconds),
        }
    }

    /// The row for people.
    pub(super) fn line(&self) -> String {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let whole = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        format!(
            "{:<8} {:<6} {:>5} {:>10} {:>9} {:>17} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
            self.system,
            self.protocol.unwrap_or("rest"),
            whole(self.connections.map(|count| count as u64)),
            whole(self.body_bytes),
            number(self.requests_per_second, if self.body_bytes > Some(100_000) { 1 } else { 0 }),
            self.requests_per_second_range
                .map_or_else(|| "-".to_owned(), |[least, most]| format!("{least:.0}..{most:.0}")),
            number(self.median_seconds.map(|seconds| seconds * 1e3), 3),
            number(self.p99_seconds.map(|seconds| seconds * 1e3), 3),
            number(self.cpu_seconds_per_request.map(|seconds| seconds * 1e6), 1),
            number(self.cpu_seconds_per_gib, 3),
            number(self.memory_bytes.map(|bytes| bytes as f64 / 1024.0 / 1024.0), 1),
            number(self.ready_seconds.map(|seconds| seconds * 1e3), 1),
        )
    }
}

fn column<T>(samples: &[T], of: impl Fn(&T) -> f64) -> Vec<f64> {
    samples.iter().map(of).collect()
}

fn median<T>(samples: &[T], of: impl Fn(&T) -> f64) -> Option<f64> {
    summarise(&column(samples, of)).map(|summary| summary.median)
}

/// All rows for people.
pub(super) fn table(rows: &[Row]) -> String {
    let mut table = format!(
        "{:<8} {:<6} {:>5} {:>10} {:>9} {:>17} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}\n",
        "system",
        "",
        "conns",
        "bytes",
        "req/s",
        "range",
        "p50 ms",
        "p99 ms",
        "us cpu/rq",
        "cpu s/GiB",
        "MiB",
        "ready ms"
    );
    for row in rows {
        table += &row.line();
        table.push('\n');
    }
    table
}
