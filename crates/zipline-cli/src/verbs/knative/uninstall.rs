//! `zipline knative uninstall`

use clap::Args;
use serde_json::{Value, json};

use super::cluster::{self, Told};
use super::kubectl::{ClusterArgs, Kubectl};
use super::manifests::{AUDIENCE_POLICIES, CANARY, CANARY_LABEL, CONFIG, DATA_PORT_POLICY, NAMESPACE};
use super::settings::{ConfigMap, DEPLOYMENT, FEATURES};
use crate::exit::{Failure, Outcome, UNAVAILABLE};
use crate::output::say;

/// `knative uninstall`
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Remove the controller although pods with Zipline's queue-proxy still run
    #[arg(long)]
    now: bool,
    /// Remove the Secrets as well. A later installation then has other keys
    #[arg(long)]
    purge: bool,
    /// Change nothing: say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Does things, or only says so.
struct Hand {
    kubectl: Kubectl,
    dry_run: bool,
}

impl Hand {
    async fn patch(&self, namespace: &str, name: &str, patch: &Value, what: &str) -> Result<(), Failure> {
        if !self.dry_run {
            self.kubectl.patch(namespace, "configmap", name, patch).await?;
        }
        self.done(what);
        Ok(())
    }

    async fn kubectl(&self, args: &[&str], what: &str) -> Result<(), Failure> {
        if !self.dry_run {
            self.kubectl.text(args).await?;
        }
        self.done(what);
        Ok(())
    }

    fn done(&self, what: &str) {
        say(format!("{}{what}", if self.dry_run { "would: " } else { "" }));
    }
}

pub(crate) async fn run(args: UninstallArgs) -> Outcome {
    let kubectl = Kubectl::new(&args.cluster);
    let hand = Hand { kubectl, dry_run: args.dry_run };
    let told = Told::find(&hand.kubectl).await?;
    // First of all nobody defers any more, so that nothing is held when pods are replaced.
    if told.is_some() {
        let off = json!({"data": {"mode": "off"}});
        hand.patch(NAMESPACE, CONFIG, &off, "the cluster's mode is off").await?;
    }
    for name in [DEPLOYMENT, FEATURES] {
        restore(&hand, &args.cluster.knative_namespace, name).await?;
    }
    if hand.kubectl.get(&["knativeservings.operator.knative.dev", "-A"]).await?.is_some() {
        say(
            "the Knative Operator is here: take out of your KnativeServing what `zipline knative install` told you to set",
        );
    }
    remove_canary(&hand).await?;
    let ours = told.unwrap_or_default().images;
    let running: usize = cluster::queue_proxies(&hand.kubectl)
        .await?
        .iter()
        .filter(|(image, _)| ours.contains(image))
        .map(|(_, count)| count)
        .sum();
    if running > 0 && !args.now && !args.dry_run {
        say(format!(
            "{running} pods still run Zipline's queue-proxy. Without the controller they would go on inline; run this again when \
             they have been replaced, or with --now"
        ));
        return Ok(UNAVAILABLE);
    }
    remove_controller(&hand, args.purge).await?;
    Ok(0)
}

async fn restore(hand: &Hand, namespace: &str, name: &str) -> Result<(), Failure> {
    let Some(object) = hand.kubectl.get(&["configmap", name, "-n", namespace]).await? else { return Ok(()) };
    let Some((patch, left)) = ConfigMap::read(&object).restore() else { return Ok(()) };
    hand.patch(namespace, name, &patch, &format!("{name} is as it was")).await?;
    for key in left {
        say(format!("{name}: {key} was changed by somebody else since, and left alone"));
    }
    Ok(())
}

async fn remove_canary(hand: &Hand) -> Result<(), Failure> {
    let labelled = hand.kubectl.get(&["namespaces", "-l", CANARY_LABEL]).await?;
    for namespace in labelled.iter().flat_map(|list| list["items"].as_array()).flatten() {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        let off = format!("{CANARY_LABEL}-");
        hand.kubectl(&["label", "namespace", name, &off], &format!("namespace {name} is no canary any more"))
            .await?;
    }
    if cluster::mutating_policies(&hand.kubectl).await?.is_some() {
        for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
            hand.kubectl(
                &["delete", "--ignore-not-found", kind, CANARY],
                &format!("{kind}/{CANARY} is gone"),
            )
            .await?;
        }
    }
    let policies =
        hand.kubectl.get(&["networkpolicies", "-A", "-l", "app.kubernetes.io/part-of=zipline"]).await?;
    for policy in policies.iter().flat_map(|list| list["items"].as_array()).flatten() {
        let namespace = policy["metadata"]["namespace"].as_str().unwrap_or_default();
        if policy["metadata"]["name"] == DATA_PORT_POLICY {
            let what = format!("networkpolicy/{DATA_PORT_POLICY} in {namespace} is gone");
            hand.kubectl(&["delete", "networkpolicy", DATA_PORT_POLICY, "-n", namespace], &what).await?;
        }
    }
    Ok(())
}

/// The namespace stays, with the Secrets, unless they go as well.
async fn remove_controller(hand: &Hand, purge: bool) -> Result<(), Failure> {
    let delete = ["delete", "--ignore-not-found"];
    for policy in AUDIENCE_POLICIES {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            hand.kubectl(&[&delete[..], &[kind, policy]].concat(), &format!("{kind}/{policy} is gone"))
                .await?;
        }
    }
    for kind in ["clusterrolebinding", "clusterrole"] {
        let what = format!("{kind}/zipline-controller is gone");
        hand.kubectl(&[&delete[..], &[kind, "zipline-controller"]].concat(), &what).await?;
    }
    if purge {
        // Kubernetes empties it first, in its own time.
        let what = format!("namespace {NAMESPACE} is being removed, with its keys");
        return hand.kubectl(&[&delete[..], &["--wait=false", "namespace", NAMESPACE]].concat(), &what).await;
    }
    let kinds = "deployment,service,poddisruptionbudget,rolebinding,role,serviceaccount,configmap";
    let rest = ["-n", NAMESPACE, kinds, "-l", "app.kubernetes.io/part-of=zipline"];
    let what =
        format!("the controller is gone; its Secrets stay in namespace {NAMESPACE}, --purge removes them");
    hand.kubectl(&[&delete[..], &rest].concat(), &what).await
}
