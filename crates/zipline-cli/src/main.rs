//! The command `zipline`: parse, do, map to an exit status.
#![forbid(unsafe_code)]

mod cli;
mod control;
mod environment;
mod exit;
mod findings;
mod guest;
mod output;
mod place;
mod programs;
mod quantity;
mod settings;
mod unix_http;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Verb};
use crate::environment::Environment;
use crate::exit::{Failure, Outcome, message};
use crate::verbs::{
    bench, completions, config, doctor, down, engine, exec, init, invoke, keys, knative, logs, payloads, run,
    status, up,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let status = dispatch(cli).unwrap_or_else(|failure| {
        for line in failure.to_string().lines() {
            output::say(format!("zipline: {line}"));
        }
        failure.status()
    });
    ExitCode::from(status)
}

fn dispatch(cli: Cli) -> Outcome {
    let (place, environment) = (cli.place, Environment::read());
    match cli.verb {
        // These never start a runtime: the first must stay one thread, the others have no use for it.
        Verb::Exec(args) => exec::run(args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Init(args) => init::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Config(args) => config::run(&args, &place, &environment),
        Verb::Up(args) => reactor(up::run(args, place, environment)),
        Verb::Engine(args) => reactor(engine::run(args, place, environment)),
        Verb::Down(args) => reactor(down::run(args, place, environment)),
        Verb::Status(args) => reactor(status::run(args, place, environment)),
        Verb::Invoke(args) => reactor(invoke::run(args, place, environment)),
        Verb::Logs(args) => reactor(logs::run(args, place, environment)),
        Verb::Payloads(args) => reactor(payloads::run(args, place, environment)),
        Verb::Doctor(args) => reactor(doctor::run(args, place, environment)),
        Verb::Run(args) => reactor(run::run(args, place, environment)),
        Verb::Knative(args) => reactor(knative::run(args)),
        Verb::Keys(args) => reactor(keys::run(args, place, environment)),
    }
}

/// Runs a verb on a reactor of this thread.
fn reactor(verb: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::failed(anyhow::Error::new(error).context(message("cannot start a reactor")))
    })?;
    let outcome = runtime.block_on(verb);
    // A blocked read of a terminal must not hold up the end.
    runtime.shutdown_background();
    outcome
}
