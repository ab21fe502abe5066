//! The exposition against the list of what Knative's own queue-proxy shows.

use std::collections::{BTreeMap, BTreeSet};

use super::labels::{Client, Outcome, Server};
use super::*;

/// One family of the list, or of a text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    kind: String,
    labels: BTreeSet<String>,
}

fn listed() -> BTreeMap<String, Shape> {
    let lines = include_str!("knative-v0.50.0.txt").lines();
    let same = lines.filter_map(|line| line.strip_prefix("same "));
    let shapes = same.map(|line| {
        let [name, kind, labels] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let labels = labels.split(',').filter(|label| *label != "-").map(str::to_owned).collect();
        (name.to_owned(), Shape { kind: kind.to_owned(), labels })
    });
    shapes.collect()
}

/// Families of a text, by the rules of Prometheus' own parser as far as needed.
fn shown(text: &str) -> BTreeMap<String, Shape> {
    let mut families: BTreeMap<String, Shape> = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            family = name.to_owned();
            let seen = families.insert(family.clone(), Shape { kind: kind.to_owned(), ..Shape::default() });
            assert!(seen.is_none(), "{family} comes twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&family), "{line} stands under {family}");
            let shape = families.get_mut(&family).unwrap();
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
            let names = labels.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
            let names = names.filter(|name| *name != "le" || shape.kind != "histogram");
            shape.labels.extend(names.map(str::to_owned));
        }
    }
    families
}

fn server(route_tag: &str) -> Server<&str> {
    Server {
        method: "GET",
        status: 200,
        route_tag,
        version: "1.1",
        host: "localhost",
        port: Some(8012),
        scheme: "http",
    }
}

fn exercised() -> Recorder {
    let recorder = Recorder::new();
    let served = Served { seconds: 0.007, request_bytes: 3, response_bytes: 5 };
    recorder.served(&server("kn:disabled"), served);
    for outcome in [Outcome::Status(200), Outcome::Error("net.OpError")] {
        let client = Client { method: "GET", outcome, route_tag: "kn:disabled", version: "1.1", port: 8080 };
        recorder.called(&client, 0.0006, 3);
    }
    recorder.invoked(200, 0.0064);
    recorder.queue_depth(1);
    recorder
}

#[test]
fn every_family_of_knative_is_there_with_its_type_and_labels() {
    let mut text = String::new();
    exposition::write_families(&exercised().families(), &mut text);
    process::write_process(&mut text);
    let names = [
        "container.name",
        "k8s.namespace.name",
        "k8s.pod.name",
        "kn.configuration.name",
        "kn.revision.name",
        "kn.service.name",
        "service.instance.id",
        "service.name",
        "service.version",
        "telemetry.sdk.language",
        "telemetry.sdk.name",
        "telemetry.sdk.version",
    ];
    exposition::write_target_info(&names.map(|name| (name.to_owned(), "x".to_owned())), &mut text);
    assert_eq!(shown(&text), listed());
}

#[test]
fn lines_are_written_as_knatives() {
    let mut text = String::new();
    exposition::write_families(&exercised().families(), &mut text);
    for line in [
        "# HELP http_server_request_duration_seconds Duration of HTTP server requests.",
        "kn_serving_invocation_duration_seconds_bucket{http_response_status_code=\"200\",\
         otel_scope_name=\"knative.dev/serving/pkg/queue\",otel_scope_schema_url=\"\",otel_scope_version=\"\",\
         le=\"0.005\"} 0",
        "kn_serving_invocation_duration_seconds_sum{http_response_status_code=\"200\",\
         otel_scope_name=\"knative.dev/serving/pkg/queue\",otel_scope_schema_url=\"\",otel_scope_version=\"\"} 0.0064",
        "kn_serving_queue_depth{otel_scope_name=\"knative.dev/serving/pkg/queue\",otel_scope_schema_url=\"\",\
         otel_scope_version=\"\"} 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
    }
    let bucket = "http_server_response_body_size_bytes_bucket{http_request_method=\"GET\",\
                  http_response_status_code=\"200\",kn_route_tag=\"kn:disabled\",network_protocol_name=\"http\",\
                  network_protocol_version=\"1.1\",\
                  otel_scope_name=\"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp\",";
    assert!(text.contains(bucket), "{text}");
}

#[test]
fn callers_cannot_fill_the_memory_with_series() {
    let recorder = Recorder::new();
    let served = Served { seconds: 0.1, request_bytes: 0, response_bytes: 0 };
    for number in 0..table::SERIES_MAX + 50 {
        recorder.served(&server(&number.to_string()), served);
    }
    recorder.served(&server(&"x".repeat(table::LABEL_MAX_BYTES + 1)), served);
    let families = recorder.families();
    let points =
        &families.iter().find(|family| family.name == "http.server.request.duration").unwrap().points;
    assert_eq!(points.len(), table::SERIES_MAX + 1);
    let (labels, Point::Histogram(rest)) = points.last().unwrap() else { panic!("a histogram") };
    assert_eq!((labels[0].0, rest.count()), ("otel.metric.overflow", 51));
}
