use super::*;
use crate::observability::MetricsProtocol;
use crate::probe::Check;
use proptest::prelude::*;

/// What the controller of v0.50.0 gives a service with everything at its default.
fn given() -> BTreeMap<String, String> {
    [
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_SERVICE", "hello"),
        ("SERVING_CONFIGURATION", "hello"),
        ("SERVING_REVISION", "hello-00001"),
        ("QUEUE_SERVING_PORT", "8012"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("CONTAINER_CONCURRENCY", "0"),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0"),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "0"),
        ("SERVING_POD", "hello-00001-deployment-5c9f-x2x"),
        ("SERVING_POD_IP", "10.1.2.3"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("USER_PORT", "8080"),
        ("SYSTEM_NAMESPACE", "knative-serving"),
        (
            "OBSERVABILITY_CONFIG",
            r#"{"tracing":{},"metrics":{},"runtime":{},"requestMetrics":{"protocol":"prometheus"}}"#,
        ),
        ("SERVING_READINESS_PROBE", r#"{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}"#),
        ("HOST_IP", "10.0.0.1"),
        ("ENABLE_HTTP2_AUTO_DETECTION", "false"),
        ("ENABLE_HTTP_FULL_DUPLEX", "false"),
        ("ROOT_CA", ""),
        ("ENABLE_MULTI_CONTAINER_PROBES", "false"),
        ("HOSTNAME", "hello-00001-deployment-5c9f-x2x"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

fn with(changes: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
    let mut variables = given();
    variables.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Environment::parse(variables)
}

fn without(name: &str) -> Result<Environment, EnvironmentError> {
    let mut variables = given();
    assert!(variables.remove(name).is_some(), "{name}");
    Environment::parse(variables)
}

#[test]
fn what_the_controller_gives_is_read() {
    let environment = Environment::parse(given()).unwrap();
    assert!(Environment::is_marked(&given()) && !Environment::is_marked(&BTreeMap::new()));
    assert_eq!(environment.container_concurrency, 0);
    assert_eq!(
        (environment.serving_port, environment.serving_tls_port, environment.user_port),
        (8012, 8112, 8080)
    );
    assert_eq!(environment.revision_timeout, Duration::from_secs(300));
    assert_eq!((environment.response_start_timeout, environment.idle_timeout), (None, None));
    assert_eq!(environment.readiness_probes, [Probe::connects(8080)]);
    assert_eq!(environment.observability.request_metrics.protocol, MetricsProtocol::Prometheus);
    assert!(
        !environment.full_duplex && !environment.http2_auto_detection && !environment.multi_container_probes
    );
    assert_eq!(environment.namespace, "default");
    assert_eq!(
        (environment.pod.as_str(), environment.pod_ip.as_str()),
        ("hello-00001-deployment-5c9f-x2x", "10.1.2.3")
    );
    assert_eq!(environment.system_namespace, "knative-serving");
    assert_eq!(environment.telemetry_pod, "hello-00001-deployment-5c9f-x2x");
    assert_eq!(environment.telemetry_service(), "hello");
}

#[test]
fn required_means_present() {
    for name in [
        "CONTAINER_CONCURRENCY",
        "QUEUE_SERVING_PORT",
        "QUEUE_SERVING_TLS_PORT",
        "USER_PORT",
        "REVISION_TIMEOUT_SECONDS",
        "SERVING_LOGGING_CONFIG",
        "SERVING_LOGGING_LEVEL",
        "SERVING_NAMESPACE",
        "SERVING_CONFIGURATION",
        "SERVING_REVISION",
        "SERVING_POD",
        "SERVING_POD_IP",
    ] {
        let error = without(name).unwrap_err();
        assert_eq!(error.problems, [format!("{name}: required key {name} missing value")]);
    }
    for name in [
        "SERVING_SERVICE",
        "REVISION_RESPONSE_START_TIMEOUT_SECONDS",
        "REVISION_IDLE_TIMEOUT_SECONDS",
        "SERVING_READINESS_PROBE",
        "ENABLE_HTTP2_AUTO_DETECTION",
        "ENABLE_HTTP_FULL_DUPLEX",
        "ENABLE_MULTI_CONTAINER_PROBES",
        "OBSERVABILITY_CONFIG",
        "SYSTEM_NAMESPACE",
        "HOST_IP",
        "ROOT_CA",
    ] {
        without(name).unwrap();
    }
}

#[test]
fn empty_is_a_text_but_no_number_and_no_truth() {
    for name in
        ["SERVING_LOGGING_CONFIG", "SERVING_CONFIGURATION", "SERVING_POD_IP", "SERVING_READINESS_PROBE"]
    {
        with(&[(name, "")]).unwrap();
    }
    assert_eq!(with(&[("USER_PORT", "")]).unwrap().user_port, 0);
    for name in [
        "CONTAINER_CONCURRENCY",
        "REVISION_TIMEOUT_SECONDS",
        "REVISION_RESPONSE_START_TIMEOUT_SECONDS",
        "REVISION_IDLE_TIMEOUT_SECONDS",
        "ENABLE_HTTP2_AUTO_DETECTION",
        "ENABLE_HTTP_FULL_DUPLEX",
        "ENABLE_MULTI_CONTAINER_PROBES",
    ] {
        let error = with(&[(name, "")]).unwrap_err();
        assert!(error.problems.len() == 1 && error.problems[0].starts_with(name), "{error}");
    }
}

#[test]
fn numbers_and_truth_are_gos() {
    let environment = with(&[
        ("CONTAINER_CONCURRENCY", "0x10"),
        ("REVISION_TIMEOUT_SECONDS", "1_0"),
        ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0b11"),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "-4"),
        ("ENABLE_HTTP_FULL_DUPLEX", "T"),
        ("ENABLE_HTTP2_AUTO_DETECTION", "1"),
    ])
    .unwrap();
    assert_eq!(environment.container_concurrency, 16);
    assert_eq!(environment.revision_timeout, Duration::from_secs(10));
    assert_eq!(environment.response_start_timeout, Some(Duration::from_secs(3)));
    assert_eq!(environment.idle_timeout, None);
    assert!(environment.full_duplex && environment.http2_auto_detection);

    let odd = with(&[("CONTAINER_CONCURRENCY", "-1"), ("REVISION_TIMEOUT_SECONDS", "-1")]).unwrap();
    assert_eq!((odd.container_concurrency, odd.revision_timeout), (0, Duration::ZERO));
}

#[test]
fn probes_come_alone_or_in_an_array() {
    let several = with(&[
        ("ENABLE_MULTI_CONTAINER_PROBES", "true"),
        ("SERVING_READINESS_PROBE", r#"[{"httpGet":{"port":8080}},{"grpc":{"port":9000}}]"#),
    ])
    .unwrap();
    assert_eq!(several.readiness_probes.len(), 2);
    assert!(matches!(several.readiness_probes[1].check, Check::Grpc { port: 9000, .. }));
    assert!(without("SERVING_READINESS_PROBE").unwrap().readiness_probes.is_empty());
    let error = with(&[("ENABLE_MULTI_CONTAINER_PROBES", "true")]).unwrap_err();
    assert!(error.problems[0].starts_with("SERVING_READINESS_PROBE: the probes: an object where"), "{error}");
}

#[test]
fn all_problems_are_told_at_once() {
    let mut variables = given();
    variables.remove("SERVING_POD");
    for (name, value) in [
        ("CONTAINER_CONCURRENCY", "ten"),
        ("QUEUE_SERVING_PORT", "http"),
        ("USER_PORT", "65536"),
        ("ENABLE_HTTP_FULL_DUPLEX", "yes"),
        ("OBSERVABILITY_CONFIG", "{"),
        ("SERVING_READINESS_PROBE", r#"{"exec":{}}"#),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    let error = Environment::parse(variables).unwrap_err();
    let names: Vec<_> = error.problems.iter().map(|problem| problem.split(':').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "CONTAINER_CONCURRENCY",
            "ENABLE_HTTP_FULL_DUPLEX",
            "OBSERVABILITY_CONFIG",
            "QUEUE_SERVING_PORT",
            "SERVING_POD",
            "SERVING_READINESS_PROBE",
            "USER_PORT"
        ]
    );
    assert!(error.to_string().contains("required key SERVING_POD missing value"));
}

#[test]
fn optional_variables_are_kept() {
    let environment = with(&[
        ("QUEUE_PROXY_TLS_MIN_VERSION", "1.2"),
        ("QUEUE_PROXY_TLS_CURVE_PREFERENCES", "X25519"),
        ("METRICS_PROMETHEUS_PORT", "9999"),
        ("METRICS_PROMETHEUS_TLS_MAX_VERSION", "1.3"),
        ("PROFILING_PORT", "7777"),
        ("POD_NAME", "pod"),
        ("OTEL_SERVICE_NAME", "named"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_TRACES_SAMPLER", ""),
    ])
    .unwrap();
    assert_eq!(environment.tls.min_version, "1.2");
    assert_eq!(environment.tls.curve_preferences, "X25519");
    assert_eq!(environment.prometheus.port, "9999");
    assert_eq!(environment.prometheus.tls.max_version, "1.3");
    assert_eq!(environment.profiling_port, "7777");
    assert_eq!(environment.telemetry_pod, "pod");
    assert_eq!(environment.telemetry_service(), "named");
    assert_eq!(
        environment.otel.keys().collect::<Vec<_>>(),
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"]
    );

    let unnamed = with(&[("SERVING_SERVICE", ""), ("SERVING_CONFIGURATION", "")]).unwrap();
    assert_eq!(unnamed.telemetry_service(), "hello-00001");
}

proptest! {
    #[test]
    fn nothing_panics(at in 0..KNOWN.len(), value in "[-+0-9a-zA-Z_{}\\[\\]\":,. ]{0,32}|\\PC{0,32}") {
        let _ = with(&[(KNOWN[at], &value)]);
    }
}
