//! Telemetry through its public doors, with a collector that reads OpenTelemetry's own messages.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use zipline_http::{Frame, Handler, ServeLimits, serve};
use zipline_knative::Environment;

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What arrived at the collector: path, media type, message.
type Arrivals = Arc<Mutex<Vec<(String, HeaderMap, Vec<u8>)>>>;

#[derive(Debug, Clone)]
struct Collector {
    arrivals: Arrivals,
    /// Answered before everything else.
    refusals: Arc<Mutex<Vec<u16>>>,
}

impl Handler for Collector {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let message = body.collect_up_to(1 << 20).await.unwrap();
        let refusal = self.refusals.lock().pop();
        if let Some(status) = refusal {
            return Response::builder().status(status).body(Body::empty()).unwrap();
        }
        let grpc = parts.headers["content-type"] == "application/grpc";
        // The frame of gRPC: no compression, four bytes of length.
        let message = if grpc { message.slice(5..) } else { message };
        self.arrivals.lock().push((parts.uri.path().to_owned(), parts.headers, message.to_vec()));
        if !grpc {
            return Response::new(Body::empty());
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let frames = [Ok(Frame::data(vec![0; 5].into())), Ok(Frame::trailers(trailers))];
        let body = Body::from_frames(futures_util::stream::iter(frames));
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    }
}

