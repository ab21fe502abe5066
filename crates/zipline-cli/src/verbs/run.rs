//! `zipline run`: a command that reaches functions as a function does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use clap::Args;
use futures_util::stream::{SelectAll, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use zipline_protocol::FunctionName;

use crate::control::Control;
use crate::environment::Environment;
use crate::exit::{FAILED, Failure, Outcome};
use crate::guest::Guest;
use crate::output::say;
use crate::place::Place;
use crate::verbs::exec::CANNOT_START;

/// `run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Namespace it acts in: put references work within it only
    #[arg(long, default_value = "default", value_parser = namespace)]
    namespace: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Checks a namespace.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    FunctionName::new("guest", text)
        .map(|name| name.namespace().to_owned())
        .map_err(|error| error.to_string())
}

pub(crate) async fn run(args: RunArgs, place: Place, environment: Environment) -> Outcome {
    let control = Control::connect(&place, &environment).await?;
    let mut passed_on = passed_on().map_err(Failure::failed)?;
    let guest = Guest::open(control, &args.namespace).await?;
    let (program, rest) = args.command.split_first().expect("the parser demands a command");
    let mut command = Command::new(program);
    command.args(rest).envs(variables(&guest.access.env, &environment));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            say(format!("zipline: cannot start {program:?}: {}", reason(&error)));
            return Ok(CANNOT_START);
        }
    };
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(Failure::failed)?,
            Some(signal) = passed_on.next() => {
                if let Some(pid) = pid.filter(|_| !from_terminal(signal)) {
                    // It may have ended just now, which the next turn sees.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    };
    if guest.is_over() {
        say("zipline: the engine ended before the command did");
    }
    Ok(exit_code(status))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory".into(),
        _ => error.to_string(),
    }
}

/// The guest's variables; what the caller keeps from proxies stays kept from them.
fn variables(guest: &BTreeMap<String, String>, environment: &Environment) -> BTreeMap<String, OsString> {
    let own =
        ["no_proxy", "NO_PROXY"].iter().find_map(|name| environment.get(name)).filter(|own| !own.is_empty());
    let set = |(name, value): (&String, &String)| {
        let mut value = OsString::from(value);
        if let Some(own) = own.filter(|_| name.eq_ignore_ascii_case("no_proxy")) {
            value.push(",");
            value.push(own);
        }
        (name.clone(), value)
    };
    guest.iter().map(set).collect()
}

/// Signals that ask for something, as they come.
fn passed_on() -> io::Result<SelectAll<futures_util::stream::BoxStream<'static, Signal>>> {
    let kinds = [
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::quit(), Signal::QUIT),
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::user_defined1(), Signal::USR1),
        (SignalKind::user_defined2(), Signal::USR2),
    ];
    let mut all = SelectAll::new();
    for (kind, number) in kinds {
        let stream = signal(kind)?;
        let each = futures_util::stream::unfold(stream, move |mut stream| async move {
            stream.recv().await.map(|()| (number, stream))
        });
        all.push(each.boxed());
    }
    Ok(all)
}

/// Whether a terminal sent the signal: then it sent it to the command as well, being in the same group.
fn from_terminal(signal: Signal) -> bool {
    matches!(signal, Signal::INT | Signal::QUIT)
        && std::fs::read_to_string("/proc/self/stat").is_ok_and(|line| is_foreground(&line) == Some(true))
}

/// From a line of `/proc/self/stat`: whether the process's group is the one its terminal speaks to.
fn is_foreground(line: &str) -> Option<bool> {
    let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace().skip(2);
    let group: i32 = fields.next()?.parse().ok()?;
    let foreground: i32 = fields.nth(2)?.parse().ok()?;
    Some(group == foreground)
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_commands() {
        assert_eq!([0, 7 << 8, 9, 15].map(|raw| exit_code(ExitStatus::from_raw(raw))), [0, 7, 137, 143]);
    }

    #[test]
    fn the_callers_exceptions_are_kept() {
        let guest = BTreeMap::from([
            ("ZIPLINE_API".to_owned(), "http://127.0.0.1:1".to_owned()),
            ("NO_PROXY".to_owned(), "localhost".to_owned()),
        ]);
        let environment = Environment::from_variables([("no_proxy".into(), "internal.example".into())]);
        let variables = variables(&guest, &environment);
        assert_eq!(variables["NO_PROXY"], "localhost,internal.example");
        assert_eq!(variables["ZIPLINE_API"], "http://127.0.0.1:1");
    }

    #[test]
    fn a_terminals_foreground_is_recognised() {
        assert_eq!(is_foreground("7 (zip line) S 5 70 70 34816 70 4194304"), Some(true));
        assert_eq!(is_foreground("7 (zip) line) S 5 70 70 34816 99 4194304"), Some(false));
        assert_eq!(is_foreground("7 (zipline) S 5 70 70 0 -1 4194304"), Some(false));
        assert_eq!(is_foreground("nothing"), None);
    }

    #[test]
    fn namespaces_are_checked() {
        assert_eq!(namespace("vision").unwrap(), "vision");
        assert!(namespace("Vision&x").is_err());
    }
}
