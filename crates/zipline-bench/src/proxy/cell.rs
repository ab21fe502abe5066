//! One system with its own upstream and generator, alone in a network namespace: does what it is told on standard input.
//!
//! Says one line of [`Started`] when the system answers, then answers each line of [`Order`] with one of [`Outcome`]. Ends with
//! its standard input, and the system and the upstream with it.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::event::{Timespec, poll};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Duration, Instant};

use super::load::{Load, Measured, ask};
use super::systems::{System, UPSTREAM_PORT};
use super::wire::Protocol;
use crate::processes::{Usage, usage};

const READY_WITHIN: Duration = Duration::from_secs(10);
/// Time between two questions whether a system is ready: what a start's length is known to.
const ASK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };
/// After so long without a request a system is at rest.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
/// What connections and pools need to be warm, as a part of the time measured.
const WARM_UP: f64 = 0.2;

/// Which cell.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, value_enum)]
    system: System,
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[arg(long)]
    knative: PathBuf,
}

/// A system answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    /// From its start to the first answer through it.
    pub(super) ready_seconds: f64,
    /// Resident memory before any load.
    pub(super) memory_bytes: u64,
}

/// What to measure.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) connections: usize,
    pub(super) body_bytes: u64,
    pub(super) seconds: f64,
}

/// What an order gave.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) measured: Measured,
    /// Processor time of the system alone.
    pub(super) cpu_seconds: f64,
    /// Its resident memory with all connections open, at the end of the load.
    pub(super) memory_bytes: u64,
}

/// Serves orders until standard input ends.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("zipline-bench").tempdir().context("temporary folder")?;
    let upstream = std::env::current_exe().context("cannot find this binary")?;
    let upstream = Command::new(upstream)
        .args(["upstream", "--port", &UPSTREAM_PORT.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start the upstream")?;
    let _upstream = Owned(upstream);
    wait_for(System::Direct, options.protocol)?;
    let command = options.system.command(options.protocol, &options.knative, folder.path())?;
    let started = Instant::now();
    let system = command.map(|mut command| command.spawn()).transpose().context("cannot start the system")?;
    let system = system.map(Owned);
    if let Err(error) = wait_for(options.system, options.protocol) {
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        bail!("{error:#}; it says:\n{log}");
    }
    let ready_seconds = started.elapsed().as_secs_f64();
    let used = || system.as_ref().map_or_else(Usage::default, |system| usage(&[system.0.id()]));
    pause(&REST);
    say(&Started { ready_seconds, memory_bytes: used().memory_bytes })?;
    for line in std::io::stdin().lock().lines() {
        let order: Order = hear(&line.context("standard input")?)?;
        let address = options.system.address(options.protocol);
        let mut load = Load::open(address, options.protocol, order.connections, order.body_bytes)?;
        load.measure(order.seconds * WARM_UP)?;
        let before = used();
        let measured = load.measure(order.seconds)?;
        let after = used();
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        say(&Outcome { measured, cpu_seconds, memory_bytes: after.memory_bytes })?;
    }
    Ok(())
}

/// Writes one line.
fn say(message: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(message)?)?;
    out.flush().context("standard output")
}

/// Reads one line.
pub(super) fn hear<T: DeserializeOwned>(line: &str) -> anyhow::Result<T> {
    serde_json::from_str(line).with_context(|| format!("not understood: {line:?}"))
}

fn wait_for(system: System, protocol: Protocol) -> anyhow::Result<()> {
    let until = Instant::now() + READY_WITHIN;
    while let Err(error) = ask(system.address(protocol), protocol) {
        if Instant::now() > until {
            return Err(error).context(format!("{} does not answer", system.as_str()));
        }
        pause(&ASK_EVERY);
    }
    Ok(())
}

fn pause(time: &Timespec) {
    // Interrupted, it is shorter, which matters to nobody here.
    let _ = poll(&mut [], Some(time));
}

/// A process that ends with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Asked to end, so that nginx takes its worker along; after that it can only be gone already.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(2);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until {
            pause(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 });
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
