//! Numbers, paths and header names that Knative Serving fixes.

use std::time::Duration;

use http::HeaderName;

/// Where requests arrive for `http1` services.
///
/// # Source
/// `pkg/networking/constants.go`, as all ports here.
pub const HTTP1_PORT: u16 = 8012;
/// Where requests arrive for `h2c` services.
pub const H2C_PORT: u16 = 8013;
/// Where requests arrive over TLS.
pub const TLS_PORT: u16 = 8112;
/// Where kubelet asks for the end of the drain.
pub const ADMIN_PORT: u16 = 8022;
/// Where the autoscaler scrapes [`crate::Stat`].
pub const AUTOSCALER_METRICS_PORT: u16 = 9090;
/// Where Prometheus scrapes request metrics.
pub const USER_METRICS_PORT: u16 = 9091;
/// Where profiles are, if profiling is enabled (`PKG observability/runtime`).
pub const PROFILING_PORT: u16 = 8008;

/// The admin port's only path.
///
/// # Source
/// `pkg/queue/constants.go`, as all paths here.
pub const DRAIN_PATH: &str = "/wait-for-drain";
/// The path of both metrics ports.
pub const METRICS_PATH: &str = "/metrics";
/// The certificate of the TLS port; it exists only with internal TLS.
pub const CERTIFICATE_PATH: &str = "/var/lib/knative/certs/tls.crt";
/// The private key of the TLS port.
pub const PRIVATE_KEY_PATH: &str = "/var/lib/knative/certs/tls.key";
/// The pod's annotations, if the feature that mounts them is on; see [`crate::podinfo`].
pub const ANNOTATIONS_PATH: &str = "/etc/podinfo/annotations";
/// The directory of one projected token per audience.
pub const TOKENS_PATH: &str = "/var/run/secrets/tokens";

/// How often a [`crate::Stat`] is made.
///
/// # Source
/// `pkg/queue/sharedmain/main.go`, as all durations here.
pub const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// How long no request may arrive until a drain ends.
pub const DRAIN_QUIET: Duration = Duration::from_secs(30);
/// A drain that kubelet asked for is undone after this long without a signal to end.
pub const DRAIN_UNDO: Duration = Duration::from_secs(1);
/// How long upgraded connections and h2c streams are waited for at the end.
pub const HIJACK_DRAIN: Duration = Duration::from_secs(60);
/// How often they are counted.
pub const HIJACK_POLL: Duration = Duration::from_secs(1);
/// How long metrics and spans may take to leave at the end.
pub const TELEMETRY_FLUSH: Duration = Duration::from_secs(10);
/// How often the certificate is looked at again.
pub const CERTIFICATE_POLL: Duration = Duration::from_secs(60);
/// Waiting requests per allowed concurrent one.
pub const QUEUE_DEPTH_FACTOR: u64 = 10;
/// Idle connections to the function without a concurrency limit; with one, the limit is their number.
pub const IDLE_CONNECTIONS: usize = 1000;

/// Attempts of an aggressive probe start this far apart.
///
/// # Source
/// `pkg/queue/readiness/probe.go`, as the next two.
pub const AGGRESSIVE_PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time of one attempt of an aggressive probe.
pub const AGGRESSIVE_PROBE_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest time of an aggressive probe.
pub const AGGRESSIVE_PROBE_TOTAL: Duration = Duration::from_secs(10);

