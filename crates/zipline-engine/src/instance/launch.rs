//! Starts processes by way of `zipline __exec`, which ties them to the engine's life and sets their user.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::context::Context;
use crate::process;

use super::environment::Environment;

/// A process to start.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// For people: `function recog.default`, `queue-proxy of …`.
    pub(super) what: String,
    pub(super) program: &'a Path,
    pub(super) args: Vec<String>,
    pub(super) env: Environment,
    pub(super) working_dir: PathBuf,
    pub(super) user: Option<u32>,
    pub(super) stdin: Stdio,
}

/// A process in a group of its own. Dropped, the whole group is killed.
#[derive(Debug)]
pub(super) struct Process {
    context: Arc<Context>,
    child: Child,
    pid: i32,
    over: bool,
}

impl Launch<'_> {
    pub(super) fn start(self, context: &Arc<Context>) -> io::Result<Process> {
        let mut args: Vec<OsString> = vec!["__exec".into()];
        if let Some(user) = self.user {
            let user = user.to_string();
            args.extend(["--uid", &user, "--gid", &user].map(OsString::from));
        }
        args.push("--".into());
        args.push(self.program.into());
        args.extend(self.args.into_iter().map(OsString::from));
        let child = Command::new(&context.config.programs.zipline)
            .args(args)
            .env_clear()
            .envs(self.env)
            .current_dir(self.working_dir)
            .process_group(0)
            .stdin(self.stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        context.register.add(pid, &self.what);
        Ok(Process { context: context.clone(), child, pid, over: false })
    }
}

impl Process {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for its end; whatever it left in its group is killed then. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        let status = self.child.wait().await;
        self.finish();
        match status {
            Ok(status) => describe(status),
            Err(error) => format!("could not be waited for: {error}"),
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if !self.over {
            process::signal_group(self.pid, signal);
        }
    }

    fn finish(&mut self) {
        if !self.over {
            process::signal_group(self.pid, Signal::KILL);
            self.over = true;
            self.context.register.remove(self.pid);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.finish();
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}
