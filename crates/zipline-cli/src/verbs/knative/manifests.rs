//! The manifests in `deploy/`, with values in their place. Helm puts its values into the same files.

use std::collections::BTreeSet;

use zipline_protocol::Mode;

/// Namespace of the controller, which queue-proxies know by name.
pub(super) const NAMESPACE: &str = "zipline-system";
/// ConfigMap the controller reads.
pub(super) const CONFIG: &str = "zipline-config";
/// Its list of images that are given keys.
pub(super) const IMAGES: &str = "queue-proxy-images";
/// Secret with the master keys.
pub(super) const MASTER_SECRET: &str = "zipline-master";
/// Secret with the certificate the controller serves with, and the CA's in `ca.crt`.
pub(super) const TLS_SECRET: &str = "zipline-controller-tls";
/// Secret with the CA.
pub(super) const CA_SECRET: &str = "zipline-ca";
/// Label of namespaces that get the queue-proxy first.
pub(super) const CANARY_LABEL: &str = "zipline.internal/canary";
/// Name of the canary's policy, its binding and its ConfigMap.
pub(super) const CANARY: &str = "zipline-canary";
/// Policies about the token audience, each with a binding of the same name.
pub(super) const AUDIENCE_POLICIES: [&str; 3] =
    ["zipline-audience-pods", "zipline-audience-services", "zipline-audience-tokens"];
/// Name of the NetworkPolicy for the data port.
pub(super) const DATA_PORT_POLICY: &str = "zipline-data-port";

const CONTROLLER_IMAGE: &str = "registry.example/zipline/zipline-controller:0.1.0";
const QUEUE_PROXY_IMAGE: &str = "registry.example/zipline/zipline-queue-proxy:0.1.0";

const NAMESPACE_FILE: &str = include_str!("../../../../../deploy/base/namespace.yaml");
const CONFIG_FILE: &str = include_str!("../../../../../deploy/base/config.yaml");
const RBAC_FILE: &str = include_str!("../../../../../deploy/base/rbac.yaml");
const CONTROLLER_FILE: &str = include_str!("../../../../../deploy/base/controller.yaml");
const POLICIES_FILE: &str = include_str!("../../../../../deploy/base/audience-policies.yaml");
const CANARY_FILE: &str = include_str!("../../../../../deploy/base/canary.yaml");
const RESTRICT_FILE: &str = include_str!("../../../../../deploy/tenant/restrict-data-port.yaml");
const ALLOW_FILE: &str = include_str!("../../../../../deploy/tenant/allow-data-port.yaml");

/// What goes into the manifests.
#[derive(Debug, Clone)]
pub(super) struct Values<'a> {
    pub(super) controller_image: &'a str,
    pub(super) queue_proxy_image: &'a str,
    pub(super) replicas: u8,
    pub(super) mode: Mode,
    /// Of namespaces that say nothing.
    pub(super) namespace_default: &'a str,
    /// Images in use besides `queue_proxy_image`.
    pub(super) further_images: &'a BTreeSet<String>,
}

/// The namespace alone, which Secrets go into.
pub(super) fn namespace() -> &'static str {
    NAMESPACE_FILE
}

/// Everything but the Secrets and the canary.
pub(super) fn base(values: &Values<'_>) -> String {
    let images: Vec<&str> = [values.queue_proxy_image]
        .into_iter()
        .chain(
            values
                .further_images
                .iter()
                .map(String::as_str)
                .filter(|image| *image != values.queue_proxy_image),
        )
        .collect();
    let config = CONFIG_FILE
        .replace("mode: \"receive\"", &format!("mode: \"{}\"", values.mode.as_str()))
        .replace(
            "namespace-default: \"on\"",
            &format!("namespace-default: {}", quoted(values.namespace_default)),
        )
        .replace(&format!("\"{QUEUE_PROXY_IMAGE}\""), &quoted(&images.join(" ")));
    let controller = CONTROLLER_FILE
        .replace("replicas: 2", &format!("replicas: {}", values.replicas))
        .replace(&format!("\"{CONTROLLER_IMAGE}\""), &quoted(values.controller_image));
    join(&[NAMESPACE_FILE, &config, RBAC_FILE, &controller, POLICIES_FILE])
}

/// The canary's policy in the version of its API that the cluster serves.
pub(super) fn canary(queue_proxy_image: &str, root_ca: &str, api_version: &str) -> String {
    CANARY_FILE
        .replace("apiVersion: admissionregistration.k8s.io/v1", &format!("apiVersion: {api_version}"))
        .replace(&format!("\"{QUEUE_PROXY_IMAGE}\""), &quoted(queue_proxy_image))
        .replace("root-ca: \"\"", &format!("root-ca: {}", quoted(root_ca)))
}

/// How a namespace's pods are kept apart so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum NetworkPolicy {
    /// No policies so far: close the data port to other namespaces, leave everything else as open as it is
    Restrict,
    /// Closed by policies so far: open the data port within the namespace, and nothing else
    Allow,
}

/// The NetworkPolicy for the data port of one namespace.
pub(super) fn network_policy(kind: NetworkPolicy, namespace: &str) -> String {
    let file = match kind {
        NetworkPolicy::Restrict => RESTRICT_FILE,
        NetworkPolicy::Allow => ALLOW_FILE,
    };
    let name = format!("name: {DATA_PORT_POLICY}\n");
    file.replace(&name, &format!("{name}  namespace: {namespace}\n"))
}

/// Several manifests as one stream.
pub(super) fn join(manifests: &[&str]) -> String {
    manifests.iter().map(|text| text.trim_end()).collect::<Vec<_>>().join("\n---\n") + "\n"
}

/// Text in quotes as JSON has them, which YAML reads as well.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_place_of_examples() {
        let further = BTreeSet::from(["r/q:1".to_owned(), "r/q:0".to_owned()]);
        let text = base(&Values {
            controller_image: "r/c:1",
            queue_proxy_image: "r/q:1",
            replicas: 1,
            mode: Mode::Off,
            namespace_default: "receive",
            further_images: &further,
        });
        for line in [
            "mode: \"off\"",
            "namespace-default: \"receive\"",
            "\"r/q:1 r/q:0\"",
            "image: \"r/c:1\"",
            "replicas: 1",
        ] {
            assert!(text.contains(line), "{line}");
        }
        let canary = canary("r/q:1", "-----\nCA\n", "admissionregistration.k8s.io/v1beta1");
        assert!(canary.contains("image: \"r/q:1\"") && canary.contains("root-ca: \"-----\\nCA\\n\""));
        assert_eq!(canary.matches("k8s.io/v1beta1").count(), 2);
        for text in [text, canary] {
            assert!(!text.contains("registry.example"), "{text}");
        }
        for kind in [NetworkPolicy::Restrict, NetworkPolicy::Allow] {
            assert!(network_policy(kind, "shop").contains("  namespace: shop\n"));
        }
    }
}
