//! What is in the cluster already.

use std::collections::BTreeSet;

use serde_json::Value;

use super::kubectl::Kubectl;
use super::manifests::{CA_SECRET, CONFIG, IMAGES, MASTER_SECRET, NAMESPACE, TLS_SECRET};
use super::secrets::Found;
use super::settings::{DEPLOYMENT, FEATURES};
use super::versions;
use crate::exit::{Failure, message};

/// The API group of admission policies, newest version first.
const ADMISSION: [&str; 2] = ["admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1"];

/// Knative Serving as it is installed.
#[derive(Debug)]
pub(super) struct Knative {
    /// `config-deployment`.
    pub(super) deployment: Value,
    /// `config-features`.
    pub(super) features: Value,
    /// As its manifests are labelled.
    pub(super) version: Option<String>,
    /// `namespace/name` of the KnativeServing that owns the ConfigMaps, if the Knative Operator runs.
    pub(super) operator: Option<String>,
}

impl Knative {
    /// Looks for it in `namespace`.
    pub(super) async fn find(kubectl: &Kubectl, namespace: &str) -> Result<Self, Failure> {
        let deployment = kubectl.get(&["configmap", DEPLOYMENT, "-n", namespace]).await?.ok_or_else(|| {
            Failure::usage(message(format!(
                "there is no ConfigMap {DEPLOYMENT} in namespace {namespace}: install Knative Serving first, or name its \
                 namespace with --knative-namespace"
            )))
        })?;
        let features = kubectl.get(&["configmap", FEATURES, "-n", namespace]).await?.unwrap_or(Value::Null);
        let label = deployment["metadata"]["labels"][versions::LABEL].as_str();
        let owners = kubectl.get(&["knativeservings.operator.knative.dev", "-A"]).await?;
        let operator = owners.as_ref().and_then(|list| list["items"].as_array()?.first()).map(|owner| {
            let part = |name: &str| owner["metadata"][name].as_str().unwrap_or_default().to_owned();
            format!("{}/{}", part("namespace"), part("name"))
        });
        Ok(Self { version: label.map(str::to_owned), deployment, features, operator })
    }
}

/// What the controller has been told so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) mode: Option<String>,
    pub(super) namespace_default: Option<String>,
    pub(super) images: BTreeSet<String>,
}

impl Told {
    pub(super) async fn find(kubectl: &Kubectl) -> Result<Option<Self>, Failure> {
        let Some(object) = kubectl.get(&["configmap", CONFIG, "-n", NAMESPACE]).await? else {
            return Ok(None);
        };
        let text = |key: &str| object["data"][key].as_str().map(str::to_owned);
        let separators = |character: char| character == ',' || character.is_whitespace();
        let images = text(IMAGES).unwrap_or_default();
        let images = images.split(separators).filter(|image| !image.is_empty()).map(str::to_owned).collect();
        Ok(Some(Self { mode: text("mode"), namespace_default: text("namespace-default"), images }))
    }
}

/// The controller's secrets.
pub(super) async fn secrets(kubectl: &Kubectl) -> Result<Found, Failure> {
    let master = kubectl.get(&["secret", MASTER_SECRET, "-n", NAMESPACE]).await?;
    Ok(Found {
        master: master.is_some_and(|object| object["data"].as_object().is_some_and(|data| !data.is_empty())),
        authority: kubectl.get(&["secret", CA_SECRET, "-n", NAMESPACE]).await?,
        serving: kubectl.get(&["secret", TLS_SECRET, "-n", NAMESPACE]).await?,
    })
}

/// The newest version of the API in which MutatingAdmissionPolicy is served, if it is.
pub(super) async fn mutating_policies(kubectl: &Kubectl) -> Result<Option<&'static str>, Failure> {
    for version in ADMISSION {
        let Some(text) = kubectl.raw(&format!("/apis/{version}")).await? else { continue };
        let list: Value = serde_json::from_str(&text).map_err(Failure::failed)?;
        let served = list["resources"].as_array().into_iter().flatten();
        if served.into_iter().any(|resource| resource["kind"] == "MutatingAdmissionPolicy") {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// The images of all queue-proxies that run, with how many pods run each, most first.
pub(super) async fn queue_proxies(kubectl: &Kubectl) -> Result<Vec<(String, usize)>, Failure> {
    let pods = kubectl.get(&["pods", "-A", "-l", "serving.knative.dev/revision"]).await?;
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for pod in pods.iter().flat_map(|list| list["items"].as_array()).flatten() {
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            if container["name"] == "queue-proxy" {
                *counts.entry(container["image"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(counts)
}
