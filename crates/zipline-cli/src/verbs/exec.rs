//! `zipline __exec`: becomes another program, tied to the life of its parent, as another user if one is named.
//!
//! The engine starts every process this way, because a process can only tie itself.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use clap::Args;
use rustix::process::{Gid, Pid, Signal, Uid, getppid, set_parent_process_death_signal};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::exit::Outcome;
use crate::output::say;

/// Status of a process that could not become the program, as shells have it.
pub(crate) const CANNOT_START: u8 = 127;

/// `__exec`
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The process that starts this one; if it is gone already, nothing is started.
    #[arg(long)]
    parent: Option<i32>,
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(args: ExecArgs) -> Outcome {
    match become_command(&args) {
        Ok(never) => match never {},
        Err(Stop::ParentGone) => Ok(crate::exit::FAILED),
        Err(Stop::Failed(error)) => {
            say(format!("zipline: {error:#}"));
            Ok(CANNOT_START)
        }
    }
}

enum Stop {
    ParentGone,
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

fn become_command(args: &ExecArgs) -> Result<std::convert::Infallible, Stop> {
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        // One thread runs here, so a thread's user is the process's. The user goes last: without it nothing else may change.
        set_thread_groups(&[]).context("cannot leave the groups of the engine's user")?;
        set_thread_gid(Gid::from_raw(gid)).with_context(|| format!("cannot become group {gid}"))?;
        set_thread_uid(Uid::from_raw(uid)).with_context(|| format!("cannot become user {uid}"))?;
    }
    // After the change of user, which would clear it. It survives the exec.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie this process to its parent")?;
    // A parent that died before the line above left no signal; the process has another parent now.
    if args.parent.is_some_and(|parent| getppid().map(Pid::as_raw_pid) != Some(parent)) {
        return Err(Stop::ParentGone);
    }
    let (program, rest) = args.command.split_first().context("no command was given")?;
    let error = Command::new(program).args(rest).exec();
    Err(Stop::Failed(anyhow::Error::new(error).context(format!("cannot start {program:?}"))))
}
