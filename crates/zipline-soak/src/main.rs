//! `zipline-soak`: see the library.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use zipline_soak::options::Options;
use zipline_soak::report::Tally;
use zipline_soak::{function, progress, soak};
use zipline_testkit::binaries;

/// Exit code when a promise was broken.
const BROKEN: u8 = 1;
/// Exit code when the run itself did not work.
const UNABLE: u8 = 3;
/// Exit code when somebody ended the run.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Parser)]
#[command(
    about = "Mixed payloads while functions, queue-proxies and links are killed, stopped and cut at random"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is invoked; started by the run itself
    #[command(hide = true)]
    Function {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        journal: PathBuf,
    },
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            say(&format!("soak: {error:#}"));
            ExitCode::from(UNABLE)
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Some(Command::Function { listen, journal }) = arguments.command {
        function::serve(listen, &journal).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = arguments.options;
    let seed = options.seed.unwrap_or_else(fresh_seed);
    say(&format!("soak: {} s, seed {seed} (--seed {seed} tries the same again)", options.seconds));
    // It may have to be built, which can take minutes: before the clock runs, and where a signal ends it all.
    say("soak: zipline-queue-proxy is built first if it is missing or older than its sources");
    binaries::queue_proxy().context("the queue-proxy under test")?;
    let json = options.json.clone();
    let (tally, begun) = (Arc::new(Tally::default()), Instant::now());
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let report = tokio::select! {
        report = soak::run(options, seed, std::env::current_exe()?, Arc::clone(&tally)) => report?,
        never = progress::tell(Arc::clone(&tally), begun, say) => match never {},
        _ = interrupt.recv() => return Ok(interrupted(&tally)),
        _ = terminate.recv() => return Ok(interrupted(&tally)),
    };
    say(&report.to_string());
    if let Some(path) = json {
        std::fs::write(&path, serde_json::to_string_pretty(&report)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
}

/// What is known by now; nothing was held to account at rest.
fn interrupted(tally: &Tally) -> ExitCode {
    let so_far = tally.so_far();
    say(&format!("soak: interrupted: {so_far}"));
    for violation in &so_far.violations {
        say(&format!("soak: broken: {violation}"));
    }
    ExitCode::from(INTERRUPTED)
}

/// From the clock and the process: nobody needs it to be hard to guess.
fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (now.as_secs() << 20) ^ u64::from(now.subsec_micros()) ^ u64::from(std::process::id())
}

#[expect(clippy::print_stdout, reason = "the report is what this program is for")]
fn say(text: &str) {
    println!("{text}");
}
