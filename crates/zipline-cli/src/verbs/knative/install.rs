//! `zipline knative install`

mod operator;
mod plan;

use std::path::PathBuf;

use clap::Args;
use zipline_protocol::Mode;

use self::plan::Plan;
use super::cluster::{self, Knative, Told};
use super::kubectl::{ClusterArgs, Kubectl};
use super::manifests::{self, CANARY_LABEL, NetworkPolicy};
use super::settings::ConfigMap;
use super::{secrets, settings, versions};
use crate::exit::{Failure, Outcome, message};
use crate::output::{self, say};

/// `knative install`
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Image of zipline-queue-proxy, exactly as pods are to name it
    #[arg(long, value_name = "IMAGE", required_unless_present = "secrets_only")]
    queue_proxy_image: Option<String>,
    /// Image of zipline-controller
    #[arg(long, value_name = "IMAGE", required_unless_present = "secrets_only")]
    controller_image: Option<String>,
    /// Copies of the controller
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    replicas: u8,
    /// Mode of the cluster: off, receive or on. Without it an installed one stays, and a new one is receive
    #[arg(long)]
    mode: Option<Mode>,
    /// Give the queue-proxy to new pods of this namespace only (repeatable)
    #[arg(long, value_name = "NAMESPACE")]
    canary: Vec<String>,
    /// Make it the queue-proxy of the whole cluster, by Knative's own setting. Restarts every revision
    #[arg(long)]
    cluster_wide: bool,
    /// Guard the data port of the --canary namespaces by a NetworkPolicy
    #[arg(long, value_enum, requires = "canary")]
    network_policy: Option<NetworkPolicy>,
    /// Go on without being asked
    #[arg(long, short)]
    yes: bool,
    /// Make the controller's Secrets and nothing else, for those who deploy the rest by GitOps
    #[arg(long, conflicts_with_all = ["cluster_wide", "canary", "dry_run"])]
    secrets_only: bool,
    /// Change nothing: print what would be applied
    #[arg(long)]
    dry_run: bool,
    /// What a dry run prints
    #[arg(long, value_enum, default_value_t = Output::Yaml, requires = "dry_run")]
    output: Output,
    /// Do not look at a cluster at all; with --dry-run and --root-ca
    #[arg(long, requires_all = ["dry_run", "root_ca"])]
    offline: bool,
    /// The CA's certificate (PEM), where it cannot be read from the cluster
    #[arg(long, value_name = "FILE")]
    root_ca: Option<PathBuf>,
    /// Go on with this release of Knative, although it is not known
    #[arg(long, value_name = "VERSION")]
    accept_knative: Option<String>,
}

/// What a dry run prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Manifests
    Yaml,
    /// One line per step
    Text,
}

pub(crate) async fn run(args: InstallArgs) -> Outcome {
    let kubectl = Kubectl::new(&args.cluster);
    if args.secrets_only {
        make_secrets(&kubectl).await?;
        return Ok(0);
    }
    let (knative, told) = match args.offline {
        true => (None, None),
        false => (Some(find_knative(&kubectl, &args).await?), Told::find(&kubectl).await?),
    };
    let api_version = match args.offline {
        true => Some("admissionregistration.k8s.io/v1"),
        false => cluster::mutating_policies(&kubectl).await?,
    };
    if !args.canary.is_empty() && api_version.is_none() {
        return Err(no_mutating_policies());
    }
    let root_ca = match (&args.root_ca, args.dry_run) {
        (Some(path), _) => read_certificate(path)?,
        (None, true) => present_certificate(&kubectl).await?,
        (None, false) => make_secrets(&kubectl).await?,
    };
    let plan = Plan {
        args: &args,
        told: told.unwrap_or_default(),
        root_ca: &root_ca,
        api_version: api_version.unwrap_or_default(),
        operator: knative.as_ref().and_then(|knative| knative.operator.as_deref()),
        changes: changes(&args, knative.as_ref(), &root_ca),
    };
    if args.dry_run {
        output::data(match args.output {
            Output::Yaml => plan.yaml(),
            Output::Text => plan.steps(),
        })?;
        return Ok(0);
    }
    plan.warn(&kubectl).await?;
    apply(&kubectl, &plan).await?;
    plan.say_what_is_next();
    Ok(0)
}

