//! `zipline __engine`: the engine, below the guard that `up` is.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zipline_engine::control::{FunctionStatus, Status};
use zipline_engine::{Engine, EngineError, InstanceState, Programs, guard, manifest};
use zipline_runtime::signal::Signals;
use zipline_runtime::{Tasks, harden, limits, logs};

use crate::control::{Control, state_failure};
use crate::environment::Environment;
use crate::exit::{Failure, Outcome, message};
use crate::output::{self, say};
use crate::place::Place;
use crate::programs;
use crate::settings::{self, FileValues, SettingFlags, Settings};
use crate::verbs::status;

/// Pause between two looks at whether functions are ready.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// `__engine`
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: SettingFlags,
}

pub(crate) async fn run(args: EngineArgs, place: Place, environment: Environment) -> Outcome {
    // `up` has put the layers together already.
    let resolved = settings::resolve(&args.flags.given, &Environment::default(), &FileValues::default());
    let settings = Settings::parse(&resolved.map_err(Failure::usage)?).map_err(Failure::usage)?;
    logs::init(&settings.log, settings.log_format).map_err(Failure::usage)?;
    let guard = guard::gone().map_err(|error| {
        Failure::usage(anyhow::Error::new(error).context("the engine is started by `zipline up` only"))
    })?;
    // It has every tenant's keys.
    harden::not_dumpable().map_err(|error| {
        Failure::failed(
            anyhow::Error::new(error).context("cannot keep other processes out of this one's memory"),
        )
    })?;
    if let Err(error) = limits::raise_open_files() {
        say(format!("zipline: the limit of open files stays at {}: {error}", limits::open_files().current));
    }
    let mut signals = Signals::listen().map_err(Failure::failed)?;

    let services = manifest::read_files(&args.files).map_err(Failure::usage)?;
    let programs =
        Programs { zipline: programs::own()?, queue_proxy: programs::sibling("zipline-queue-proxy")? };
    let state_dir = place.state_dir(&environment).path;
    let ready_timeout = settings.ready_timeout;
    let inherited = environment.all.clone();
    let engine = Engine::bind(settings.engine(state_dir, programs, inherited), services)
        .await
        .map_err(engine_failure)?;
    for (service, note) in engine.notes() {
        say(format!("zipline: {service}: {note}"));
    }

    let (tasks, shutdown) = (Tasks::new(), CancellationToken::new());
    let _greeting = tasks.spawn_owned("greeting", greet(place, environment, ready_timeout));
    let ask = shutdown.clone();
    let ended = async move {
        tokio::pin!(guard);
        tokio::select! {
            _ = signals.next() => ask.cancel(),
            () = &mut guard => ask.cancel(),
            () = ask.cancelled() => {}
        }
        say("zipline: ending; once more Ctrl-C ends everything at once");
        signals.next().await
    };
    tokio::select! {
        summary = engine.run(shutdown) => {
            let summary = summary.map_err(engine_failure)?;
            say(format!(
                "zipline: ended after {} requests; {} instances started, {} failed, {} had to be killed",
                summary.requests, summary.started, summary.failed, summary.killed
            ));
            Ok(0)
        }
        // Dropping the engine kills what it started.
        second = ended => Ok(second.exit_code()),
    }
}

/// Once the functions that have instances from the start are ready, or have failed, prints where all are reached.
async fn greet(place: Place, environment: Environment, ready_timeout: Duration) {
    let deadline = Instant::now() + ready_timeout;
    let mut control = None;
    loop {
        let late = Instant::now() >= deadline;
        let current = match &mut control {
            Some(connected) => Some(connected),
            None => {
                control = Control::find(&place, &environment).await.ok().flatten();
                control.as_mut()
            }
        };
        if let Some(current) = current
            && let Ok(found) = current.get::<Status>("/v1/status").await
            && (late || found.functions.iter().all(settled))
        {
            announce(&found);
            return;
        }
        if late {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn settled(function: &FunctionStatus) -> bool {
    let ready = function.instances.iter().filter(|instance| instance.state == InstanceState::Ready).count();
    function.failures > 0 || u32::try_from(ready).is_ok_and(|ready| ready >= function.scale.target)
}

fn announce(found: &Status) {
    say(format!("zipline: {}", found.engine.trust));
    for function in &found.functions {
        if let Some(failure) = &function.last_failure {
            say(format!("zipline: {}.{}: {failure}", function.service, function.namespace));
        }
    }
    // Nobody reading it is no reason to end the engine.
    let _ = output::data(status::functions(&found.functions, &found.engine.gateway).render());
    say("zipline: up; Ctrl-C or `zipline down` ends it");
}

fn engine_failure(error: EngineError) -> Failure {
    match error {
        EngineError::State(error) => state_failure(error),
        EngineError::Listen { address, source } if source.kind() == std::io::ErrorKind::AddrInUse => {
            Failure::unavailable(message(format!(
                "the gateway cannot listen on {address}: port {} is in use; choose another with --gateway {}:PORT",
                address.port(),
                address.ip()
            )))
        }
        EngineError::Listen { .. } | EngineError::Control { .. } => Failure::unavailable(error),
        EngineError::NoServices | EngineError::Commands { .. } | EngineError::InstanceUids { .. } => {
            Failure::usage(error)
        }
        _ => Failure::failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_the_port_and_the_flag() {
        let source = std::io::ErrorKind::AddrInUse.into();
        let failure = engine_failure(EngineError::Listen { address: ([127, 0, 0, 1], 8080).into(), source });
        assert_eq!(failure.status(), crate::exit::UNAVAILABLE);
        assert_eq!(
            failure.to_string(),
            "the gateway cannot listen on 127.0.0.1:8080: port 8080 is in use; choose another with --gateway 127.0.0.1:PORT"
        );
    }
}
