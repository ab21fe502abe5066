use super::*;
use proptest::prelude::*;

#[test]
fn nothing_given_is_the_default() {
    for text in ["", "{}", "null", r#"{"tracing":{},"metrics":{},"runtime":{},"requestMetrics":{}}"#] {
        assert_eq!(Observability::parse(text).unwrap(), Observability::default(), "{text}");
    }
    let default = Observability::default();
    assert_eq!(default.runtime.export_interval, Duration::from_secs(15));
    assert!(!default.logs_requests() && !default.runtime.profiling);
    assert!(default.request_log_template.starts_with("{\"httpRequest\": {\"requestMethod\""));
}

#[test]
fn what_the_controller_writes_is_read() {
    let config = Observability::parse(
        r#"{"tracing":{"protocol":"http/protobuf","endpoint":"http://jaeger:4318/v1/traces","samplingRate":0.25},
            "metrics":{"protocol":"prometheus"},"runtime":{"profiling":"enabled","exportInterval":5000000000},
            "requestMetrics":{"protocol":"grpc","endpoint":"otel:4317","exportInterval":60000000000},
            "enableRequestLog":true,"requestLogTemplate":"{{.Request.URL}}","enableProbeRequestLog":true,
            "EnableVarLogCollection":true,"LoggingURLTemplate":"http://l"}"#,
    )
    .unwrap();
    assert_eq!(config.tracing.protocol, TracingProtocol::HttpProtobuf);
    assert_eq!(
        (config.tracing.endpoint.as_str(), config.tracing.sampling_rate),
        ("http://jaeger:4318/v1/traces", 0.25)
    );
    assert_eq!(config.request_metrics.protocol, MetricsProtocol::Grpc);
    assert_eq!(config.request_metrics.export_interval, Some(Duration::from_secs(60)));
    assert_eq!(config.runtime, Runtime { profiling: true, export_interval: Duration::from_secs(5) });
    assert!(config.logs_requests() && config.enable_probe_request_log);
    assert_eq!(config.request_log_template, "{{.Request.URL}}");
}

#[test]
fn decoding_is_gos() {
    // Names match whatever their case, unknown ones are skipped, null changes nothing, a later member is laid over.
    let config = Observability::parse(
        r#"{"REQUESTMETRICS":{"Protocol":"prometheus"},"unknown":[1,{"a":null}],"runtime":null,
            "requestMetrics":{"endpoint":":9999"},"requestLogTemplate":null,"tracing":{"samplingRate":1}}"#,
    )
    .unwrap();
    assert_eq!(config.request_metrics.protocol, MetricsProtocol::Prometheus);
    assert_eq!(config.request_metrics.endpoint, ":9999");
    assert_eq!(config.request_log_template, DEFAULT_REQUEST_LOG_TEMPLATE);
    assert_eq!(config.tracing.sampling_rate, 1.0);
    // An empty template switches the log off although it is enabled.
    let config = Observability::parse(r#"{"enableRequestLog":true,"requestLogTemplate":""}"#).unwrap();
    assert!(!config.logs_requests());
    // Intervals of no length are the exporter's default.
    let config = Observability::parse(r#"{"requestMetrics":{"exportInterval":-1}}"#).unwrap();
    assert_eq!(config.request_metrics.export_interval, None);
    // The queue-proxy has no use for the controller's own metrics, whatever they speak.
    assert!(Observability::parse(r#"{"metrics":{"protocol":"carrier-pigeon"}}"#).is_ok());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    for (text, part) in [
        ("{", "is not JSON"),
        ("{} x", "is not JSON"),
        ("[]", "the configuration: an array where an object is expected"),
        (r#"{"tracing":1}"#, "tracing: a whole number where an object is expected"),
        (
            r#"{"tracing":{"protocol":"zipkin"}}"#,
            "tracing.protocol: unsupported protocol \"zipkin\"; none, stdout",
        ),
        (
            r#"{"requestMetrics":{"protocol":"statsd"}}"#,
            "requestMetrics.protocol: unsupported protocol \"statsd\"",
        ),
        (r#"{"requestMetrics":{"protocol":""}}"#, "unsupported protocol \"\""),
        (r#"{"requestMetrics":{"exportInterval":"60s"}}"#, "requestMetrics.exportInterval: a string"),
        (r#"{"runtime":{"exportInterval":15e9}}"#, "runtime.exportInterval: a number with fraction"),
        (r#"{"metrics":{"exportInterval":true}}"#, "metrics.exportInterval: a bool"),
        (r#"{"enableRequestLog":"true"}"#, "enableRequestLog: a string where a bool"),
        (r#"{"tracing":{"samplingRate":"1"}}"#, "tracing.samplingRate: a string where a number"),
    ] {
        let error = Observability::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(text in "[\\[\\]{}\":,a-z0-9.eE+ -]{0,64}|\\PC{0,64}") {
        let _ = Observability::parse(&text);
    }
}
