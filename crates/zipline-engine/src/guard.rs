//! The guard: the outer process of `zipline up`, which outlives the engine by the time it takes to end what is left.
//!
//! It is the child subreaper of everything below it, so processes that leave their group or session still become its
//! children once their parents are gone; when the engine has ended, in whatever way, it kills until none is left.
//! The engine holds one end of a socket as its standard input; when that ends the guard is gone, and the engine shuts
//! down by itself.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::process;

/// The engine's command.
#[derive(Debug, Clone)]
pub struct GuardedCommand {
    /// The program, usually this one.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// The guard could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The engine could not be started.
    #[error("cannot start the engine process {}", program.display())]
    Start {
        /// Its program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused something that the guard needs.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Starts the engine, passes SIGINT and SIGTERM on to it, and once it has ended kills every process that is left below.
/// Returns the exit status to end with: the engine's, or 128 + the signal that ended it.
///
/// The process that calls this must have no other children: it waits for all of them. Runs in a tokio runtime.
///
/// # Errors
/// [`GuardError`]; nothing runs then.
///
/// # Cancel safety
/// Not cancel safe: dropped before its end it leaves processes behind.
pub async fn run(command: GuardedCommand) -> Result<u8, GuardError> {
    let system = |action| move |source| GuardError::System { action, source };
    set_child_subreaper(Some(getpid()))
        .map_err(|error| system("become the child subreaper")(error.into()))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for SIGTERM"))?;
    let mut children = signal(SignalKind::child()).map_err(system("listen for SIGCHLD"))?;
    let (_kept, given) = StdStream::pair().map_err(system("make a socket pair"))?;

    // A group of its own: a terminal's Ctrl-C then comes once, passed on from here, and not twice.
    let child = Command::new(&command.program)
        .args(&command.args)
        .stdin(Stdio::from(OwnedFd::from(given)))
        .process_group(0)
        .spawn()
        .map_err(|source| GuardError::Start { program: command.program.clone(), source })?;
    let engine = i32::try_from(child.id()).expect("process ids fit 31 bits on Linux");

    let status = loop {
        if let Some(status) = reap(engine) {
            break status;
        }
        tokio::select! {
            _ = interrupt.recv() => process::signal(engine, Signal::INT),
            _ = terminate.recv() => process::signal(engine, Signal::TERM),
            _ = children.recv() => {}
        }
    };
    end_descendants();
    Ok(exit_status(status))
}

/// Waits for every child that has ended; the engine's status if it is among them.
fn reap(engine: i32) -> Option<WaitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get() == engine && !status.stopped() {
            found = Some(status);
        }
    }
    found
}

/// Kills until there is no child left. Each round's dead hand their children to this process, so the rounds end.
fn end_descendants() {
    let own = getpid().as_raw_nonzero().get();
    loop {
        for pid in process::descendants(own) {
            process::signal(pid, Signal::KILL);
        }
        // Blocks until one child ends; they were all killed. No child: done.
        match wait(WaitOptions::empty()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn exit_status(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}

/// For the engine: a future that resolves once the guard is gone. Takes standard input, which the guard gave it.
///
/// # Errors
/// Standard input is not the guard's socket.
pub fn gone() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let stream = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails for anything but a socket.
    stream.local_addr()?;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    Ok(async move {
        let mut buffer = [0; 16];
        while let Ok(read) = stream.read(&mut buffer).await {
            if read == 0 {
                break;
            }
        }
    })
}
