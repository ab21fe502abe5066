//! Names of what a queue-proxy measures, in OpenTelemetry's and in Prometheus' spelling.
//!
//! # Source
//! `pkg/queue/request_metric.go`, `pkg/queue/sharedmain/otel.go`, `pkg/metrics/key.go`, and the exporter's
//! `UnderscoreEscapingWithSuffixes` of `PKG observability/metrics/prometheus_enabled.go`.

use crate::environment::Environment;

/// Time of the function, from the breaker's slot to the response's end.
pub const INVOCATION_DURATION: &str = "kn.serving.invocation.duration";
/// The unit of [`INVOCATION_DURATION`].
pub const INVOCATION_DURATION_UNIT: &str = "s";
/// The description of [`INVOCATION_DURATION`].
pub const INVOCATION_DURATION_HELP: &str = "The duration of task execution";
/// Upper bounds of the buckets of [`INVOCATION_DURATION`], in seconds.
pub const INVOCATION_DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Requests in the breaker, running and waiting, when the last one came to run; only with a concurrency limit.
pub const QUEUE_DEPTH: &str = "kn.serving.queue.depth";
/// The unit of [`QUEUE_DEPTH`].
pub const QUEUE_DEPTH_UNIT: &str = "{request}";
/// The description of [`QUEUE_DEPTH`].
pub const QUEUE_DEPTH_HELP: &str = "Number of current requests in the queue";
/// The instrumentation scope of both, and of the spans.
pub const SCOPE: &str = "knative.dev/serving/pkg/queue";

/// The attribute of [`INVOCATION_DURATION`].
pub const STATUS_CODE: &str = "http.response.status_code";
/// The attribute of the standard HTTP server metrics; see [`crate::route_tag`].
pub const ROUTE_TAG: &str = "kn.route.tag";

/// The operation of a request's server span. It is seen nowhere: the span is named by the request's method.
pub const SERVER_SPAN: &str = "queue";
/// The span around the breaker and all below.
pub const PROXY_SPAN: &str = "kn.queueproxy.proxy";
/// The span of the wait for a slot; only with a concurrency limit.
pub const WAIT_SPAN: &str = "kn.queueproxy.wait";

/// The container's name among the resource attributes.
pub const CONTAINER_NAME: &str = "queue-proxy";

/// What all metrics and spans of this process carry, in the order Go gives them. `version` is the queue-proxy's own.
#[must_use]
pub fn resource_attributes(environment: &Environment, version: &str) -> Vec<(&'static str, String)> {
    let pod = &environment.telemetry_pod;
    let mut attributes = vec![
        // Knative's word for it is not OpenTelemetry's `k8s.container.name`.
        ("container.name", CONTAINER_NAME.to_owned()),
        ("k8s.namespace.name", environment.namespace.clone()),
        ("k8s.pod.name", pod.clone()),
        ("service.version", version.to_owned()),
        ("service.name", environment.telemetry_service().to_owned()),
        ("service.instance.id", pod.clone()),
    ];
    for (name, value) in [
        ("kn.service.name", &environment.service),
        ("kn.configuration.name", &environment.configuration),
        ("kn.revision.name", &environment.revision),
    ] {
        if !value.is_empty() {
            attributes.push((name, value.clone()));
        }
    }
    attributes
}

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts into buckets.
    Histogram,
}

/// The Prometheus name of a metric: letters, digits and underscores, the unit in full at the end, `_total` behind what
/// only grows. Units in braces are annotations and leave no trace.
#[must_use]
pub fn prometheus_name(name: &str, unit: &str, kind: Kind) -> String {
    let mut words: Vec<String> = name
        .split(|character: char| !character.is_ascii_alphanumeric() && character != ':')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    if words.first().is_some_and(|word| word.starts_with(|character: char| character.is_ascii_digit())) {
        words.insert(0, String::new());
    }
    let unit = match unit {
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "min" => "minutes",
        "h" => "hours",
        "d" => "days",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "1" if kind == Kind::Gauge => "ratio",
        "%" => "percent",
        _ => "",
    };
    if !unit.is_empty() && !words.iter().any(|word| word == unit) {
        words.push(unit.to_owned());
    }
    if kind == Kind::Counter {
        words.retain(|word| word != "total");
        words.push("total".to_owned());
    }
    words.join("_")
}

/// The Prometheus name of an attribute.
#[must_use]
pub fn prometheus_label(name: &str) -> String {
    let mut label = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            _ if character.is_ascii_alphanumeric() => label.push(character),
            _ if label.ends_with('_') => {}
            _ => label.push('_'),
        }
    }
    if label.starts_with(|character: char| character.is_ascii_digit()) {
        label.insert_str(0, "key_");
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_spellings() {
        for (name, unit, kind, expected) in [
            (
                INVOCATION_DURATION,
                INVOCATION_DURATION_UNIT,
                Kind::Histogram,
                "kn_serving_invocation_duration_seconds",
            ),
            (QUEUE_DEPTH, QUEUE_DEPTH_UNIT, Kind::Gauge, "kn_serving_queue_depth"),
            ("http.server.request.duration", "s", Kind::Histogram, "http_server_request_duration_seconds"),
            ("http.server.request.body.size", "By", Kind::Histogram, "http_server_request_body_size_bytes"),
            ("http.client.request.duration", "s", Kind::Histogram, "http_client_request_duration_seconds"),
            ("go.memory.allocations", "{allocation}", Kind::Counter, "go_memory_allocations_total"),
            ("go.memory.used", "By", Kind::Gauge, "go_memory_used_bytes"),
            ("a.seconds", "s", Kind::Counter, "a_seconds_total"),
            ("9lives", "1", Kind::Histogram, "_9lives"),
        ] {
            assert_eq!(prometheus_name(name, unit, kind), expected);
        }
        assert_eq!(prometheus_label(STATUS_CODE), "http_response_status_code");
        assert_eq!(prometheus_label(ROUTE_TAG), "kn_route_tag");
    }
}
