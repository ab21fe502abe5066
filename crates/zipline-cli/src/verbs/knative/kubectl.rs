//! The cluster, through `kubectl`: it knows every way operators sign in, and is what they have (`docs/adr/0010`).

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::exit::{Failure, message};

/// Longest time one command may take, beyond its own limit of requests.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest time one request to the API server may take.
const REQUEST_TIMEOUT: &str = "--request-timeout=30s";
/// Who the API server remembers as the owner of what is applied.
pub(super) const MANAGER: &str = "zipline";

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub(super) struct ClusterArgs {
    /// The kubectl to run
    #[arg(long, default_value = "kubectl", value_name = "PATH")]
    kubectl: OsString,
    /// Context of the kubeconfig
    #[arg(long)]
    context: Option<String>,
    /// Kubeconfig, where not the usual one
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// Namespace Knative Serving runs in
    #[arg(long, default_value = "knative-serving", value_name = "NAMESPACE")]
    pub(super) knative_namespace: String,
}

/// Runs `kubectl`.
#[derive(Debug, Clone)]
pub(super) struct Kubectl {
    program: OsString,
    first: Vec<OsString>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Answer {
    ok: bool,
    out: String,
    error: String,
}

impl Kubectl {
    pub(super) fn new(args: &ClusterArgs) -> Self {
        let mut first = vec![OsString::from(REQUEST_TIMEOUT)];
        if let Some(context) = &args.context {
            first.extend(["--context".into(), context.into()]);
        }
        if let Some(kubeconfig) = &args.kubeconfig {
            first.extend(["--kubeconfig".into(), kubeconfig.clone()]);
        }
        Self { program: args.kubectl.clone(), first }
    }

    /// Its standard output.
    pub(super) async fn text(&self, args: &[&str]) -> Result<String, Failure> {
        let answer = self.run(args, None).await?;
        if answer.ok { Ok(answer.out) } else { Err(failed(args, &answer)) }
    }

    /// One object or list; `None` if there is none of this name, or no such kind.
    pub(super) async fn get(&self, args: &[&str]) -> Result<Option<Value>, Failure> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        let answer = self.run(&all, None).await?;
        if answer.ok {
            return serde_json::from_str(&answer.out).map(Some).map_err(Failure::failed);
        }
        let absent = ["(NotFound)", "doesn't have a resource type", "no matches for kind"];
        if absent.iter().any(|text| answer.error.contains(text)) {
            return Ok(None);
        }
        Err(failed(&all, &answer))
    }

    /// Answers of the API server itself, or of what it forwards to; `None` when there is no such path.
    pub(super) async fn raw(&self, path: &str) -> Result<Option<String>, Failure> {
        let args = ["get", "--raw", path];
        let answer = self.run(&args, None).await?;
        if answer.ok {
            return Ok(Some(answer.out));
        }
        if answer.error.contains("(NotFound)") {
            return Ok(None);
        }
        Err(failed(&args, &answer))
    }

    /// Applies manifests as [`MANAGER`]; says what changed.
    pub(super) async fn apply(&self, manifests: &str) -> Result<String, Failure> {
        let args = ["apply", "--server-side", "--force-conflicts", "--field-manager", MANAGER, "-f", "-"];
        let answer = self.run(&args, Some(manifests)).await?;
        if answer.ok { Ok(answer.out) } else { Err(failed(&args, &answer)) }
    }

    /// Changes fields of one object.
    pub(super) async fn patch(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        patch: &Value,
    ) -> Result<(), Failure> {
        let patch = patch.to_string();
        let manager = format!("--field-manager={MANAGER}");
        self.text(&["patch", kind, name, "-n", namespace, "--type=merge", &manager, "-p", &patch]).await?;
        Ok(())
    }

    /// Whether `user` may do `what`, e.g. `["get", "pods"]`.
    pub(super) async fn may(&self, user: &str, what: &[&str]) -> Result<bool, Failure> {
        let user = format!("--as={user}");
        let mut args = vec!["auth", "can-i", &user];
        args.extend(what);
        let answer = self.run(&args, None).await?;
        match answer.out.split_whitespace().next() {
            Some("yes") => Ok(true),
            Some("no") => Ok(false),
            _ => Err(failed(&args, &answer)),
        }
    }

    async fn run(&self, args: &[&str], input: Option<&str>) -> Result<Answer, Failure> {
        let mut command = Command::new(&self.program);
        command.args(&self.first).args(args);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            let text = format!(
                "cannot run {}, which speaks to the cluster: install kubectl, or name it with --kubectl",
                self.program.display()
            );
            Failure::unavailable(anyhow::Error::new(error).context(text))
        })?;
        let stdin = child.stdin.take();
        let work = async {
            // Written while its output is read, so that neither end can block the other for ever.
            let write = async {
                if let (Some(mut stdin), Some(input)) = (stdin, input) {
                    // It closes early when it refuses its arguments; its own words say why.
                    let _ = stdin.write_all(input.as_bytes()).await;
                }
            };
            tokio::join!(write, child.wait_with_output()).1
        };
        let output = timeout(COMMAND_TIMEOUT, work).await.map_err(|_elapsed| {
            Failure::unavailable(message(format!(
                "kubectl {} did not end within {COMMAND_TIMEOUT:?}",
                args.first().unwrap_or(&"")
            )))
        })?;
        let output = output.map_err(Failure::failed)?;
        Ok(Answer {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// Secrets may be among the arguments of a patch, so only the verb is shown.
fn failed(args: &[&str], answer: &Answer) -> Failure {
    let text = format!("kubectl {} failed: {}", args.first().unwrap_or(&""), answer.error);
    let unreachable = ["Unable to connect", "connection refused", "timed out", "i/o timeout"];
    if unreachable.iter().any(|text| answer.error.contains(text)) {
        return Failure::unavailable(message(text));
    }
    Failure::failed(message(text))
}
