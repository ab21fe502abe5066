//! A child process that is ended by its id when dropped, and what the kernel says about it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::wait;

/// A running process. Its standard error goes to a file that [`Process::log`] reads.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: NamedTempFile,
}

impl Process {
    /// Starts `command` with standard output and error written to the log.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let log = NamedTempFile::new()?;
        let append = || fs::OpenOptions::new().append(true).open(log.path());
        command.stdout(Stdio::from(append()?)).stderr(Stdio::from(append()?));
        let child = command.spawn().with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(Self { child, log })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(id, signal).context("signal")
    }

    /// Ends it at once and waits until it is gone.
    ///
    /// # Errors
    /// The process is not ours any more.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The process is not ours any more.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It did not, within the patience of tests.
    pub async fn end(&mut self) -> Result<ExitStatus> {
        wait::until("the process to end", || {
            let ended = self.ended();
            async { ended }
        })
        .await
        .with_context(|| self.log())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that was ever resident, in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Open file descriptors.
    ///
    /// # Errors
    /// The process is gone.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(self.proc("fd")).context("read descriptors")?.count())
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find(|line| line.starts_with(field)).context("no such field")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no value")?.parse()?;
        Ok(kib * 1024)
    }

    fn proc(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.child.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process is ended by SIGKILL as well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether a process with this id runs (a zombie does not).
#[must_use]
pub fn is_running(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('Z')))
        .is_some_and(|zombie| !zombie)
}

/// The ids of all running processes whose parent chain leads to `id`, without `id` itself.
///
/// # Errors
/// `/proc` cannot be read.
pub fn descendants(id: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![id];
    loop {
        let before = found.len();
        for (pid, parent) in &parents {
            if found.contains(parent) && !found.contains(pid) {
                found.push(*pid);
            }
        }
        if found.len() == before {
            found.retain(|pid| *pid != id && is_running(*pid));
            return Ok(found);
        }
    }
}

/// How long a process may take to notice something; only ever used as an upper bound.
pub const NOTICE: Duration = Duration::from_secs(15);

/// Lets this process open as many files as the system allows: a test with thousands of connections holds both ends.
///
/// # Errors
/// The limit cannot be raised.
pub fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("raise open files")
}
