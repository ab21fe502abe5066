//! Functions' pods: which queue-proxy they run, whether their data ports can be reached, whether a request passes.

use std::time::Duration;

use serde_json::Value;

use super::super::cluster::{self, Told};
use super::super::kubectl::Kubectl;
use crate::exit::Failure;
use crate::findings::Finding;

/// Fixed on Knative.
const DATA_PORT: u16 = 8031;
/// Most data ports that are asked.
const ASKED_MAX: usize = 16;
/// Longest wait for the pod that asks.
const PROBE_TIMEOUT: Duration = Duration::from_secs(75);

/// How many pods run which queue-proxy.
pub(super) async fn running(kubectl: &Kubectl) -> Result<Vec<Finding>, Failure> {
    let ours = Told::find(kubectl).await?.unwrap_or_default().images;
    let counts = cluster::queue_proxies(kubectl).await?;
    let sum = |zipline: bool| -> usize {
        counts.iter().filter(|(image, _)| ours.contains(image) == zipline).map(|(_, count)| count).sum()
    };
    let (with, without) = (sum(true), sum(false));
    let found = format!("{with} with Zipline's queue-proxy, {without} with another");
    Ok(vec![match (with, without) {
        (_, 0) | (0, _) => Finding::ok("pods", found),
        _ => Finding::warning(
            "pods",
            format!("{found}; the others get everything inline"),
            "nothing, if this is a canary or a rollout under way",
        ),
    }])
}

/// Asks the data ports of a namespace's pods from a pod beside them, as another queue-proxy would.
pub(super) async fn data_ports(kubectl: &Kubectl, namespace: &str, image: &str) -> Result<Finding, Failure> {
    let ours = Told::find(kubectl).await?.unwrap_or_default().images;
    let pods = kubectl.get(&["pods", "-n", namespace, "-l", "serving.knative.dev/revision"]).await?;
    let addresses: Vec<String> = pods
        .iter()
        .flat_map(|list| list["items"].as_array())
        .flatten()
        .filter_map(|pod| address(pod, &ours))
        .collect();
    if addresses.is_empty() {
        return Ok(Finding::warning(
            "data ports",
            format!("no pod in {namespace} runs Zipline's queue-proxy"),
            "send its functions a request, or look at `pods` above",
        ));
    }
    let asked = &addresses[..addresses.len().min(ASKED_MAX)];
    let overrides = overrides(image, asked);
    let image = format!("--image={image}");
    let overrides = format!("--overrides={overrides}");
    let wait = format!("--pod-running-timeout={}s", PROBE_TIMEOUT.as_secs());
    let name = format!("zipline-probe-{}", std::process::id());
    // Attached, it prints what the pod prints and removes the pod at its end.
    let answer = kubectl
        .text(&[
            "run",
            &name,
            "-n",
            namespace,
            &image,
            &overrides,
            "--restart=Never",
            "--rm",
            "-i",
            "--quiet",
            &wait,
        ])
        .await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return Ok(Finding::error(
                "data ports",
                format!("could not be asked: {error}"),
                "see whether the image can be pulled, and whether every port was refused",
            ));
        }
    };
    let open = answer.lines().filter(|line| line.ends_with("\tok")).count();
    Ok(if open == asked.len() {
        Finding::ok("data ports", format!("{open} of {open} answer from another pod of {namespace}"))
    } else {
        let refused: Vec<&str> =
            answer.lines().filter(|line| line.contains('\t') && !line.ends_with("\tok")).collect();
        Finding::error(
            "data ports",
            format!("{open} of {} answer; {}", asked.len(), refused.join("; ").replace('\t', ": ")),
            "allow TCP 8031 within the namespace (deploy/tenant) and keep it out of the mesh (docs/knative.md); until then \
             payloads go inline",
        )
    })
}

fn address(pod: &Value, ours: &std::collections::BTreeSet<String>) -> Option<String> {
    let ip = pod["status"]["podIP"].as_str().filter(|_| pod["status"]["phase"] == "Running")?;
    let mut containers = pod["spec"]["containers"].as_array()?.iter();
    let image = containers.find(|container| container["name"] == "queue-proxy")?["image"].as_str()?;
    let ip: std::net::IpAddr = ip.parse().ok()?;
    ours.contains(image).then(|| std::net::SocketAddr::new(ip, DATA_PORT).to_string())
}

/// A pod as the restricted Pod Security profile wants it, out of any mesh's way, as functions' data ports are.
fn overrides(image: &str, addresses: &[String]) -> Value {
    let mut args = vec!["knative".to_owned(), "probe".to_owned()];
    args.extend_from_slice(addresses);
    let context = serde_json::json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    serde_json::json!({
        "apiVersion": "v1",
        "metadata": {"annotations": {
            "traffic.sidecar.istio.io/excludeOutboundPorts": "8031",
            "config.linkerd.io/skip-outbound-ports": "8031",
        }},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": "probe", "image": image, "args": args, "securityContext": context}],
        },
    })
}

/// Sends one GET through the queue-proxy of a Service's newest ready Revision, by way of the API server.
pub(super) async fn request(kubectl: &Kubectl, wanted: &str) -> Result<Finding, Failure> {
    let (host, path) = wanted.split_once('/').unwrap_or((wanted, ""));
    let Some((service, namespace)) = host.split_once('.') else {
        return Ok(Finding::error("request", format!("{wanted:?} is not SERVICE.NAMESPACE"), "write it so"));
    };
    let object = kubectl.get(&["services.serving.knative.dev", service, "-n", namespace]).await?;
    let revision = object.as_ref().and_then(|object| object["status"]["latestReadyRevisionName"].as_str());
    let Some(revision) = revision else {
        return Ok(Finding::error(
            "request",
            format!("{host} has no ready Revision"),
            "kubectl describe ksvc says why",
        ));
    };
    let url = format!("/api/v1/namespaces/{namespace}/services/http:{revision}-private:80/proxy/{path}");
    Ok(match kubectl.raw(&url).await {
        Ok(Some(body)) => Finding::ok(
            "request",
            format!("{host} answered with {} bytes through its queue-proxy", body.len()),
        ),
        Ok(None) => Finding::warning(
            "request",
            format!("{host} answered 404"),
            "name a path that it knows, after a slash",
        ),
        Err(error) => Finding::error(
            "request",
            format!("{host} did not answer: {error}"),
            "a Service that is scaled to zero has no pod to ask: send it an ordinary request first",
        ),
    })
}
