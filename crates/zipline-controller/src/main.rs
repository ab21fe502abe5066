//! The controller's process. It takes no arguments: a Deployment sets its environment.

use std::process::ExitCode;

use anyhow::Context as _;
use zipline_controller::config::Config;
use zipline_controller::server::Server;
use zipline_runtime::signal::Signals;
use zipline_runtime::{harden, limits, logs};

/// Exit code when the settings are wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let config = Config::from_env();
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
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot go on");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    harden::not_dumpable().context("this process cannot keep its memory to itself")?;
    if let Err(error) = limits::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    // One reactor thread is enough for thousands of long polls; verifications wait for the API server.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime can be built")?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("signals cannot be heard")?;
        let server = Server::bind(config).await?;
        let (api, admin) = server.addresses()?;
        tracing::info!(%api, %admin, "listening");
        let end = async {
            signals.next().await;
        };
        server.run(end).await;
        Ok(())
    })
}
