//! Starts a process where and as whom it is to run: in a network namespace, as another user, and never longer than its parent.
//!
//! The launcher is this binary again (`zipline-bench launch … -- COMMAND`), which changes itself and then becomes the command, so
//! that a killed benchmark leaves nothing behind: the kernel ends its processes, and with the last of them their namespaces.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::time::{Duration, Instant};

/// How long a process that was asked to end may take.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Where, as whom, and what.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A network namespace's file.
    #[arg(long)]
    net: Option<PathBuf>,
    /// A user's and group's number.
    #[arg(long)]
    uid: Option<u32>,
    /// The command with its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the command.
///
/// # Errors
/// If the namespace, the user or the command cannot be had.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(path) = &options.net {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter the network namespace")?;
    }
    if let Some(uid) = options.uid {
        // Users that nothing else belongs to; no group of this process is kept.
        rustix::thread::set_thread_groups(&[]).context("cannot give up groups")?;
        rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(uid)).context("cannot change group")?;
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).context("cannot change user")?;
    }
    // After the change of user, which clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie this process to its parent")?;
    let (command, arguments) = options.command.split_first().context("no command")?;
    let error = Command::new(command).args(arguments).exec();
    bail!("cannot start {}: {error}", command.display())
}

/// The command that launches `program`.
///
/// # Errors
/// If this binary cannot be found.
pub(super) fn command(
    net: Option<&std::path::Path>,
    uid: Option<u32>,
    program: impl AsRef<OsStr>,
) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    command.arg("launch");
    if let Some(net) = net {
        command.arg("--net").arg(net);
    }
    if let Some(uid) = uid {
        command.arg("--uid").arg(uid.to_string());
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// A process that ends with its owner: first asked, then killed.
#[derive(Debug)]
pub(super) struct Owned(pub(super) Child);

impl Owned {
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // It can only be gone already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + END_WITHIN;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until {
            pause(Duration::from_millis(2));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets time pass; shorter if interrupted, which matters to nobody here.
pub(super) fn pause(time: Duration) {
    let time = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    let _ = poll(&mut [], Some(&time));
}
