//! `zipline down`

use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use zipline_engine::{StateDir, StateError};

use crate::control::{Control, state_failure};
use crate::environment::Environment;
use crate::exit::{Failure, Outcome, message};
use crate::output::say;
use crate::place::Place;
use crate::quantity::{parse_duration, show_duration};
use crate::unix_http::empty;

/// `down`
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Longest wait for the end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: DownArgs, place: Place, environment: Environment) -> Outcome {
    let Some(mut control) = Control::find(&place, &environment).await? else {
        return leftovers(&place, &environment);
    };
    // Watched from before it is asked, so that its end cannot be missed and no other process is taken for it.
    let watched: Vec<Watched> = control.engine_pid().map(engine_and_guard).unwrap_or_default();
    control.post::<serde_json::Value>("/v1/down", empty()).await?;
    let ended = async {
        for process in watched {
            process.ended().await;
        }
    };
    if tokio::time::timeout(args.timeout, ended).await.is_err() {
        let waited = show_duration(args.timeout);
        return Err(Failure::unavailable(message(format!(
            "the engine has not ended within {waited}: it was asked to, see `zipline status`, or wait longer with --timeout"
        ))));
    }
    say("zipline: the engine and everything it started have ended");
    Ok(0)
}

/// No engine runs; one that was killed together with its guard may have left processes.
fn leftovers(place: &Place, environment: &Environment) -> Outcome {
    let path = place.state_dir(environment).path;
    let ended = match StateDir::existing(&path) {
        Ok(dir) => dir.end_leftovers().map_err(state_failure)?,
        Err(StateError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(state_failure(error)),
    };
    for process in &ended {
        say(format!(
            "zipline: ended {} (process {}), left by an engine that crashed",
            process.what, process.pid
        ));
    }
    if ended.is_empty() {
        say(format!("zipline: no engine runs with state directory {}", path.display()));
    }
    Ok(0)
}

/// A process whose end is waited for.
#[derive(Debug)]
struct Watched(OwnedFd);

impl Watched {
    fn open(pid: i32) -> Option<Self> {
        pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok().map(Self)
    }

    /// Waits on a thread of its own, which the end of this command does not wait for.
    async fn ended(self) {
        let wait = move || {
            // Readable means ended. Other errors mean that it cannot be watched; trying again gains nothing.
            while poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) == Err(Errno::INTR) {}
        };
        let _ = tokio::task::spawn_blocking(wait).await;
    }
}

/// The engine, and its parent if that is its guard.
fn engine_and_guard(engine: i32) -> Vec<Watched> {
    let guard = parent(engine).filter(|parent| name(*parent).is_some() && name(*parent) == name(engine));
    [Some(engine), guard].into_iter().flatten().filter_map(Watched::open).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may itself hold parentheses: state, parent.
    line.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn name(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(parent(pid), i32::try_from(std::process::id()).ok());
        let watched = Watched::open(pid).unwrap();
        drop(child.stdin.take());
        watched.ended().await;
        assert!(child.try_wait().unwrap().is_some());
    }
}
