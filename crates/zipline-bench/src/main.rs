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
mod transfer;

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
    /// Payloads from memory to memory: Zipline, Redis, S3 servers, nginx, and what the machine allows.
    Transfer(Box<transfer::Options>),
    /// Starts a command in a namespace, as a user, tied to its parent.
    #[command(hide = true)]
    Launch(transfer::LaunchOptions),
    /// The giving or taking end of transfers: does what it is told on standard input.
    #[command(hide = true)]
    Role,
    /// Asks a server once whether it answers.
    #[command(hide = true)]
    Reach(transfer::ReachOptions),
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
        Command::Transfer(options) => return end(transfer::run(*options)),
        Command::Launch(options) => transfer::run_launch(&options),
        Command::Role => transfer::run_role(),
        Command::Reach(options) => transfer::run_reach(&options),
        Command::Proxy(options) => proxy::run(&options),
        Command::Cell(options) => proxy::run_cell(&options),
        Command::Upstream { port } => proxy::run_upstream(port),
        Command::Sink => sink::run(),
        Command::Source => source::run(),
    };
    end(outcome.map(|()| ExitCode::SUCCESS))
}

fn end(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        report::progress(&format!("zipline bench: {error:#}"));
        ExitCode::FAILURE
    })
}
