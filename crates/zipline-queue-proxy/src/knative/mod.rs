//! A queue-proxy in a Knative pod: everything Knative's own does, with Zipline on top.
//!
//! Knative starts it with its own environment and finds its own ports, probes, limits, numbers and shutdown
//! ([`zipline_knative`] has the words). Until keys come, nothing of Zipline can be noticed.
//!
//! # What differs from Knative's
//! - An informational response of the function (1xx) is passed on over HTTP/1.1 only, and the final status with it; Knative's
//!   answers 200 then. `100 Continue` works.
//! - A request that has to be drained (no full duplex) never reaches the function with a hole in it: its upload breaks
//!   off.
//! - An upgrade to h2c takes a body of 16 MiB at most; Knative's takes what fits into memory.
//! - Header blocks of the function's responses end at 1 MiB, not at 10.
//! - Key exchanges P-521 and X25519MLKEM768, and CBC cipher suites, are not offered; the rest of a list counts.
//! - Connections over h2c are told of the end (GOAWAY).
//! - Port 8008 refuses profiles; lines for standard output that nobody reads are dropped and counted, requests do not wait
//!   for them ([`crate::telemetry`]).

mod admin;
mod answer;
mod chain;
mod content_type;
mod drain;
mod h2c;
mod log_lines;
pub mod observe;
mod passage;
mod probing;
mod servers;
mod settings;
mod shutdown;
mod stats;
mod telemetry_doors;
#[cfg(test)]
mod tests;
mod timeouts;
mod tls;
mod tls_door;
mod upload;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use zipline_knative::Environment;
use zipline_knative::logging::Logging;
use zipline_runtime::signal::Signals;

use crate::config::{Budgets, Variables};
use crate::process;

pub use probing::TrustFiles;
pub use servers::{KnativeAddresses, KnativeBindError, KnativeServer};
pub use settings::{DATA_PORT, FixedPorts, KnativeConfig, LOCAL_API_PORT, LOCAL_SOCKET, STATUS_PORT};
pub use telemetry_doors::TelemetryBindError;
pub use timeouts::Timeouts;
pub use tls::{CertificateFiles, TlsError};

/// Whether it is Knative that started this process.
#[must_use]
pub fn is_called(variables: &Variables) -> bool {
    Environment::is_marked(&variables.text)
}

/// Runs the process: 0 after an orderly end, 1 for everything else.
#[must_use]
pub fn main(variables: Variables) -> ExitCode {
    let environment = match Environment::parse(variables.text.clone()) {
        Ok(environment) => environment,
        Err(error) => {
            for problem in &error.problems {
                // Nobody is left to tell if standard error is gone.
                let _ = writeln!(std::io::stderr(), "{problem}");
            }
            return ExitCode::FAILURE;
        }
    };
    let logging = Logging::parse(&environment.logging_config, &environment.logging_level);
    let revision = format!("{}/{}", environment.namespace, environment.revision);
    log_lines::init(logging, revision, environment.pod.clone());
    let config = KnativeConfig::read(environment, &variables, Budgets::of_process());
    match process::block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "failed to bring up queue-proxy, shutting down");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: KnativeConfig) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("signals cannot be heard")?;
    let server = KnativeServer::bind(config)?;
    let ending = CancellationToken::new();
    let end = ending.clone();
    let told_twice = async move {
        signals.next().await;
        end.cancel();
        signals.next().await
    };
    tokio::select! {
        () = server.run(ending) => Ok(()),
        signal = told_twice => Err(anyhow::anyhow!("a second signal ({}) came before the end", signal.number())),
    }
}
