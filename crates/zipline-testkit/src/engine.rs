//! The real `zipline up`, on manifests of the test.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::client::{Call, Protocol, Reply};
use crate::process::Process;
use crate::wait;

/// What a command did.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// A directory with manifests and the state of at most one engine.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
}

impl Place {
    /// A directory with `services.yaml`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(manifests: &str) -> Result<Self> {
        // Sockets in it have short names only if its own is.
        let directory = tempfile::Builder::new().prefix("zlt").tempdir_in("/tmp")?;
        fs::write(directory.path().join("services.yaml"), manifests)?;
        Ok(Self { directory })
    }

    /// The manifests' path.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.directory.path().join("services.yaml")
    }

    /// `zipline` with these arguments, about this place.
    ///
    /// # Errors
    /// There is no such binary.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binaries::zipline()?);
        command.env_clear().current_dir(self.directory.path()).stdin(Stdio::null());
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.arg("--state-dir").arg(self.directory.path().join("state")).args(arguments);
        Ok(command)
    }

    /// Runs `zipline` with these arguments to its end.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Done> {
        let mut command = tokio::process::Command::from(self.command(arguments)?);
        let output = tokio::time::timeout(wait::PATIENCE * 2, command.kill_on_drop(true).output());
        let output = output.await.with_context(|| format!("zipline {arguments:?} does not end"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Done { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// Runs `zipline up` on the manifests, which is expected to end by itself.
    ///
    /// # Errors
    /// It does not.
    pub async fn up(&self, flags: &[&str]) -> Result<Done> {
        let mut arguments = vec!["up", "services.yaml", "--gateway", "127.0.0.1:0"];
        arguments.extend(flags);
        self.run(&arguments).await
    }
}

/// A running engine; everything that it started ends with it when dropped.
#[derive(Debug)]
pub struct Engine {
    /// `zipline up`, the guard.
    pub process: Process,
    /// Where functions are reached.
    pub gateway: SocketAddr,
    /// Its manifests and state.
    pub place: Place,
}

impl Engine {
    /// Starts an engine and waits until it answers; its functions may still start.
    ///
    /// # Errors
    /// It ends before; the error has what it wrote.
    pub async fn start(manifests: &str, flags: &[&str]) -> Result<Self> {
        let place = Place::new(manifests)?;
        let mut command =
            place.command(&["up", "services.yaml", "--gateway", "127.0.0.1:0", "--grace", "3s"])?;
        let mut process = Process::start(command.args(flags))?;
        let gateway = wait::until("the engine", || {
            let ended = process.ended();
            let (place, log) = (&place, process.log());
            async move {
                if let Some(status) = ended? {
                    // Waiting on would bring nothing else.
                    return Ok(Some(Err(format!("{status}: {log}"))));
                }
                let done = place.run(&["status", "--json"]).await?;
                ensure!(done.status == Some(0), "{}", done.stderr);
                let status: Value = serde_json::from_str(&done.stdout)?;
                Ok(Some(Ok(status["engine"]["gateway"].as_str().context("gateway")?.parse()?)))
            }
        })
        .await?;
        let gateway = gateway.map_err(|ended: String| anyhow::anyhow!("zipline up ended: {ended}"))?;
        Ok(Self { process, gateway, place })
    }

    /// `zipline status --json`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self) -> Result<Value> {
        let done = self.place.run(&["status", "--json"]).await?;
        ensure!(done.status == Some(0), "{} {}", done.stdout, done.stderr);
        Ok(serde_json::from_str(&done.stdout)?)
    }

    /// The status of one service.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn function(&self, service: &str) -> Result<Value> {
        let status = self.status().await?;
        let mut functions = status["functions"].as_array().context("functions")?.iter();
        functions.find(|function| function["service"] == service).cloned().context("no such service")
    }

    /// A request of an outside client to a service of the default namespace.
    #[must_use]
    pub fn call(&self, protocol: Protocol, method: http::Method, service: &str, path: &str) -> Call {
        Call::new(protocol, method, path).host(format!("{service}.default.svc.cluster.local"))
    }

    /// Sends a `GET` to a service and reads its answer.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, service: &str, path: &str) -> Result<Reply> {
        self.call(Protocol::Http1, http::Method::GET, service, path).send(self.gateway).await
    }

    /// Everything it runs, by process id, guard excluded.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn processes(&self) -> Result<Vec<u32>> {
        crate::process::descendants(self.process.id())
    }
}

/// A manifest in the making.
#[derive(Debug, Clone)]
pub struct Manifest {
    name: String,
    command: Vec<String>,
    annotations: Vec<(String, String)>,
    spec: Vec<(String, String)>,
}

impl Manifest {
    /// A service that runs this command.
    #[must_use]
    pub fn new(name: &str, command: &[&str]) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self { name: name.to_owned(), command, annotations: Vec::new(), spec: Vec::new() }
    }

    /// A service that runs the test function.
    ///
    /// # Errors
    /// There is no such binary.
    pub fn test_function(name: &str) -> Result<Self> {
        let binary = binaries::test_function()?;
        Ok(Self::new(name, &[&binary.display().to_string()]))
    }

    /// Sets an annotation of the template.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a field of the template's specification.
    #[must_use]
    pub fn spec(mut self, name: &str, value: &str) -> Self {
        self.spec.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The document.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {}\nspec:\n  template:\n",
            self.name
        );
        let mut add = |line: String| writeln!(text, "{line}").expect("a string takes every line");
        if !self.annotations.is_empty() {
            add("    metadata:\n      annotations:".to_owned());
            for (name, value) in &self.annotations {
                add(format!("        {name}: {value:?}"));
            }
        }
        add("    spec:".to_owned());
        for (name, value) in &self.spec {
            add(format!("      {name}: {value}"));
        }
        add(format!("      containers:\n        - command: {:?}\n---", self.command));
        text
    }
}
