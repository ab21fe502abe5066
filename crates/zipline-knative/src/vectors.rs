//! Everything here held against the answers of Knative's own code, which `interop/knative/vectors` writes to a file.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use serde_json::Value;

use crate::go::{float, number, quote};
use crate::observability::{DEFAULT_REQUEST_LOG_TEMPLATE, MetricsProtocol, Observability, TracingProtocol};
use crate::probe::{Check, Probe};
use crate::request_log::{Request, Response, Revision, Template, escape, trace_id};
use crate::stat::{Event, Reporter, Stat};
use crate::{contract, metrics, replies, route_tag};

mod settings;

fn section(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    all[name].clone()
}

fn each(name: &str, check: impl Fn(&Value)) {
    let list = section(name);
    let list = list.as_array().unwrap();
    assert!(!list.is_empty());
    for item in list {
        check(item);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = text(hex);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn float_of(bits: &Value) -> f64 {
    f64::from_bits(u64::from_str_radix(text(bits), 16).unwrap())
}

#[test]
fn numbers_and_truth() {
    each("Ints", |item| {
        let value = number::parse_int(text(&item["Text"]));
        assert_eq!(value.is_ok(), item["OK"], "{item}");
        if let Ok(value) = value {
            assert_eq!(value.to_string(), item["Value"], "{item}");
        }
    });
    each("Bools", |item| {
        let value = number::parse_bool(text(&item["Text"]));
        assert_eq!(value.is_ok(), item["OK"], "{item}");
        if let Ok(value) = value {
            assert_eq!(value.to_string(), item["Value"], "{item}");
        }
    });
    each("Floats", |item| assert_eq!(float::display(float_of(&item["Bits"])), item["Text"], "{item}"));
}

#[test]
fn escapes() {
    each("Quotes", |item| {
        let given = bytes(&item["Text"]);
        let mut out = Vec::new();
        quote::quote(&given, &mut out);
        assert_eq!(out, bytes(&item["Quote"]), "quote {item}");
        assert_eq!(quote::unquote(str::from_utf8(&out).unwrap()).unwrap(), given);
        for (how, name) in
            [(escape::js as fn(&[u8], &mut Vec<u8>), "JS"), (escape::html, "HTML"), (escape::query, "Query")]
        {
            let mut out = Vec::new();
            how(&given, &mut out);
            assert_eq!(out, bytes(&item[name]), "{name} {item}");
        }
    });
}

#[test]
fn request_log_lines() {
    let revision = Revision {
        name: "hello-00001".into(),
        namespace: "ns".into(),
        service: "hello".into(),
        configuration: "hello-c".into(),
        pod_name: "pod".into(),
        pod_ip: "10.1.2.3".into(),
    };
    let response = Response { code: 200, size: 345, latency: Duration::from_micros(1500) };
    let forms = section("Forms");
    each("Requests", |item| {
        let headers = headers(&item["Headers"]);
        let version = match (item["Major"].as_u64(), item["Minor"].as_u64()) {
            (Some(1), Some(0)) => Version::HTTP_10,
            (Some(1), Some(1)) => Version::HTTP_11,
            other => panic!("{other:?}"),
        };
        let request = Request {
            method: text(&item["Method"]),
            request_uri: text(&item["URI"]),
            host: text(&item["Host"]),
            version,
            remote_addr: "127.0.0.1:4711".parse().unwrap(),
            content_length: item["Length"].as_i64().unwrap(),
            headers: &headers,
            tls: None,
        };
        for (form, line) in forms.as_array().unwrap().iter().zip(item["Lines"].as_array().unwrap()) {
            let template = Template::parse(text(form)).unwrap().unwrap();
            let mut out = Vec::new();
            template.write(&request, &response, &revision, &mut out);
            let (ours, gos) = (String::from_utf8_lossy(&out).into_owned(), bytes(line));
            assert_eq!(ours, String::from_utf8_lossy(&gos), "{form} of {} {}", item["Method"], item["URI"]);
            assert_eq!(out, gos);
        }
    });
}

fn headers(list: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in list.as_array().into_iter().flatten() {
        let name = HeaderName::from_bytes(text(&field[0]).as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(&bytes(&field[1])).unwrap());
    }
    headers
}

#[test]
fn stats() {
    each("Stats", |item| {
        let number = |at: usize| float_of(&item["Numbers"][at]);
        let stat = Stat {
            pod_name: text(&item["PodName"]).to_owned(),
            average_concurrent_requests: number(0),
            average_proxied_concurrent_requests: number(1),
            request_count: number(2),
            proxied_request_count: number(3),
            process_uptime: number(4),
            timestamp: item["Timestamp"].as_i64().unwrap(),
        };
        assert_eq!(stat.encode(), bytes(&item["Encoded"]), "{item}");
    });
}

#[test]
fn concurrency() {
    each("Concurrency", |item| {
        let mut reporter = Reporter::new("pod", Duration::from_secs(1), Duration::ZERO);
        for step in item["Steps"].as_array().unwrap() {
            let now = Duration::from_nanos(step["Nanoseconds"].as_u64().unwrap());
            match step["Kind"].as_u64().unwrap() {
                0 => reporter.event(Event::In, now),
                1 => reporter.event(Event::Out, now),
                2 => reporter.event(Event::ProxiedIn, now),
                3 => reporter.event(Event::ProxiedOut, now),
                _ => {
                    let stat = reporter.report(now);
                    let ours = [
                        stat.average_concurrent_requests,
                        stat.average_proxied_concurrent_requests,
                        stat.request_count,
                        stat.proxied_request_count,
                    ];
                    for (at, ours) in ours.iter().enumerate() {
                        assert_eq!(
                            ours.to_bits(),
                            float_of(&step["Report"][at]).to_bits(),
                            "{step}: {stat:?}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn observability() {
    each("Observability", |item| {
        let ours = Observability::parse(text(&item["Text"]));
        assert_eq!(ours.is_ok(), item["OK"], "{item}: {ours:?}");
        let Ok(ours) = ours else { return };
        let tracing = match ours.tracing.protocol {
            TracingProtocol::None => "none",
            TracingProtocol::Stdout => "stdout",
            TracingProtocol::Grpc => "grpc",
            TracingProtocol::HttpProtobuf => "http/protobuf",
        };
        let metrics = match ours.request_metrics.protocol {
            MetricsProtocol::None => "none",
            MetricsProtocol::Prometheus => "prometheus",
            MetricsProtocol::Grpc => "grpc",
            MetricsProtocol::HttpProtobuf => "http/protobuf",
        };
        assert_eq!([tracing, &ours.tracing.endpoint], [text(&item["Tracing"][0]), text(&item["Tracing"][1])]);
        assert_eq!(ours.tracing.sampling_rate, item["SamplingRate"].as_f64().unwrap());
        let given = &item["RequestMetrics"];
        assert_eq!([metrics, &ours.request_metrics.endpoint], [text(&given[0]), text(&given[1])]);
        let interval = ours.request_metrics.export_interval.map_or(0, |interval| interval.as_nanos());
        assert_eq!(interval, item["ExportInterval"].as_u64().unwrap().into(), "{item}");
        assert_eq!(ours.runtime.profiling, item["Profiling"], "{item}");
        assert_eq!(
            ours.runtime.export_interval.as_nanos(),
            item["Runtime"].as_u64().unwrap().into(),
            "{item}"
        );
        assert_eq!(
            [ours.enable_request_log, ours.enable_probe_request_log],
            [item["Logs"][0].as_bool().unwrap(), item["Logs"][1].as_bool().unwrap()]
        );
        assert_eq!(ours.request_log_template, item["Template"], "{item}");
    });
}

#[test]
fn probes() {
    each("Probes", |item| {
        let ours = Probe::parse_all(text(&item["Text"]), item["Several"].as_bool().unwrap(), 1234);
        assert_eq!(ours.is_ok(), item["OK"], "{item}: {ours:?}");
        let answers = item["Probes"].as_array().cloned().unwrap_or_default();
        let ours = ours.unwrap_or_default();
        assert_eq!(ours.len(), answers.len(), "{item}");
        for (ours, go) in ours.iter().zip(&answers) {
            let (kind, port, path) = match &ours.check {
                Check::Http { port, path, .. } => ("http", port, path.to_string()),
                Check::Tcp { port, .. } => ("tcp", port, String::new()),
                Check::Grpc { port, .. } => ("grpc", port, String::new()),
            };
            // Where Go has no port, and would connect to none, ours is the function's.
            let gos_port = text(&go["Port"]);
            let same = matches!(gos_port, "" | "0") && *port == 1234 || gos_port == port.to_string();
            assert!(same, "{item}: {ours:?}");
            if go["Handler"] != "" {
                assert_eq!([kind, &path], [text(&go["Handler"]), text(&go["Path"])], "{item}");
            }
            let numbers = &go["Numbers"];
            assert_eq!(ours.is_aggressive(), numbers[0] == 0, "{item}");
            assert_eq!(ours.period.unwrap_or_default().as_secs(), numbers[0].as_u64().unwrap());
            assert_eq!(ours.timeout.as_secs(), numbers[1].as_u64().unwrap().max(1));
            assert_eq!(u64::from(ours.success_threshold), numbers[2].as_u64().unwrap().max(1));
            let failures = numbers[3].as_u64().unwrap();
            assert_eq!(u64::from(ours.failure_threshold), if failures == 0 { 3 } else { failures });
        }
    });
}

#[test]
fn metric_names() {
    each("Names", |item| {
        let kind = match text(&item["Kind"]) {
            "counter" => metrics::Kind::Counter,
            "gauge" => metrics::Kind::Gauge,
            _ => metrics::Kind::Histogram,
        };
        let name = text(&item["Name"]);
        assert_eq!(metrics::prometheus_name(name, text(&item["Unit"]), kind), item["Metric"], "{item}");
        assert_eq!(metrics::prometheus_label(name), item["Label"], "{item}");
    });
}

#[test]
fn header_fields() {
    each("Headers", |item| {
        let mut headers = HeaderMap::new();
        for field in item["Headers"].as_array().into_iter().flatten() {
            let name = HeaderName::from_bytes(text(&field[0]).as_bytes()).unwrap();
            headers.append(name, text(&field[1]).parse().unwrap());
        }
        assert_eq!(route_tag::of(&headers), text(&item["RouteTag"]), "{item}");
        assert_eq!(trace_id(&headers), text(&item["TraceID"]).as_bytes(), "{item}");
        assert_eq!(contract::is_probe(&headers), item["Probe"], "{item}");
    });
}

#[test]
fn constants() {
    let constants = section("Constants");
    for (name, ours) in [
        ("template", DEFAULT_REQUEST_LOG_TEMPLATE),
        ("http1", &contract::HTTP1_PORT.to_string()),
        ("h2c", &contract::H2C_PORT.to_string()),
        ("tls", &contract::TLS_PORT.to_string()),
        ("admin", &contract::ADMIN_PORT.to_string()),
        ("autoscaler", &contract::AUTOSCALER_METRICS_PORT.to_string()),
        ("user", &contract::USER_METRICS_PORT.to_string()),
        ("profiling", &contract::PROFILING_PORT.to_string()),
        ("drain", contract::DRAIN_PATH),
        ("annotations", contract::ANNOTATIONS_PATH),
        ("tokens", contract::TOKENS_PATH),
        ("queue", contract::PROBE_QUEUE),
        ("queue full", replies::QUEUE_FULL),
        ("probe", contract::NETWORK_PROBE.as_str()),
        ("probe value", contract::PROBE_NETWORK),
        ("hash", contract::NETWORK_HASH.as_str()),
        ("proxy", contract::PROXY_REQUEST.as_str()),
        ("host", contract::ORIGINAL_HOST.as_str()),
        ("kubelet", contract::KUBELET_PROBE.as_str()),
        ("route tag", contract::ROUTE_TAG.as_str()),
        ("default route", contract::DEFAULT_ROUTE.as_str()),
        ("kube probe", contract::KUBE_PROBE_AGENT),
        ("activator", contract::ACTIVATOR_PROBE_AGENT),
        ("autoscaling", contract::AUTOSCALER_PROBE_AGENT),
        ("protobuf", contract::STAT_MEDIA_TYPE),
        ("route attribute", metrics::ROUTE_TAG),
    ] {
        assert_eq!(ours, text(&constants[name]), "{name}");
    }
    let certificates = text(&constants["certificates"]);
    assert_eq!(contract::CERTIFICATE_PATH, format!("{certificates}/tls.crt"));
    assert_eq!(contract::PRIVATE_KEY_PATH, format!("{certificates}/tls.key"));
}
