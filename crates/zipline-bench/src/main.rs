//! `zipline-bench`: measures Zipline with its processes as users run them. `zipline bench …` runs this binary.

#![forbid(unsafe_code)]

mod engine;
mod invoke;
mod processes;
mod report;
mod sink;
mod source;
mod statistics;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure Zipline. Progress goes to standard error, results to standard output.
#[derive(Debug, Parser)]
#[command(name = "zipline bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Inline and deferred invokes through the standalone engine, size by size.
    Invoke(invoke::Options),
    /// The receiving function: counts a request's bytes.
    #[command(hide = true)]
    Sink,
    /// The sending process: posts what it is told to on standard input.
    #[command(hide = true)]
    Source,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Invoke(options) => invoke::run(&options),
        Command::Sink => sink::run(),
        Command::Source => source::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::progress(&format!("zipline bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
