//! The queue-proxy's process. It takes no arguments: whoever starts it, an engine or Knative, sets its environment.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zipline_queue_proxy::config::{Budgets, Config, KeySource, Variables};
use zipline_queue_proxy::control::{self, DrainOrder, ENGINE_GONE_GRACE, Reports};
use zipline_queue_proxy::server::Server;
use zipline_queue_proxy::{knative, process};
use zipline_runtime::signal::Signals;
use zipline_runtime::{Tasks, logs};

/// Small allocations of every request are most of what the allocator does here; glibc's costs twice as much for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code when the settings are wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let variables = Variables::of_process();
    if knative::is_called(&variables) {
        return knative::main(variables);
    }
    let config = Config::from_variables(variables, Budgets::of_process());
    let filter = config.as_ref().map_or("info", |config| config.log.as_str());
    if let Err(error) = logs::init(filter, logs::Format::Json) {
        // Without the filter that was asked for, at least this is told.
        let _ = logs::init("info", logs::Format::Json);
        tracing::error!(%error, "ZIPLINE_LOG is not valid");
        return ExitCode::from(USAGE);
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            for problem in error.problems {
                tracing::error!(problem, "the environment is not valid");
            }
            return ExitCode::from(USAGE);
        }
    };
    match process::block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot go on");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let signals = Signals::listen().context("signals cannot be heard")?;
    let grace = config.request_timeout;
    let keys = config.keys.clone();
    let server = Server::bind(config).await?;
    let shared = server.shared().clone();
    // What belongs to the process and not to the server; it ends with this function.
    let tasks = Tasks::new();
    let (order, orders) = mpsc::channel(2);
    drop(tasks.spawn("signals", obey(signals, grace, order.clone())));
    let (reports, speaking) = match keys {
        KeySource::Control => {
            let stream = control::stdin().context("standard input is no control channel")?;
            let (reports, speaker, mut listener) = control::open(stream);
            drop(tasks.spawn("control", async move {
                // The engine may order a drain and then be gone, which is a second order.
                while order.send(listener.order(&shared).await).await.is_ok() && !listener.has_ended() {}
            }));
            (reports, Some(tasks.spawn("reports", speaker.run())))
        }
        KeySource::File(_) | KeySource::None => (Reports::to_nobody(), None),
    };
    server.run(reports, orders).await;
    if let Some(speaking) = speaking {
        // The last word still has to be written.
        let _ = timeout(ENGINE_GONE_GRACE, speaking).await;
    }
    Ok(())
}

/// The first signal orders a drain, the second one ends it.
async fn obey(mut signals: Signals, grace: Duration, order: mpsc::Sender<DrainOrder>) {
    for grace in [grace, Duration::ZERO] {
        signals.next().await;
        if order.send(DrainOrder { grace }).await.is_err() {
            return;
        }
    }
}
