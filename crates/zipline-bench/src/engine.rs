//! A standalone engine of the benchmark's own, with the receiving function, and a sending process beside it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// A running engine and its sender. Both end when this is dropped.
pub(crate) struct Engine {
    up: Child,
    sender: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    zipline: PathBuf,
    // Last, so that the engine has ended before its folder goes.
    folder: TempDir,
}

impl Engine {
    /// Starts an engine in `mode` (`on` or `off`) that defers from `threshold` bytes, with `budget` bytes of buffer.
    ///
    /// # Errors
    /// If a binary is missing or the function does not answer.
    pub(crate) fn start(mode: &str, threshold: u64, budget: u64) -> anyhow::Result<Self> {
        let bench = std::env::current_exe().context("cannot find this binary")?;
        let zipline = bench.with_file_name("zipline");
        ensure!(
            zipline.exists(),
            "{} is missing: build all binaries with cargo build --release",
            zipline.display()
        );
        let folder =
            tempfile::Builder::new().prefix("zipline-bench").tempdir().context("temporary folder")?;
        let manifest = folder.path().join("services.yaml");
        fs::write(&manifest, manifest_text(&bench)).context("cannot write the manifest")?;
        let log = fs::File::create(folder.path().join("engine.log")).context("cannot write the log")?;
        let mut up = state(&zipline, folder.path(), "up")
            .args(["--gateway", "127.0.0.1:0", "--mode", mode, "--threshold", &threshold.to_string()])
            .args(["--budget", &budget.to_string()])
            .arg(&manifest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start zipline up")?;
        // The table of functions comes when all are ready; a line more or the end of the stream are equally good news.
        let out = up.stdout.take().context("standard output of zipline up")?;
        let ready = BufReader::new(out).lines().map_while(Result::ok).any(|line| line.contains("sink"));
        if !ready {
            let log = fs::read_to_string(folder.path().join("engine.log")).unwrap_or_default();
            // It has ended or is about to; waiting only collects it.
            let _ = up.kill();
            let _ = up.wait();
            anyhow::bail!("zipline up did not become ready:\n{log}");
        }
        let mut sender = state(&zipline, folder.path(), "run")
            .arg("--")
            .arg(&bench)
            .arg("source")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start zipline run")?;
        let requests = sender.stdin.take();
        let answers = BufReader::new(sender.stdout.take().context("standard output of the sender")?);
        Ok(Self { up, sender, requests, answers, zipline, folder })
    }

    /// Posts `runs` payloads of `size` bytes, one after another; gives the seconds of each.
    ///
    /// # Errors
    /// If one failed.
    pub(crate) fn post(&mut self, size: u64, runs: usize) -> anyhow::Result<Vec<f64>> {
        let requests = self.requests.as_mut().context("the sender has ended")?;
        writeln!(requests, "{size} {runs}").context("the sender has ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the sender has ended")?;
        serde_json::from_str(&line).with_context(|| format!("the sender failed at {size} bytes"))
    }

    /// Processor seconds of all processes so far: sender, queue-proxies, gateway, function.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        crate::processes::cpu_seconds(&[self.up.id(), self.sender.id()])
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.requests.take());
        // Whatever fails here, the temporary folder and the processes' own owners clean up the rest.
        let _ = self.sender.wait();
        let _ = state(&self.zipline, self.folder.path(), "down")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = self.up.wait();
    }
}

fn state(zipline: &Path, folder: &Path, verb: &str) -> Command {
    let mut command = Command::new(zipline);
    command.arg(verb).arg("--state-dir").arg(folder.join("state"));
    command
}

fn manifest_text(bench: &Path) -> String {
    format!(
        "apiVersion: serving.knative.dev/v1\n\
         kind: Service\n\
         metadata:\n  name: sink\n\
         spec:\n  template:\n    metadata:\n      annotations:\n        autoscaling.knative.dev/min-scale: \"1\"\n    \
         spec:\n      containers:\n        - command: [{:?}, sink]\n",
        bench.display().to_string()
    )
}