/// Marks probes; see [`PROBE_QUEUE`] and [`PROBE_NETWORK`].
///
/// # Source
/// `NET http/header/header.go`, as all headers and user agents here.
pub const NETWORK_PROBE: HeaderName = HeaderName::from_static("k-network-probe");
/// The value of [`NETWORK_PROBE`] that asks for readiness; also the answer's body.
pub const PROBE_QUEUE: &str = "queue";
/// The value of [`NETWORK_PROBE`] by which an ingress checks its own configuration.
pub const PROBE_NETWORK: &str = "probe";
/// The configuration an ingress checks; echoed.
pub const NETWORK_HASH: HeaderName = HeaderName::from_static("k-network-hash");
/// Set to [`PROXY_ACTIVATOR`] on requests that came through an activator.
pub const PROXY_REQUEST: HeaderName = HeaderName::from_static("k-proxy-request");
/// The value of [`PROXY_REQUEST`] that makes a request count as proxied.
pub const PROXY_ACTIVATOR: &str = "activator";
/// The host the caller asked for, put aside by the activator.
pub const ORIGINAL_HOST: HeaderName = HeaderName::from_static("k-original-host");
/// Deprecated mark of kubelet's probes.
pub const KUBELET_PROBE: HeaderName = HeaderName::from_static("k-kubelet-probe");
/// The route tag; see [`crate::route_tag`].
pub const ROUTE_TAG: HeaderName = HeaderName::from_static("knative-serving-tag");
/// Whether the default route was taken.
pub const DEFAULT_ROUTE: HeaderName = HeaderName::from_static("knative-serving-default-route");
/// The revision an ingress chose; never shown to the function.
pub const REVISION: HeaderName = HeaderName::from_static("knative-serving-revision");
/// The namespace of [`REVISION`]; never shown to the function.
pub const NAMESPACE: HeaderName = HeaderName::from_static("knative-serving-namespace");

/// Start of the user agent of kubelet's probes.
pub const KUBE_PROBE_AGENT: &str = "kube-probe/";
/// Start of the user agent of the activator's probes.
pub const ACTIVATOR_PROBE_AGENT: &str = "Knative-Activator-Probe";
/// Start of the user agent of the autoscaler's probes.
pub const AUTOSCALER_PROBE_AGENT: &str = "Knative-Autoscaling-Probe";
/// The user agent of the queue-proxy's own probes of the function: no version is known.
pub const OWN_PROBE_AGENT: &str = "kube-probe//";

/// The media type the autoscaler demands of [`AUTOSCALER_METRICS_PORT`].
pub const STAT_MEDIA_TYPE: &str = "application/protobuf";

/// Whether the drainer answers a request with this user agent itself.
///
/// # Source
/// `PKG network/handlers/drain.go` with the prefixes of `pkg/queue/sharedmain/handlers.go`.
#[must_use]
pub fn is_probe_agent(user_agent: &str) -> bool {
    [KUBE_PROBE_AGENT, ACTIVATOR_PROBE_AGENT, AUTOSCALER_PROBE_AGENT]
        .iter()
        .any(|prefix| user_agent.starts_with(prefix))
}

/// Whether a request is left out of request log and metrics: kubelet's probe by user agent or header, or any non-empty
/// [`NETWORK_PROBE`].
///
/// # Source
/// `NET http/header/header.go`, `IsProbe`.
#[must_use]
pub fn is_probe(headers: &http::HeaderMap) -> bool {
    let filled = |name: &HeaderName| headers.get(name).is_some_and(|value| !value.is_empty());
    let kubelet = headers
        .get(http::header::USER_AGENT)
        .is_some_and(|value| value.as_bytes().starts_with(KUBE_PROBE_AGENT.as_bytes()));
    kubelet || filled(&KUBELET_PROBE) || filled(&NETWORK_PROBE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn probes_are_told_from_requests() {
        assert!(is_probe_agent("kube-probe/1.31"));
        assert!(is_probe_agent("Knative-Activator-Probe"));
        assert!(is_probe_agent("Knative-Autoscaling-Probe/1"));
        assert!(!is_probe_agent("Knative-Queue-Proxy-Probe"));
        assert!(!is_probe_agent("curl kube-probe/1"));

        assert!(is_probe(&headers(&[("user-agent", "kube-probe/1.31")])));
        assert!(is_probe(&headers(&[("k-kubelet-probe", "x")])));
        assert!(is_probe(&headers(&[("k-network-probe", "anything")])));
        assert!(!is_probe(&headers(&[("k-network-probe", "")])));
        // The activator's probes carry the header too; by their user agent alone they are not left out.
        assert!(!is_probe(&headers(&[("user-agent", "Knative-Activator-Probe")])));
    }
}
