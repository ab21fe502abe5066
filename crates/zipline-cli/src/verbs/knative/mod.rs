//! `zipline knative`: brings Zipline to a Knative cluster, looks after it there, takes it away.

mod check;
mod cluster;
mod inject;
mod install;
mod kubectl;
mod manifests;
mod probe;
mod secrets;
mod settings;
mod uninstall;
mod versions;

use clap::{Args, Subcommand};

use crate::exit::Outcome;

/// `knative`
#[derive(Debug, Args)]
pub(crate) struct KnativeArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install the controller, then the queue-proxy in chosen namespaces or everywhere
    Install(install::InstallArgs),
    /// Look for what could be wrong in the cluster, and say what to do
    Check(check::CheckArgs),
    /// Put everything back as it was before `install`
    Uninstall(uninstall::UninstallArgs),
    /// Add the proxy's variables to the Services of a manifest
    Inject(inject::InjectArgs),
    /// Ask data ports for a sign of life; `check` runs it in a pod
    #[command(hide = true)]
    Probe(probe::ProbeArgs),
}

pub(crate) async fn run(args: KnativeArgs) -> Outcome {
    match args.verb {
        Verb::Install(args) => install::run(args).await,
        Verb::Check(args) => check::run(args).await,
        Verb::Uninstall(args) => uninstall::run(args).await,
        Verb::Inject(args) => inject::run(&args),
        Verb::Probe(args) => probe::run(args).await,
    }
}