impl Collector {
    async fn start(tasks: &Tasks) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Self { arrivals: Arc::default(), refusals: Arc::default() };
        let run = serve(listener, collector.clone(), ServeLimits::default(), tasks.clone());
        drop(tasks.spawn("collector", run));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for (path, _, message) in &*self.arrivals.lock() {
            if path.contains("race") {
                let request = ExportTraceServiceRequest::decode(message.as_slice()).unwrap();
                for resource in request.resource_spans {
                    let name = text(&resource.resource.unwrap().attributes, "kn.revision.name");
                    assert_eq!(name.as_deref(), Some("hello-00001"));
                    spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }
        }
        spans
    }
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|pair| pair.key == name)?.value.clone()?.value?;
    match value {
        any_value::Value::StringValue(text) => Some(text),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn config(observability: &str) -> TelemetryConfig {
    let pairs = [
        ("CONTAINER_CONCURRENCY", "10"),
        ("QUEUE_SERVING_PORT", "8012"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("USER_PORT", "8080"),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_SERVICE", "hello"),
        ("SERVING_CONFIGURATION", "hello"),
        ("SERVING_REVISION", "hello-00001"),
        ("SERVING_POD", "hello-00001-abc"),
        ("SERVING_POD_IP", "10.0.0.7"),
        ("OBSERVABILITY_CONFIG", observability),
    ];
    let pairs: BTreeMap<_, _> =
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    TelemetryConfig::resolve(&Environment::parse(pairs).unwrap()).unwrap()
}

fn start(config: TelemetryConfig) -> Result<(Telemetry, Exporters), PusherError> {
    start_with(config, tokio::io::sink())
}

fn start_with(
    config: TelemetryConfig,
    out: impl tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> Result<(Telemetry, Exporters), PusherError> {
    let (telemetry, mut exporters) = Telemetry::with_output(config, out)?;
    exporters.start();
    Ok((telemetry, exporters))
}

fn request(parent: Option<&'static str>) -> Request<Body> {
    let mut request = Request::builder().uri("/a?b=c").header("host", "hello.example:8012");
    if let Some(parent) = parent {
        request = request.header("traceparent", parent).header("tracestate", "v=1").header("baggage", "k=v");
    }
    request.body(Body::empty()).unwrap()
}

/// One request from its arrival to its end; gives it as the function sees it.
fn exchange(telemetry: &Telemetry, parent: Option<&'static str>, status: StatusCode) -> Request<Body> {
    let mut request = request(parent);
    let peer = Some((IpAddr::from(Ipv4Addr::LOCALHOST), 4711));
    let Some(mut recording) = telemetry.request(&mut request, peer, false) else { return request };
    recording.admitted(Some((Duration::from_millis(1), 1)));
    recording.calling();
    recording.received(3);
    recording.transferred(TransferNote {
        part: "request",
        way: "network",
        reason: None,
        bytes: Some(3),
        payload: Some("0123".to_owned()),
        peer: Some("10.0.0.9:8031".to_owned()),
    });
    recording.answered(Ok(status));
    recording.ended(Some(status), 5);
    request
}

fn tracing(protocol: &str, address: SocketAddr, rate: f64) -> String {
    format!(
        "{{\"tracing\":{{\"protocol\":\"{protocol}\",\"endpoint\":\"http://{address}\",\"samplingRate\":{rate}}}}}"
    )
}

#[tokio::test]
async fn spans_reach_a_collector_over_grpc_and_over_http() {
    for (protocol, path) in [
        ("grpc", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        ("http/protobuf", "/v1/traces"),
    ] {
        let tasks = Tasks::new();
        let (collector, address) = Collector::start(&tasks).await;
        let (telemetry, exporters) = start(config(&tracing(protocol, address, 1.0))).unwrap();
        let seen = exchange(&telemetry, Some(PARENT), StatusCode::SERVICE_UNAVAILABLE);
        exporters.flush().await;
        assert_eq!(collector.arrivals.lock()[0].0, path);

        let spans = collector.spans();
        let names: Vec<_> = spans.iter().map(|span| (span.name.as_str(), span.kind)).collect();
        let expected = [("kn.queueproxy.wait", 1), ("kn.queueproxy.proxy", 1), ("HTTP GET", 3), ("GET", 2)];
        assert_eq!(names, expected, "{protocol}");
        let [wait, proxy, client, server] = &spans[..] else { panic!("four spans") };
        // The function's caller is the client span, in the caller's own trace.
        let handed_on = seen.headers()["traceparent"].to_str().unwrap();
        let span: String = client.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(handed_on, format!("00-0af7651916cd43dd8448eb211c80319c-{span}-01"));
        assert_eq!(
            (seen.headers()["tracestate"].as_bytes(), seen.headers()["baggage"].as_bytes()),
            (&b"v=1"[..], &b"k=v"[..])
        );
        assert_eq!(server.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        let parents = (&proxy.parent_span_id, &wait.parent_span_id, &client.parent_span_id);
        assert_eq!(parents, (&server.span_id, &proxy.span_id, &wait.span_id));
        assert!(spans.iter().all(|span| span.trace_state == "v=1" && span.start_time_unix_nano > 0));
        for (name, value) in [
            ("http.request.method", "GET"),
            ("http.response.status_code", "503"),
            ("url.path", "/a"),
            ("kn.route.tag", "kn:disabled"),
            ("server.address", "hello.example"),
            ("network.peer.address", "127.0.0.1"),
            ("http.request.body.size", "3"),
            ("http.response.body.size", "5"),
            ("zipline.request.way", "network"),
            ("zipline.request.payload.id", "0123"),
            ("zipline.request.peer", "10.0.0.9:8031"),
        ] {
            assert_eq!(text(&server.attributes, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(text(&client.attributes, "url.full").as_deref(), Some("http://127.0.0.1:8080/a?b=c"));
        tasks.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn metrics_reach_a_collector_with_their_last_values() {
    let tasks = Tasks::new();
    let (collector, address) = Collector::start(&tasks).await;
    let observability = format!(
        "{{\"requestMetrics\":{{\"protocol\":\"http/protobuf\",\"endpoint\":\"http://{address}\",\"exportInterval\":60000000000}}}}"
    );
    let (telemetry, exporters) = start(config(&observability)).unwrap();
    let seen = exchange(&telemetry, None, StatusCode::OK);
    assert!(!seen.headers().contains_key("traceparent"));
    exporters.flush().await;
    let arrivals = collector.arrivals.lock();
    let [(path, headers, message)] = &arrivals[..] else { panic!("one push, the last one: {arrivals:?}") };
    assert_eq!(
        (path.as_str(), &headers["content-type"]),
        ("/v1/metrics", &HeaderValue::from_static("application/x-protobuf"))
    );
    let message = ExportMetricsServiceRequest::decode(message.as_slice()).unwrap();
    let metrics: Vec<_> =
        message.resource_metrics[0].scope_metrics.iter().flat_map(|scope| &scope.metrics).collect();
    let names: Vec<_> = metrics.iter().map(|metric| (metric.name.as_str(), metric.unit.as_str())).collect();
    assert_eq!(
        names,
        [
            ("http.client.request.body.size", "By"),
            ("http.client.request.duration", "s"),
            ("http.server.request.body.size", "By"),
            ("http.server.request.duration", "s"),
            ("http.server.response.body.size", "By"),
            ("kn.serving.invocation.duration", "s"),
            ("kn.serving.queue.depth", "{request}"),
        ]
    );
    let Some(Data::Histogram(sizes)) = &metrics[4].data else { panic!("a histogram") };
    let point = &sizes.data_points[0];
    assert_eq!(
        (sizes.aggregation_temporality, point.count, point.sum, point.bucket_counts[1]),
        (2, 1, Some(5.0), 1)
    );
    assert_eq!(text(&point.attributes, "kn.route.tag").as_deref(), Some("kn:disabled"));
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_busy_is_asked_again() {
    let tasks = Tasks::new();
    let (collector, address) = Collector::start(&tasks).await;
    collector.refusals.lock().extend([503, 429]);
    let (telemetry, exporters) = start(config(&tracing("http/protobuf", address, 1.0))).unwrap();
    exchange(&telemetry, None, StatusCode::OK);
    exporters.flush().await;
    assert_eq!(collector.spans().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_never_answers_costs_ten_seconds_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (telemetry, exporters) = start(config(&tracing("http/protobuf", address, 1.0))).unwrap();
    exchange(&telemetry, None, StatusCode::OK);
    let begun = Instant::now();
    exporters.flush().await;
    assert_eq!(begun.elapsed(), FLUSH_LIMIT);
}

#[tokio::test]
async fn spans_go_to_standard_output_as_lines() {
    let (out, mut read) = tokio::io::duplex(1 << 20);
    let (telemetry, exporters) = start_with(config("{\"tracing\":{\"protocol\":\"stdout\"}}"), out).unwrap();
    // Everything is recorded, whatever the caller decided.
    exchange(&telemetry, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), StatusCode::OK);
    exporters.flush().await;
    let mut lines = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut read, &mut lines).await.unwrap();
    let spans: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = spans.iter().map(|span| span["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kn.queueproxy.wait", "HTTP GET", "kn.queueproxy.proxy", "GET"]);
    let server = &spans[3];
    assert_eq!(server["Parent"]["SpanID"], "b7ad6b7169203331");
    assert_eq!((&server["Parent"]["Remote"], &server["SpanKind"]), (&true.into(), &2.into()));
}

#[tokio::test]
async fn off_leaves_a_request_as_it_is() {
    let (telemetry, exporters) = start(config("")).unwrap();
    assert!(telemetry.request(&mut request(Some(PARENT)), None, false).is_none());
    let seen = exchange(&telemetry, Some(PARENT), StatusCode::OK);
    assert_eq!(seen.headers()["traceparent"], PARENT);
    assert!(!exchange(&telemetry, None, StatusCode::OK).headers().contains_key("traceparent"));
    exporters.flush().await;
}

#[tokio::test]
async fn what_is_not_sampled_is_handed_on_as_such() {
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let (telemetry, exporters) = start(config(&tracing("grpc", address, 0.0))).unwrap();
    let seen = exchange(&telemetry, Some(PARENT), StatusCode::OK);
    let handed_on = seen.headers()["traceparent"].to_str().unwrap().to_owned();
    assert!(handed_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && handed_on.ends_with("-00"));
    assert_ne!(&handed_on[36..52], "b7ad6b7169203331");
    // Nothing was recorded, so nothing is pushed to where nobody listens.
    exporters.flush().await;
}

#[tokio::test]
async fn a_scrape_shows_requests_the_process_and_zipline() {
    let (telemetry, exporters) = start(config("{\"requestMetrics\":{\"protocol\":\"prometheus\"}}")).unwrap();
    exchange(&telemetry, None, StatusCode::OK);
    let zipline = zipline_runtime::Metrics::new();
    zipline.register(|registry| drop(crate::metrics::ProxyMetrics::new(registry)));
    let scrape = Scrape::new(telemetry, Arc::new(move || zipline.encode()));
    let ask = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        scrape.handle(request)
    };
    let response = ask("GET", "/metrics").await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let body = response.into_body().collect_up_to(1 << 20).await.unwrap();
    let body = std::str::from_utf8(&body).unwrap();
    for family in [
        "http_server_request_duration_seconds",
        "kn_serving_invocation_duration_seconds",
        "process_resident_memory_bytes",
        "target_info",
        "zipline_buffer_usage_bytes",
    ] {
        assert_eq!(body.matches(&format!("# TYPE {family} ")).count(), 1, "{family} in\n{body}");
    }
    assert!(!body.contains("# EOF"));
    assert_eq!(ask("POST", "/metrics").await.status(), 405);
    assert_eq!(ask("GET", "/").await.status(), 404);
    exporters.flush().await;
}

#[tokio::test]
async fn requests_are_logged_as_the_template_says_and_probes_only_if_asked_for() {
    for (probes, expected) in [(false, 1), (true, 2)] {
        let (out, mut read) = tokio::io::duplex(1 << 20);
        let observability = format!("{{\"enableRequestLog\":true,\"enableProbeRequestLog\":{probes}}}");
        let (telemetry, exporters) = start_with(config(&observability), out).unwrap();
        let seen = exchange(&telemetry, Some(PARENT), StatusCode::NOT_FOUND);
        assert_eq!(seen.headers()["traceparent"], PARENT);
        let mut probe = request(None);
        probe.headers_mut().insert("k-network-probe", HeaderValue::from_static("queue"));
        if let Some(recording) = telemetry.request(&mut probe, None, false) {
            recording.ended(Some(StatusCode::OK), 5);
        }
        exporters.flush().await;
        let mut lines = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut read, &mut lines).await.unwrap();
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), expected);
        let line = &lines[0]["httpRequest"];
        for (name, value) in [
            ("requestMethod", "GET"),
            ("requestUrl", "/a?b=c"),
            ("requestSize", "0"),
            ("responseSize", "5"),
            ("remoteIp", "127.0.0.1:4711"),
            ("serverIp", "10.0.0.7"),
            ("protocol", "HTTP/1.1"),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        assert_eq!(
            (&line["status"], &lines[0]["traceId"]),
            (&404.into(), &"0af7651916cd43dd8448eb211c80319c".into())
        );
    }
}

#[tokio::test]
async fn probes_are_not_counted() {
    let (telemetry, exporters) = start(config("{\"requestMetrics\":{\"protocol\":\"prometheus\"}}")).unwrap();
    let mut probe = request(None);
    probe.headers_mut().insert("user-agent", HeaderValue::from_static("kube-probe/1.30"));
    assert!(telemetry.request(&mut probe, None, false).is_none());
    exporters.flush().await;
}