async fn find_knative(kubectl: &Kubectl, args: &InstallArgs) -> Result<Knative, Failure> {
    let knative = Knative::find(kubectl, &args.cluster.knative_namespace).await?;
    versions::judge(knative.version.as_deref(), args.accept_knative.as_deref()).map_err(|doubt| {
        let version = knative.version.as_deref().unwrap_or("VERSION");
        Failure::usage(message(format!(
            "{doubt}; try it elsewhere first, then say --accept-knative {version}"
        )))
    })?;
    Ok(knative)
}

/// The merge patches of Knative's ConfigMaps that are still needed.
fn changes(
    args: &InstallArgs,
    knative: Option<&Knative>,
    root_ca: &str,
) -> Vec<(&'static str, serde_json::Value)> {
    if !args.cluster_wide || knative.is_some_and(|knative| knative.operator.is_some()) {
        return Vec::new();
    }
    let image = args.queue_proxy_image.as_deref().unwrap_or_default();
    let wanted = settings::wanted(image, root_ca);
    let current = |name: &str| match (knative, name) {
        (None, _) => ConfigMap::default(),
        (Some(knative), settings::DEPLOYMENT) => ConfigMap::read(&knative.deployment),
        (Some(knative), _) => ConfigMap::read(&knative.features),
    };
    wanted.iter().filter_map(|(name, wanted)| Some((*name, current(name).install(wanted)?))).collect()
}

async fn apply(kubectl: &Kubectl, plan: &Plan<'_>) -> Result<(), Failure> {
    say(kubectl.apply(&plan.base()).await?.trim_end());
    if let Some(canary) = plan.canary() {
        say(kubectl.apply(&canary).await?.trim_end());
        for namespace in &plan.args.canary {
            let label = format!("{CANARY_LABEL}=true");
            say(kubectl.text(&["label", "--overwrite", "namespace", namespace, &label]).await?.trim_end());
        }
    }
    for (name, patch) in &plan.changes {
        kubectl.patch(&plan.args.cluster.knative_namespace, "configmap", name, patch).await?;
        say(format!("configmap/{name} changed"));
    }
    Ok(())
}

/// Makes what is missing; the CA's certificate.
async fn make_secrets(kubectl: &Kubectl) -> Result<String, Failure> {
    let made = secrets::make(&cluster::secrets(kubectl).await?)?;
    if !made.manifests.is_empty() {
        kubectl.apply(manifests::namespace()).await?;
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": made.manifests});
        kubectl.apply(&list.to_string()).await?;
        say(format!("made {}, in namespace {}", made.said.join(", "), manifests::NAMESPACE));
    }
    Ok(made.root_ca)
}

async fn present_certificate(kubectl: &Kubectl) -> Result<String, Failure> {
    let found = cluster::secrets(kubectl).await?;
    let certificate = found.serving.as_ref().and_then(|object| secrets::text(object, "ca.crt"));
    certificate.ok_or_else(|| {
        Failure::usage(message(
            "the cluster has no CA for the controller yet: run `zipline knative install --secrets-only` first, or give its \
             certificate with --root-ca",
        ))
    })
}

fn read_certificate(path: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    })?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Failure::usage(message(format!("{} is not a certificate in PEM", path.display()))));
    }
    Ok(text)
}

fn no_mutating_policies() -> Failure {
    Failure::usage(message(
        "this cluster serves no MutatingAdmissionPolicy (Kubernetes 1.36, before by feature gate), which sets the image in chosen \
         namespaces. Have another admission controller do what deploy/base/canary.yaml says, or use a small cluster for the \
         canary and --cluster-wide there",
    ))
}
