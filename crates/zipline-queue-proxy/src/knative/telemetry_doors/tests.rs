//! A whole pod's queue-proxy with telemetry, on free ports.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zipline_http::{Body, Client, ClientConfig, Handler, Target};
use zipline_knative::{Environment, PodSettings};

use super::super::{FixedPorts, KnativeServer, TrustFiles};
use super::*;

/// Path, headers and body of what came.
type Seen = (String, HeaderMap, Vec<u8>);

/// Answers everything and keeps the headers; as a collector, the bodies too.
#[derive(Debug, Clone, Default)]
struct Keeper {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Handler for Keeper {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect_up_to(1 << 20).await.unwrap();
        self.seen.lock().push((parts.uri.to_string(), parts.headers, body.to_vec()));
        Response::new(Body::full("hello"))
    }
}

impl Keeper {
    async fn start(tasks: &Tasks) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keeper = Self::default();
        let run = serve(listener, keeper.clone(), ServeLimits::default(), tasks.clone());
        drop(tasks.spawn("keeper", run));
        (keeper, address)
    }
}

fn config(user_port: u16, observability: &str) -> KnativeConfig {
    let user_port = user_port.to_string();
    let pairs = [
        ("CONTAINER_CONCURRENCY", "1"),
        ("QUEUE_SERVING_PORT", "8012"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("USER_PORT", &user_port),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_CONFIGURATION", "hello"),
        ("SERVING_REVISION", "hello-00001"),
        ("SERVING_POD", "hello-00001-abc"),
        ("SERVING_POD_IP", "127.0.0.1"),
        ("OBSERVABILITY_CONFIG", observability),
    ];
    let pairs: BTreeMap<_, _> =
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut environment = Environment::parse(pairs).unwrap();
    environment.serving_port = 0;
    let ports =
        FixedPorts { admin: 0, stats: 0, local_api: 0, data: 0, status: 0, user_metrics: 0, profiling: 0 };
    KnativeConfig {
        environment,
        pod: PodSettings::default(),
        budgets: crate::config::Budgets::default(),
        listen_ip: Ipv4Addr::LOCALHOST.into(),
        ports,
        socket: format!("@zipline-telemetry-{}-{user_port}", std::process::id()).into(),
        certificate: CertificateFiles {
            certificate: "/nowhere".into(),
            key: "/nowhere".into(),
            every: CERTIFICATE_POLL,
        },
        trust: TrustFiles::new(None, None),
        quiet: Duration::ZERO,
    }
}

async fn get(
    client: &Client,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, String) {
    let mut request = Request::builder().uri(path).header("host", "hello.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = client.send(&Target::http1(address), request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect_up_to(1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_request_is_counted_and_traced_through_the_whole_chain() {
    let tasks = Tasks::new();
    let (function, function_at) = Keeper::start(&tasks).await;
    let (collector, collector_at) = Keeper::start(&tasks).await;
    let observability = format!(
        "{{\"requestMetrics\":{{\"protocol\":\"prometheus\"}},\"runtime\":{{\"profiling\":\"enabled\"}},\
         \"tracing\":{{\"protocol\":\"http/protobuf\",\"endpoint\":\"http://{collector_at}\",\"samplingRate\":1}}}}"
    );
    let server = KnativeServer::bind(config(function_at.port(), &observability)).unwrap();
    let (addresses, ending) = (server.addresses(), CancellationToken::new());
    let running = tasks.spawn("queue-proxy", server.run(ending.clone()));
    let client = Client::new(ClientConfig::default(), tasks.clone());

    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = get(&client, addresses.serving, "/a", &[("traceparent", parent)]).await;
    assert_eq!(answer, (StatusCode::OK, "hello".to_owned()));
    // Probes leave no trace, in either meaning.
    let probe = [("user-agent", "kube-probe/1.30"), ("k-network-probe", "queue")];
    get(&client, addresses.serving, "/", &probe).await;
    let handed_on = function.seen.lock()[0].1["traceparent"].to_str().unwrap().to_owned();
    assert!(
        handed_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && handed_on != parent,
        "{handed_on}"
    );

    let (status, metrics) = get(&client, addresses.user_metrics.unwrap(), "/metrics", &[]).await;
    assert_eq!(status, StatusCode::OK);
    let count = |name: &str, label: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name) && line.contains(label));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).rsplit_once(' ').unwrap().1.to_owned()
    };
    for name in [
        "http_server_request_duration_seconds_count",
        "http_client_request_duration_seconds_count",
        "kn_serving_invocation_duration_seconds_count",
    ] {
        assert_eq!(count(name, "http_response_status_code=\"200\""), "1", "{name}");
    }
    assert_eq!(count("kn_serving_queue_depth", ""), "1");
    assert_eq!(count("http_server_response_body_size_bytes_sum", "server_address=\"hello.example\""), "5");
    // What the buffer holds is read off at the scrape.
    assert_eq!(count("zipline_buffer_usage_bytes", ""), "0");
    let (status, _) = get(&client, addresses.profiling.unwrap(), "/debug/pprof/heap", &[]).await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);

    drop(client);
    ending.cancel();
    running.await.unwrap();
    let arrived = collector.seen.lock();
    let [(path, _, message)] = &arrived[..] else { panic!("one push at the end") };
    assert_eq!(path, "/v1/traces");
    // The words of the spans stand in the message as they are.
    for word in ["kn.queueproxy.wait", "kn.queueproxy.proxy", "HTTP GET", "hello.example", "hello-00001"] {
        assert!(message.windows(word.len()).any(|bytes| bytes == word.as_bytes()), "{word}");
    }
}

#[tokio::test]
async fn without_configuration_nothing_listens_and_a_trace_passes_untouched() {
    let tasks = Tasks::new();
    let (function, function_at) = Keeper::start(&tasks).await;
    let server = KnativeServer::bind(config(function_at.port(), "")).unwrap();
    let addresses = server.addresses();
    assert_eq!((addresses.user_metrics, addresses.profiling), (None, None));
    let ending = CancellationToken::new();
    let running = tasks.spawn("queue-proxy", server.run(ending.clone()));
    let client = Client::new(ClientConfig::default(), tasks.clone());
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    get(&client, addresses.serving, "/", &[("traceparent", parent)]).await;
    get(&client, addresses.serving, "/", &[]).await;
    let seen: Vec<_> =
        function.seen.lock().iter().map(|(_, headers, _)| headers.get("traceparent").cloned()).collect();
    assert_eq!(seen, [Some(parent.parse().unwrap()), None]);
    drop(client);
    ending.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_is_refused_at_the_start() {
    for observability in [
        "{\"enableRequestLog\":true,\"requestLogTemplate\":\"{{.Request.Body}}\"}",
        "{\"tracing\":{\"protocol\":\"grpc\"}}",
        "{\"requestMetrics\":{\"protocol\":\"prometheus\",\"endpoint\":\"nowhere\"}}",
    ] {
        let refused = KnativeServer::bind(config(8080, observability)).unwrap_err();
        assert!(matches!(refused, KnativeBindError::Telemetry(_)), "{observability}: {refused:?}");
    }
}
