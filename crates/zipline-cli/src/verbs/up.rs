//! `zipline up`: the guard. It starts the engine as a process of its own and ends everything when that is gone.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use zipline_engine::guard::{self, GuardedCommand};
use zipline_runtime::logs;

use crate::environment::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::say;
use crate::place::Place;
use crate::programs;
use crate::settings::{self, FileValues, Resolved, SettingFlags, Settings};

/// `up`
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Manifests: serving.knative.dev/v1 Services, one or more per file
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    flags: SettingFlags,
}

pub(crate) async fn run(args: UpArgs, place: Place, environment: Environment) -> Outcome {
    let file = FileValues::read(place.config(&environment).as_deref()).map_err(Failure::usage)?;
    let resolved = settings::resolve(&args.flags.given, &environment, &file).map_err(Failure::usage)?;
    let settings = Settings::parse(&resolved).map_err(Failure::usage)?;
    logs::init(&settings.log, settings.log_format).map_err(Failure::usage)?;
    let command = GuardedCommand {
        program: programs::own()?,
        args: engine_arguments(place.state_dir(&environment).path, &resolved, args.files),
    };
    let status = guard::run(command).await.map_err(Failure::failed)?;
    if let Some(signal) = status.checked_sub(128).filter(|signal| *signal > 0) {
        say(format!(
            "zipline: the engine was ended by signal {signal}; so was everything that it had started"
        ));
    }
    Ok(status)
}

/// The engine's command line says everything, so that it does not depend on files that may change meanwhile.
fn engine_arguments(state_dir: PathBuf, resolved: &[Resolved], files: Vec<PathBuf>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["__engine".into(), "--state-dir".into(), state_dir.into()];
    for setting in resolved {
        arguments.push(format!("--{}={}", setting.key, setting.value).into());
    }
    arguments.push("--".into());
    arguments.extend(files.into_iter().map(OsString::from));
    arguments
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    #[test]
    fn the_engine_is_told_every_setting_as_it_was_resolved() {
        let flags = [("budget", "1GiB".to_owned()), ("log", "-".to_owned())];
        let resolved = settings::resolve(&flags, &Environment::default(), &FileValues::default()).unwrap();
        let arguments =
            engine_arguments("/state".into(), &resolved, vec!["-odd.yaml".into(), "b.yaml".into()]);
        let program = OsString::from("zipline");
        let Verb::Engine(told) = Cli::try_parse_from([program].into_iter().chain(arguments)).unwrap().verb
        else {
            panic!("another verb")
        };
        assert_eq!(told.files, [PathBuf::from("-odd.yaml"), PathBuf::from("b.yaml")]);
        let expected: Vec<_> = resolved.into_iter().map(|setting| (setting.key, setting.value)).collect();
        assert_eq!(told.flags.given, expected);
    }
}
