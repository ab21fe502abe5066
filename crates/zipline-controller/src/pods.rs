//! Whether a pod may have keys: judged by its spec alone, without asking anybody.
//!
//! The question behind every rule is the same: could anything but its queue-proxy have read the token, or read the keys out
//! of the queue-proxy afterwards?

use zipline_protocol::controller::AUDIENCE;

use crate::kubernetes::{Container, Pod, PodSpec};
use crate::refusal::Refusal;

/// Name of Knative's sidecar.
///
/// # Source
/// `knative.dev/serving/pkg/reconciler/revision/resources`.
pub const QUEUE_PROXY: &str = "queue-proxy";
/// Label of a Revision's pods.
///
/// # Source
/// `knative.dev/serving/pkg/apis/serving`.
pub const REVISION_LABEL: &str = "serving.knative.dev/revision";
/// Label with the Revision's UID.
///
/// # Source
/// `knative.dev/serving/pkg/apis/serving`.
pub const REVISION_UID_LABEL: &str = "serving.knative.dev/revisionUID";

/// Judges `pod`, whose queue-proxy must run one of `images`.
///
/// # Errors
/// The first rule that it breaks.
pub fn judge(pod: &Pod, images: &[String]) -> Result<(), Refusal> {
    if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        return Err(Refusal::PodEnded);
    }
    if pod.metadata.labels.get(REVISION_LABEL).is_none_or(String::is_empty) {
        return Err(Refusal::NotARevision);
    }
    let spec = &pod.spec;
    for (found, refusal) in [
        (spec.share_process_namespace, Refusal::SharedProcessNamespace),
        (spec.host_network, Refusal::HostNetwork),
        (spec.host_pid, Refusal::HostPid),
        (spec.host_ipc, Refusal::HostIpc),
        (!spec.ephemeral_containers.is_empty(), Refusal::EphemeralContainer),
    ] {
        if found {
            return Err(refusal);
        }
    }
    judge_audience(spec)?;
    let queue_proxy = queue_proxy(spec).ok_or(Refusal::QueueProxyMissing)?;
    if !images.contains(&queue_proxy.image) {
        return Err(Refusal::ImageNotAllowed);
    }
    // Knative sets neither: the image's entry point runs.
    if !queue_proxy.command.is_empty() || !queue_proxy.args.is_empty() {
        return Err(Refusal::QueueProxyChanged);
    }
    Ok(())
}

fn queue_proxy(spec: &PodSpec) -> Option<&Container> {
    spec.containers.iter().find(|container| container.name == QUEUE_PROXY)
}

/// The queue-proxy mounts a token of our audience, and nobody else does.
fn judge_audience(spec: &PodSpec) -> Result<(), Refusal> {
    let ours: Vec<&str> = spec
        .volumes
        .iter()
        .filter(|volume| {
            let sources = volume.projected.iter().flat_map(|projection| &projection.sources);
            let mut tokens = sources.filter_map(|source| source.service_account_token.as_ref());
            tokens.any(|token| token.audience == AUDIENCE)
        })
        .map(|volume| volume.name.as_str())
        .collect();
    let mounts = |container: &Container| {
        container.volume_mounts.iter().any(|mount| ours.contains(&mount.name.as_str()))
    };
    let others = spec.containers.iter().filter(|container| container.name != QUEUE_PROXY);
    if others.chain(&spec.init_containers).chain(&spec.ephemeral_containers).any(mounts) {
        return Err(Refusal::AudienceElsewhere);
    }
    match queue_proxy(spec) {
        None => Err(Refusal::QueueProxyMissing),
        Some(queue_proxy) if mounts(queue_proxy) => Ok(()),
        Some(_) => Err(Refusal::AudienceNotMounted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u", "labels": {REVISION_LABEL: "r-00001"}},
            "spec": {
                "containers": [
                    {"name": "user-container", "image": "app", "volumeMounts": [{"name": "kube-api-access"}]},
                    {"name": "queue-proxy", "image": "zipline:1", "volumeMounts": [{"name": "token"}]},
                ],
                "volumes": [
                    {"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                    {"name": "token", "projected": {"sources": [
                        {"serviceAccountToken": {"audience": "other", "path": "other"}},
                        {"serviceAccountToken": {"audience": "zipline-controller", "path": "zipline-controller"}},
                    ]}},
                ],
            },
            "status": {"phase": "Running"},
        })
    }

    fn judged(pod: Value) -> Result<(), Refusal> {
        judge(&serde_json::from_value(pod).unwrap(), &["zipline:0".into(), "zipline:1".into()])
    }

    #[test]
    fn knatives_pod_is_served() {
        assert_eq!(judged(pod()), Ok(()));
    }

    #[test]
    fn whatever_could_leak_is_refused() {
        let cases = [
            ("/status/phase", json!("Failed"), Refusal::PodEnded),
            ("/metadata/labels", json!({}), Refusal::NotARevision),
            ("/spec/shareProcessNamespace", json!(true), Refusal::SharedProcessNamespace),
            ("/spec/hostNetwork", json!(true), Refusal::HostNetwork),
            ("/spec/hostPID", json!(true), Refusal::HostPid),
            ("/spec/hostIPC", json!(true), Refusal::HostIpc),
            ("/spec/ephemeralContainers", json!([{"name": "debug"}]), Refusal::EphemeralContainer),
            (
                "/spec/initContainers",
                json!([{"name": "queue-proxy", "volumeMounts": [{"name": "token"}]}]),
                Refusal::AudienceElsewhere,
            ),
            ("/spec/containers/0/volumeMounts", json!([{"name": "token"}]), Refusal::AudienceElsewhere),
            ("/spec/containers/1/volumeMounts", json!([]), Refusal::AudienceNotMounted),
            ("/spec/containers/1/name", json!("queue"), Refusal::AudienceElsewhere),
            ("/spec/containers", json!([]), Refusal::QueueProxyMissing),
            ("/spec/containers/1/image", json!("zipline:2"), Refusal::ImageNotAllowed),
            ("/spec/containers/1/command", json!(["sh"]), Refusal::QueueProxyChanged),
            ("/spec/containers/1/args", json!(["-c"]), Refusal::QueueProxyChanged),
        ];
        for (place, value, expected) in cases {
            let mut pod = pod();
            let (parent, field) = place.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[field] = value;
            assert_eq!(judged(pod), Err(expected), "{place}");
        }
    }
}
