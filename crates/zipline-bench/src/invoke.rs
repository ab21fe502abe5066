//! `zipline bench invoke`: where does deferring pay?

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::engine::Engine;
use crate::report::{Report, Row, progress};
use crate::statistics::summarise;

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Buffer of each queue-proxy: holds the largest payload whole.
const BUDGET: u64 = 512 * 1024 * 1024;

/// Everything of this size and more is deferred in the deferred case.
const THRESHOLD: u64 = 1024;

/// One function invokes another with payloads of each size: inline through the gateway, and deferred. The two alternate.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Payload sizes in bytes, from 1024 on.
    #[arg(long, value_delimiter = ',', value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1024..=268_435_456),
          default_values_t = [1_024, 10_000, 100_000, 131_072, 262_144, 524_288, 1_000_000, 2_000_000, 4_000_000, 10_000_000, 100_000_000])]
    sizes: Vec<u64>,
    /// Rounds; in each, every case runs once per size, the cases alternating.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Bytes that one case moves per round and size, within 3 and 100 runs.
    #[arg(long, default_value_t = 200_000_000)]
    volume: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Also write the JSON to this file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

struct Case {
    name: &'static str,
    engine: Engine,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut cases = [
        Case {
            name: "invoke-deferred",
            engine: Engine::start("on", THRESHOLD, BUDGET).context("deferred case")?,
        },
        Case {
            name: "invoke-inline",
            engine: Engine::start("off", THRESHOLD, BUDGET).context("inline case")?,
        },
    ];
    let mut report = Report::new();
    for &size in &options.sizes {
        let runs = usize::try_from(options.volume / size).unwrap_or(usize::MAX).clamp(3, 100);
        let mut seconds: [Vec<f64>; 2] = Default::default();
        let mut cpu = [0.0; 2];
        for case in &mut cases {
            case.engine.post(size, 3.min(runs)).with_context(|| format!("{}, warming up", case.name))?;
        }
        for _ in 0..options.rounds {
            for (index, case) in cases.iter_mut().enumerate() {
                let before = case.engine.cpu_seconds();
                seconds[index].extend(case.engine.post(size, runs).context(case.name)?);
                cpu[index] += case.engine.cpu_seconds() - before;
            }
        }
        for (index, case) in cases.iter().enumerate() {
            let summary = summarise(&seconds[index]).context("no runs")?;
            let bytes = size as f64;
            progress(&format!("{} of {size} bytes: median {:.3} ms", case.name, summary.median * 1e3));
            report.rows.push(Row {
                case: case.name.to_owned(),
                system: "zipline",
                path: "same-host",
                pattern: "1-1",
                size_bytes: size,
                degree: 1,
                runs: summary.runs,
                median_seconds: summary.median,
                p99_seconds: summary.p99,
                min_seconds: summary.min,
                max_seconds: summary.max,
                bytes_per_second: bytes / summary.median,
                cpu_seconds_per_gib: cpu[index] / (bytes * summary.runs as f64 / GIB),
            });
        }
    }
    report.publish(options.json, options.output.as_deref(), Report::table)
}
