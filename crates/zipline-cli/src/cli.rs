//! The command line.

use clap::{Parser, Subcommand};

use crate::place::Place;
use crate::verbs::{
    bench, completions, config, doctor, down, engine, exec, init, invoke, keys, knative, logs, payloads, run,
    status, up,
};

const EXIT_STATUSES: &str = "Exit status: 0 done, 1 the operation failed, 2 usage or configuration, 3 unavailable or timed \
out, 128+n ended by signal n. `run` gives its command's. Data goes to standard output, everything else to standard error.";

/// Payloads between serverless functions, from memory to memory.
#[derive(Debug, Parser)]
#[command(name = "zipline", version, after_help = EXIT_STATUSES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run functions from manifests until Ctrl-C or `down`
    Up(up::UpArgs),
    /// End the engine and everything it started
    Down(down::DownArgs),
    /// Show functions, instances and what they hold
    Status(status::StatusArgs),
    /// Send one request to a function
    Invoke(invoke::InvokeArgs),
    /// Show what functions and their queue-proxies wrote
    Logs(logs::LogsArgs),
    /// List the payloads that are held, how old they are, and by whom
    Payloads(payloads::PayloadsArgs),
    /// Look for what could be wrong, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Run a command that reaches functions as a function does
    Run(run::RunArgs),
    /// Write a small working application
    Init(init::InitArgs),
    /// Manage the keys that seal references
    Keys(keys::KeysArgs),
    /// Bring Zipline to a Knative cluster, look after it there, take it away
    Knative(knative::KnativeArgs),
    /// Show settings and where they come from
    Config(config::ConfigArgs),
    /// Measure (runs zipline-bench)
    Bench(bench::BenchArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    #[command(name = "__engine", hide = true)]
    Engine(engine::EngineArgs),
    #[command(name = "__exec", hide = true)]
    Exec(exec::ExecArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
