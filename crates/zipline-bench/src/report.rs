//! The one JSON object that every benchmark prints, and its table for people.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

/// Version of the report's form. Fields may be added within a version.
const SCHEMA: &str = "zipline.bench/1";

/// A benchmark's result.
#[derive(Debug, Serialize)]
pub(crate) struct Report<R> {
    schema: &'static str,
    command: String,
    machine: Machine,
    pub(crate) rows: Vec<R>,
    /// What else a benchmark has to say of its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) findings: Option<serde_json::Value>,
}

/// One measured case of invokes.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) system: &'static str,
    pub(crate) path: &'static str,
    pub(crate) pattern: &'static str,
    pub(crate) size_bytes: u64,
    pub(crate) degree: u32,
    pub(crate) runs: usize,
    pub(crate) median_seconds: f64,
    pub(crate) p99_seconds: f64,
    pub(crate) min_seconds: f64,
    pub(crate) max_seconds: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) cpu_seconds_per_gib: f64,
}

#[derive(Debug, Serialize)]
struct Machine {
    cpu: String,
    cpus: usize,
    memory_bytes: u64,
    kernel: String,
    congestion_control: String,
}

impl<R: Serialize> Report<R> {
    /// An empty report of the command as it was given.
    pub(crate) fn new() -> Self {
        let command =
            std::env::args().skip(1).fold("zipline bench".to_owned(), |all, word| all + " " + &word);
        Self { schema: SCHEMA, command, machine: Machine::here(), rows: Vec::new(), findings: None }
    }

    /// The machine in one line.
    pub(crate) fn machine_line(&self) -> String {
        let Machine { cpu, cpus, memory_bytes, kernel, .. } = &self.machine;
        format!("{cpus} x {cpu}, {} GiB, kernel {kernel}", memory_bytes >> 30)
    }

    /// Prints the report as JSON or as `table`, and writes the JSON to `output` if one is named.
    ///
    /// # Errors
    /// If a file or standard output cannot be written.
    pub(crate) fn publish(
        &self,
        json: bool,
        output: Option<&Path>,
        table: impl FnOnce(&Self) -> String,
    ) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("report")? + "\n";
        if let Some(path) = output {
            fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let shown = if json { text } else { table(self) };
        std::io::stdout().write_all(shown.as_bytes()).context("cannot write to standard output")
    }
}

impl Report<Row> {
    /// The rows of invokes for people.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:<16} {:>10} {:>5} {:>11} {:>11} {:>11} {:>11} {:>9} {:>9}\n",
            "case", "bytes", "runs", "median ms", "p99 ms", "min ms", "max ms", "MB/s", "cpu s/GiB"
        );
        for row in &self.rows {
            table += &format!(
                "{:<16} {:>10} {:>5} {:>11.3} {:>11.3} {:>11.3} {:>11.3} {:>9.0} {:>9.2}\n",
                row.case,
                row.size_bytes,
                row.runs,
                row.median_seconds * 1e3,
                row.p99_seconds * 1e3,
                row.min_seconds * 1e3,
                row.max_seconds * 1e3,
                row.bytes_per_second / 1e6,
                row.cpu_seconds_per_gib
            );
        }
        table
    }
}

impl Machine {
    fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_kib.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024,
            kernel: read("/proc/sys/kernel/osrelease"),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
        }
    }
}

/// Tells people how it goes, on standard error.
pub(crate) fn progress(line: &str) {
    // Progress is a courtesy: a closed standard error must not end a measurement.
    let _ = writeln!(std::io::stderr(), "{line}");
}
