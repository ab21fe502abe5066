//! `zipline bench proxy`: what does a queue-proxy cost on the way of every request?
//!
//! Each system lives in a *cell*, a network namespace with an upstream and a generator of its own; cells take turns, so that
//! what else the machine does falls on all alike. Cells are started anew for each protocol and body, which also gives the
//! starts and the memory at rest.

mod cell;
mod frames;
mod load;
mod rows;
mod systems;
mod upstream;
mod verdict;
mod wire;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::report::{Report, progress};
use cell::{Order, Outcome, Started};
use rows::{Row, Sample, Start};
use systems::System;
use wire::Protocol;

pub(crate) use cell::{Options as CellOptions, run as run_cell};
pub(crate) use upstream::{field, head_end, run as run_upstream};

/// Bodies larger than this are measured with few connections only: more of them move the same bytes in the same way, for
/// minutes.
const LARGE_BYTES: u64 = 10_000_000;
const LARGE_CONNECTIONS: usize = 16;
/// A case of large bodies is given this much more time.
const LARGE_FACTOR: f64 = 3.0;

/// Zipline's queue-proxy, Knative's and nginx before the same upstream, taking turns: requests, latency, processor, memory.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Systems to measure; the verdict needs all four.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = System::ALL)]
    systems: Vec<System>,
    /// Protocols between generator and proxy.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Protocol::Http1, Protocol::H2c])]
    protocols: Vec<Protocol>,
    /// Connections, each with one request under way.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    connections: Vec<usize>,
    /// Bytes of each request's body; 0 is a GET without one.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10_000, 1_000_000, 100_000_000])]
    bodies: Vec<u64>,
    /// Rounds; in each, every system is measured once per case.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of one measurement; bodies above 10 MB get three times as many.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Knative's queue-proxy.
    #[arg(long, default_value = "build/knative/queue", value_name = "FILE")]
    knative: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Also write the JSON to this file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the benchmark.
///
/// # Errors
/// If a system is missing, does not start, or answers any request but with 200.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new();
    let mut starts: BTreeMap<&'static str, Vec<Start>> = BTreeMap::new();
    for &protocol in &options.protocols {
        for &body_bytes in &options.bodies {
            measure_group(options, protocol, body_bytes, &mut report.rows, &mut starts)?;
        }
    }
    report.rows.extend(starts.iter().map(|(system, starts)| Row::of_starts(system, starts)));
    report.publish(options.json, options.output.as_deref(), |report| {
        rows::table(&report.rows) + &verdict::text(&report.rows)
    })
}

/// All connections of one protocol and body.
fn measure_group(
    options: &Options,
    protocol: Protocol,
    body_bytes: u64,
    rows: &mut Vec<Row>,
    starts: &mut BTreeMap<&'static str, Vec<Start>>,
) -> anyhow::Result<()> {
    let mut cells = Vec::new();
    for &system in &options.systems {
        let (cell, started) = Cell::start(system, protocol, &options.knative).context(system.as_str())?;
        if system != System::Direct {
            let Started { ready_seconds, memory_bytes } = started;
            starts.entry(system.as_str()).or_default().push(Start { ready_seconds, memory_bytes });
        }
        cells.push(cell);
    }
    let large = body_bytes > LARGE_BYTES;
    let seconds = if large { options.seconds * LARGE_FACTOR } else { options.seconds };
    for &connections in options.connections.iter().filter(|count| !large || **count <= LARGE_CONNECTIONS) {
        let mut samples: Vec<Vec<Sample>> = cells.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for (cell, samples) in cells.iter_mut().zip(&mut samples) {
                let order = Order { connections, body_bytes, seconds };
                let outcome = cell.measure(&order).with_context(|| {
                    let system = cell.system.as_str();
                    format!("{system}, {}, {connections} connections, {body_bytes} bytes", protocol.as_str())
                })?;
                samples.push(Sample::from(outcome));
            }
        }
        for (cell, samples) in cells.iter().zip(&samples) {
            let row = Row::of_samples(cell.system, protocol, connections, body_bytes, samples);
            progress(&row.line());
            rows.push(row);
        }
    }
    Ok(())
}

/// A running cell. It ends when this is dropped.
struct Cell {
    system: System,
    child: Child,
    orders: Option<ChildStdin>,
    outcomes: BufReader<ChildStdout>,
}

impl Cell {
    fn start(
        system: System,
        protocol: Protocol,
        knative: &std::path::Path,
    ) -> anyhow::Result<(Self, Started)> {
        let bench = std::env::current_exe().context("cannot find this binary")?;
        // Without privilege, a namespace of users first gives the right to make one of networks.
        let users: &[&str] =
            if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let mut child = Command::new("unshare")
            .args(users)
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
            .arg(&bench)
            .args(["cell", "--system", system.as_str(), "--protocol", protocol.as_str(), "--knative"])
            .arg(std::path::absolute(knative).context("path of Knative's queue-proxy")?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare (util-linux)")?;
        let orders = child.stdin.take();
        let outcomes = BufReader::new(child.stdout.take().context("standard output of the cell")?);
        let mut cell = Self { system, child, orders, outcomes };
        let started = cell.hear().context("it did not start")?;
        Ok((cell, started))
    }

    fn measure(&mut self, order: &Order) -> anyhow::Result<Outcome> {
        let orders = self.orders.as_mut().context("the cell has ended")?;
        writeln!(orders, "{}", serde_json::to_string(order)?).context("the cell has ended")?;
        self.hear()
    }

    fn hear<T: serde::de::DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.outcomes.read_line(&mut line).context("the cell has ended")?;
        ensure!(!line.is_empty(), "the cell has ended; what it said stands above");
        cell::hear(&line)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // The end of its orders ends it; it then ends its own processes.
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}
