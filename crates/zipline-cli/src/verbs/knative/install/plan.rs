//! What an installation consists of: to be applied, or to be shown.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;
use zipline_protocol::Mode;

use super::super::cluster::{self, Told};
use super::super::kubectl::Kubectl;
use super::super::manifests::{self, Values};
use super::{InstallArgs, operator};
use crate::exit::{Failure, message};
use crate::output::say;

/// One installation.
pub(super) struct Plan<'a> {
    pub(super) args: &'a InstallArgs,
    pub(super) told: Told,
    pub(super) root_ca: &'a str,
    /// Of MutatingAdmissionPolicy.
    pub(super) api_version: &'a str,
    /// Who owns Knative's ConfigMaps, if not we.
    pub(super) operator: Option<&'a str>,
    /// Merge patches of Knative's ConfigMaps.
    pub(super) changes: Vec<(&'static str, Value)>,
}

impl Plan<'_> {
    fn image(&self) -> &str {
        self.args.queue_proxy_image.as_deref().unwrap_or_default()
    }

    /// Settings that are there already stay, unless another mode is asked for.
    fn mode(&self) -> Mode {
        let told = self.told.mode.as_deref().and_then(|text| text.trim().parse().ok());
        self.args.mode.or(told).unwrap_or(Mode::Receive)
    }

    pub(super) fn base(&self) -> String {
        manifests::base(&Values {
            controller_image: self.args.controller_image.as_deref().unwrap_or_default(),
            queue_proxy_image: self.image(),
            replicas: self.args.replicas,
            mode: self.mode(),
            namespace_default: self.told.namespace_default.as_deref().unwrap_or("on"),
            further_images: &self.told.images,
        })
    }

    /// Canary and NetworkPolicies, if asked for.
    pub(super) fn canary(&self) -> Option<String> {
        if self.args.canary.is_empty() {
            return None;
        }
        let mut all = vec![manifests::canary(self.image(), self.root_ca, self.api_version)];
        if let Some(kind) = self.args.network_policy {
            all.extend(self.args.canary.iter().map(|namespace| manifests::network_policy(kind, namespace)));
        }
        Some(manifests::join(&all.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// Everything as manifests. Secrets are not among them.
    pub(super) fn yaml(&self) -> String {
        let mut parts = vec![
            "# The Secrets zipline-master, zipline-ca and zipline-controller-tls are not shown: make them once with\n\
             # `zipline knative install --secrets-only`.\n"
                .to_owned()
                + &self.base(),
        ];
        parts.extend(self.canary());
        for namespace in &self.args.canary {
            parts.push(format!(
                "# Merge into the Namespace that you have.\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n  \
                 labels:\n    {}: \"true\"\n",
                manifests::CANARY_LABEL
            ));
        }
        for (name, patch) in &self.changes {
            parts.push(self.partial(name, patch));
        }
        if self.args.cluster_wide && self.operator.is_some() {
            parts.push(operator::fragment(self.image(), self.root_ca));
        }
        manifests::join(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A ConfigMap of Knative's with nothing but what changes.
    fn partial(&self, name: &str, patch: &Value) -> String {
        let namespace = &self.args.cluster.knative_namespace;
        let mut text = format!(
            "# Merge into the ConfigMap that Knative brings, or apply it on the server's side. It restarts every revision.\n\
             apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  annotations:\n"
        );
        let mut fields = |indent: &str, object: &Value| {
            for (key, value) in object.as_object().into_iter().flatten() {
                text.push_str(&format!("{indent}{key}: {value}\n"));
            }
        };
        fields("    ", &patch["metadata"]["annotations"]);
        text.push_str("data:\n");
        let mut fields = |indent: &str, object: &Value| {
            for (key, value) in object.as_object().into_iter().flatten() {
                text.push_str(&format!("{indent}{key}: {value}\n"));
            }
        };
        fields("  ", &patch["data"]);
        text
    }

    /// One line per step.
    pub(super) fn steps(&self) -> String {
        let mut lines = vec![format!(
            "controller {} in namespace {}, mode {}",
            self.args.controller_image.as_deref().unwrap_or_default(),
            manifests::NAMESPACE,
            self.mode().as_str()
        )];
        lines.extend(
            self.args.canary.iter().map(|namespace| format!("new pods in {namespace}: {}", self.image())),
        );
        for (name, patch) in &self.changes {
            let keys: Vec<&str> =
                patch["data"].as_object().into_iter().flatten().map(|(key, _)| &**key).collect();
            lines.push(format!("{name}: {}", keys.join(", ")));
        }
        if self.args.cluster_wide && self.changes.is_empty() {
            lines.push(match self.operator {
                Some(owner) => format!("KnativeServing {owner}: to be changed by you"),
                None => "Knative's settings are as they should be".to_owned(),
            });
        }
        lines.join("\n") + "\n"
    }

    /// Says what a change of the image does, and asks.
    pub(super) async fn warn(&self, kubectl: &Kubectl) -> Result<(), Failure> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let pods: usize = cluster::queue_proxies(kubectl).await?.iter().map(|(_, count)| count).sum();
        say(format!(
            "Knative puts the new settings into every Revision at once: all {pods} pods of functions will be replaced, as fast as \
             their Deployments allow. Try --canary first."
        ));
        if self.args.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(message("nobody is there to be asked: say --yes")));
        }
        let _ = write!(io::stderr().lock(), "Go on? [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(Failure::failed)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::usage(message("nothing was changed"))),
        }
    }

    pub(super) fn say_what_is_next(&self) {
        if let (true, Some(owner)) = (self.args.cluster_wide, self.operator) {
            say(format!(
                "KnativeServing {owner} owns Knative's ConfigMaps, so they were left alone. Merge this into it:\n{}",
                operator::fragment(self.image(), self.root_ca)
            ));
        }
        for namespace in &self.args.canary {
            say(format!(
                "pods in {namespace} that run already stay as they are; to replace them: \
                 kubectl -n {namespace} delete pods -l serving.knative.dev/revision"
            ));
        }
        if self.args.canary.is_empty() && !self.args.cluster_wide {
            say("no pod has the queue-proxy yet: next is --canary NAMESPACE, then --cluster-wide");
        }
        say("see `zipline knative check`");
    }
}
