//! `zipline knative check`: looks for what could be wrong in the cluster, and says what to do.

mod controller;
mod pods;
mod settings;

use clap::Args;
use serde_json::Value;

use super::cluster::Knative;
use super::kubectl::{ClusterArgs, Kubectl};
use super::versions;
use crate::exit::{Failure, Outcome};
use crate::findings::{self, Finding};

/// `knative check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Image of `zipline`, to ask data ports from a pod in --namespace
    #[arg(long, value_name = "IMAGE", requires = "namespace")]
    probe_image: Option<String>,
    /// Namespace of functions whose data ports are asked
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Send one GET to this Service, as SERVICE.NAMESPACE or with a path. The function runs
    #[arg(long, value_name = "SERVICE")]
    request: Option<String>,
    /// Take this release of Knative as known
    #[arg(long, value_name = "VERSION")]
    accept_knative: Option<String>,
}

pub(crate) async fn run(args: CheckArgs) -> Outcome {
    let kubectl = Kubectl::new(&args.cluster);
    findings::report(&all(&kubectl, &args).await?, args.json)
}

async fn all(kubectl: &Kubectl, args: &CheckArgs) -> Result<Vec<Finding>, Failure> {
    let mut findings = vec![server(kubectl).await?];
    let knative = match Knative::find(kubectl, &args.cluster.knative_namespace).await {
        Ok(knative) => knative,
        Err(error) => {
            findings.push(Finding::error("knative", error.to_string(), "everything else depends on it"));
            return Ok(findings);
        }
    };
    findings.push(version(&knative, args.accept_knative.as_deref()));
    findings.extend(controller::all(kubectl).await?);
    findings.extend(settings::all(kubectl, &knative).await?);
    findings.extend(pods::running(kubectl).await?);
    if let (Some(image), Some(namespace)) = (&args.probe_image, &args.namespace) {
        findings.push(pods::data_ports(kubectl, namespace, image).await?);
    } else {
        findings.push(Finding::ok("data ports", "not asked: give --namespace and --probe-image"));
    }
    if let Some(service) = &args.request {
        findings.push(pods::request(kubectl, service).await?);
    }
    Ok(findings)
}

async fn server(kubectl: &Kubectl) -> Result<Finding, Failure> {
    let text = kubectl.raw("/version").await?.unwrap_or_default();
    let version: Value = serde_json::from_str(&text).unwrap_or_default();
    let name = version["gitVersion"].as_str().unwrap_or("of unknown version");
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let minor: Option<u32> = version["minor"].as_str().and_then(digits);
    Ok(match minor {
        Some(30..) => Finding::ok("kubernetes", name),
        _ => Finding::error(
            "kubernetes",
            name,
            "1.30 or later is needed: ValidatingAdmissionPolicy guards the token audience",
        ),
    })
}

fn version(knative: &Knative, accepted: Option<&str>) -> Finding {
    let version = knative.version.as_deref();
    match versions::judge(version, accepted) {
        Ok(()) => Finding::ok("knative", version.unwrap_or("of unknown version, accepted")),
        Err(doubt) => Finding::error(
            "knative",
            doubt.to_string(),
            "use a known release; if you have tried this one, say --accept-knative",
        ),
    }
}
