//! The controller: its permissions, secrets, policies and health.

use std::time::Duration;

use super::super::cluster;
use super::super::kubectl::Kubectl;
use super::super::manifests::{AUDIENCE_POLICIES, MASTER_SECRET, NAMESPACE, TLS_SECRET};
use super::super::secrets::{self, RENEW_BEFORE, since_1970};
use crate::exit::Failure;
use crate::findings::Finding;

const INSTALL: &str = "run `zipline knative install` again";
const ACCOUNT: &str = "system:serviceaccount:zipline-system:zipline-controller";
/// An account that has no business with the controller's secrets.
const STRANGER: &str = "system:serviceaccount:default:default";
const DAY: Duration = Duration::from_secs(86_400);

/// What the controller does, as `kubectl auth can-i` asks for it.
const NEEDS: [&[&str]; 6] = [
    &["create", "tokenreviews.authentication.k8s.io"],
    &["get", "pods", "-A"],
    &["patch", "pods", "-A"],
    &["get", "revisions.serving.knative.dev", "-A"],
    &["watch", "namespaces"],
    &["watch", "configmaps", "-n", NAMESPACE],
];

pub(super) async fn all(kubectl: &Kubectl) -> Result<Vec<Finding>, Failure> {
    Ok(vec![
        permissions(kubectl).await?,
        strangers(kubectl).await?,
        keys(kubectl).await?,
        certificate(kubectl).await?,
        policies(kubectl).await?,
        health(kubectl).await?,
    ])
}

async fn permissions(kubectl: &Kubectl) -> Result<Finding, Failure> {
    let mut missing = Vec::new();
    for need in NEEDS {
        if !kubectl.may(ACCOUNT, need).await? {
            missing.push(need[..2].join(" "));
        }
    }
    Ok(match missing.is_empty() {
        true => Finding::ok("permissions", "the controller may do what it has to"),
        false => {
            Finding::error("permissions", format!("the controller may not {}", missing.join(", ")), INSTALL)
        }
    })
}

async fn strangers(kubectl: &Kubectl) -> Result<Finding, Failure> {
    let secret = format!("secret/{MASTER_SECRET}");
    Ok(match kubectl.may(STRANGER, &["get", &secret, "-n", NAMESPACE]).await? {
        false => Finding::ok("strangers", "accounts of functions cannot read the master key"),
        true => Finding::error(
            "strangers",
            format!("{STRANGER} may read {secret} in {NAMESPACE}, and so every payload"),
            "take that role away; then rotate the master key (docs/knative.md)",
        ),
    })
}

async fn keys(kubectl: &Kubectl) -> Result<Finding, Failure> {
    let object = kubectl.get(&["secret", MASTER_SECRET, "-n", NAMESPACE]).await?;
    let names: Vec<String> = object
        .as_ref()
        .and_then(|object| object["data"].as_object())
        .map(|data| data.keys().cloned().collect())
        .unwrap_or_default();
    let wrong = names.iter().any(|name| !name.parse().is_ok_and(|number: u32| (1..4096).contains(&number)));
    Ok(match names.len() {
        0 => Finding::error("master key", format!("Secret {MASTER_SECRET} has none"), INSTALL),
        1..=4 if !wrong => Finding::ok("master key", format!("number {}", names.join(", "))),
        _ => Finding::error(
            "master key",
            format!("Secret {MASTER_SECRET} has the keys {}", names.join(", ")),
            "name them by numbers from 1 to 4095, at most four of them",
        ),
    })
}

async fn certificate(kubectl: &Kubectl) -> Result<Finding, Failure> {
    let Some(object) = cluster::secrets(kubectl).await?.serving else {
        return Ok(Finding::error("certificate", format!("there is no Secret {TLS_SECRET}"), INSTALL));
    };
    let Some(end) = secrets::not_after(&object) else {
        return Ok(Finding::ok("certificate", "not made by this command, so its end is not known here"));
    };
    let left = end.saturating_sub(since_1970());
    let found = format!("valid for {} days", left.as_secs() / DAY.as_secs());
    Ok(if left.is_zero() {
        Finding::error("certificate", "it has ended: queue-proxies get no keys", INSTALL)
    } else if left < RENEW_BEFORE {
        Finding::warning(
            "certificate",
            found,
            "`zipline knative install --secrets-only` renews it; no pod restarts",
        )
    } else {
        Finding::ok("certificate", found)
    })
}

async fn policies(kubectl: &Kubectl) -> Result<Finding, Failure> {
    let mut missing = Vec::new();
    for name in AUDIENCE_POLICIES {
        for kind in ["validatingadmissionpolicy", "validatingadmissionpolicybinding"] {
            if kubectl.get(&[kind, name]).await?.is_none() {
                missing.push(format!("{kind}/{name}"));
            }
        }
    }
    Ok(match missing.is_empty() {
        true => Finding::ok("audience", "user manifests cannot ask for tokens of the controller's audience"),
        false => Finding::error("audience", format!("missing: {}", missing.join(", ")), INSTALL),
    })
}

async fn health(kubectl: &Kubectl) -> Result<Finding, Failure> {
    let Some(object) = kubectl.get(&["deployment", "zipline-controller", "-n", NAMESPACE]).await? else {
        return Ok(Finding::error("controller", "it is not installed", "run `zipline knative install`"));
    };
    let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
    let ready = object["status"]["readyReplicas"].as_u64().unwrap_or(0);
    let found = format!("{ready} of {wanted} ready");
    let look = format!(
        "kubectl -n {NAMESPACE} describe pods; kubectl -n {NAMESPACE} logs deploy/zipline-controller"
    );
    Ok(match ready {
        0 => Finding::error("controller", format!("{found}: new pods get no keys and go inline"), look),
        _ if ready < wanted => Finding::warning("controller", found, look),
        _ => Finding::ok("controller", found),
    })
}
