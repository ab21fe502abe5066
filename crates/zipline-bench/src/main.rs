//! `zipline-bench`: measures Zipline with its processes as users run them. `zipline bench …` runs this binary.

#![forbid(unsafe_code)]

mod engine;
mod invoke;
mod processes;
mod proxy;
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
    /// Our queue-proxy, Knative's and nginx before the same upstream.
    Proxy(proxy::Options),
    /// One proxy with its upstream and generator: does what it is told on standard input.
    #[command(hide = true)]
    Cell(proxy::CellOptions),
    /// The upstream behind every proxy.
    #[command(hide = true)]
    Upstream {
        /// Where on loopback to listen.
        #[arg(long)]
        port: u16,
    },
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
        Command::Proxy(options) => proxy::run(&options),
        Command::Cell(options) => proxy::run_cell(&options),
        Command::Upstream { port } => proxy::run_upstream(port),
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
