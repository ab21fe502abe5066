//! The assembled server in this process, on loopback. Other modules' tests use [`Proxy`] too.

use std::collections::BTreeMap;

use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use zipline_http::{Body, Target};
use zipline_protocol::control::KeyringMessage;
use zipline_runtime::Task;

use super::*;

pub(crate) const TOKEN: &str = "0123456789abcdefTOKEN";

/// A guest's settings, changed by `variables`.
pub(crate) fn config(variables: &[(&str, &str)]) -> Config {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in [("ZIPLINE_GUEST", "1"), ("ZIPLINE_TOKEN", TOKEN)].iter().chain(variables) {
        all.insert((*name).to_owned(), (*value).to_owned());
    }
    Config::parse(all, crate::config::Budgets::default()).unwrap()
}

/// Keys of a tenant, the same for every queue-proxy of a test.
pub(crate) fn install_keys(keyring: &Keyring, tenant: &str) {
    let secret = if tenant == "default" { "A" } else { "E" }.repeat(43);
    let message: KeyringMessage = serde_json::from_value(serde_json::json!({
        "tenant": tenant, "keys": [{"serial": 1, "secret": secret}], "seal_with": 1,
    }))
    .unwrap();
    keys::install(keyring, &message).unwrap();
}

/// What the doors share, with keys, and with nothing running.
pub(crate) async fn shared(variables: &[(&str, &str)]) -> Arc<Shared> {
    let server = Server::bind(config(variables)).await.unwrap();
    install_keys(&server.shared.keyring, server.shared.config.function.namespace());
    Arc::clone(&server.shared)
}

/// A queue-proxy that runs.
pub(crate) struct Proxy {
    pub(crate) shared: Arc<Shared>,
    pub(crate) addresses: Addresses,
    orders: mpsc::Sender<DrainOrder>,
    running: Task<()>,
    client: Client,
    _tasks: Tasks,
}

impl Proxy {
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_reporting(variables, Reports::to_nobody()).await
    }

    async fn start_reporting(variables: &[(&str, &str)], reports: Reports) -> Self {
        let server = Server::bind(config(variables)).await.unwrap();
        install_keys(&server.shared.keyring, server.shared.config.function.namespace());
        let (orders, received) = mpsc::channel(2);
        let tasks = Tasks::new();
        Self {
            shared: Arc::clone(&server.shared),
            addresses: server.addresses,
            orders,
            running: tasks.spawn("server", server.run(reports, received)),
            client: Client::new(ClientConfig::default(), tasks.clone()),
            _tasks: tasks,
        }
    }

    pub(crate) async fn drain(&self, grace: Duration) {
        self.orders.send(DrainOrder { grace }).await.unwrap();
    }

    pub(crate) async fn ended(self) {
        self.running.await.unwrap();
    }

    /// Sends a request to the local API, with its token.
    pub(crate) async fn api(&self, mut request: Request<Body>) -> Response<Body> {
        request.headers_mut().insert("zipline-token", TOKEN.parse().unwrap());
        self.send(self.addresses.api, request).await
    }

    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let response = self.send(self.addresses.admin, Request::get(path).body(Body::empty()).unwrap()).await;
        (response.status().as_u16(), text(response).await)
    }

    async fn send(&self, to: SocketAddr, mut request: Request<Body>) -> Response<Body> {
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", to.to_string().parse().unwrap());
        }
        self.client.send(&Target::http1(to), request).await.unwrap()
    }

    /// Puts `payload` and gives its reference.
    pub(crate) async fn put(&self, query: &str, payload: impl Into<bytes::Bytes>) -> String {
        let uri = format!("/v1/payloads{query}");
        let response = self.api(Request::post(uri).body(Body::full(payload)).unwrap()).await;
        assert_eq!(response.status(), 201);
        response.headers()["zipline-reference"].to_str().unwrap().to_owned()
    }

    pub(crate) async fn get(&self, reference: &str) -> Response<Body> {
        self.api(
            Request::get("/v1/payload").header("zipline-reference", reference).body(Body::empty()).unwrap(),
        )
        .await
    }
}

pub(crate) async fn bytes(response: Response<Body>) -> bytes::Bytes {
    response.into_body().collect_up_to(1 << 26).await.unwrap()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    String::from_utf8(bytes(response).await.to_vec()).unwrap()
}

/// Waits until `reached` is true, by letting everything else run.
pub(crate) async fn until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_admin_port_answers() {
    let proxy = Proxy::start(&[("ZIPLINE_MODE", "receive"), ("SERVING_NAMESPACE", "vid")]).await;
    assert_eq!(proxy.admin("/healthz").await.0, 200);
    assert_eq!(proxy.admin("/readyz").await.0, 200);
    assert_eq!(proxy.admin("/nothing").await.0, 404);
    proxy.put("?retrievals=3", "12345").await;
    let (_, metrics) = proxy.admin("/metrics").await;
    assert!(metrics.contains("zipline_buffer_payloads 1\n"), "{metrics}");
    let status: serde_json::Value = serde_json::from_str(&proxy.admin("/status").await.1).unwrap();
    assert_eq!(status["service"], "guest");
    assert_eq!(status["namespace"], "vid");
    assert_eq!(status["mode"], "receive");
    assert_eq!((&status["ready"], &status["draining"]), (&true.into(), &false.into()));
    assert_eq!(status["held"]["payloads"], 1);
    assert!(status["held"]["bytes"].as_u64().unwrap() >= 5);
    assert!(status["in_flight"]["budget_bytes"].as_u64().unwrap() > 0);
    let payload = &status["payloads"][0];
    assert_eq!(
        (&payload["kind"], &payload["length"], &payload["retrievals_left"]),
        (&"put".into(), &5.into(), &3.into())
    );
    assert!(payload["expires_in_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(status["transfers"]["edges"], serde_json::json!([]));
}

#[tokio::test]
async fn a_server_that_holds_nothing_ends_at_once() {
    let (stream, engine) = tokio::io::duplex(4096);
    let (reports, speaker, _listener) = crate::control::open(stream);
    let proxy = Proxy::start_reporting(&[], reports).await;
    proxy.drain(Duration::from_secs(600)).await;
    let addresses = proxy.addresses;
    let (lines, (), ()) = tokio::join!(lines(engine, 2), proxy.ended(), speaker.run());
    assert!(lines[0].starts_with(r#"{"type":"listening","inbound":null,"api":"#), "{lines:?}");
    assert!(lines[0].contains(&addresses.data.to_string()));
    assert_eq!(lines[1], r#"{"type":"drained"}"#);
    assert!(TcpStream::connect(addresses.api).await.is_err());
}

async fn lines(stream: impl tokio::io::AsyncRead + Unpin, count: usize) -> Vec<String> {
    use tokio::io::AsyncBufReadExt as _;
    let mut lines = tokio::io::BufReader::new(stream).lines();
    let mut all = Vec::new();
    while all.len() < count {
        all.push(lines.next_line().await.unwrap().unwrap());
    }
    all
}

#[tokio::test]
async fn a_held_payload_is_served_while_draining_and_ends_it_once_retrieved() {
    let (holder, receiver) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    let reference = holder.put("?ttl=30s", vec![7; 300_000]).await;
    holder.drain(Duration::from_secs(600)).await;
    holder.shared.lifecycle.reached(Phase::Keeping).await;
    assert_eq!(holder.admin("/readyz").await.0, 503);
    assert_eq!(bytes(receiver.get(&reference).await).await.len(), 300_000);
    holder.ended().await;
}

#[tokio::test]
async fn a_put_while_draining_expires_with_the_grace() {
    let proxy = Proxy::start(&[]).await;
    proxy.put("?ttl=30s", "keeps it alive").await;
    proxy.drain(Duration::from_secs(20)).await;
    proxy.shared.lifecycle.reached(Phase::Draining).await;
    let response = proxy.api(Request::post("/v1/payloads?ttl=1h").body(Body::full("late")).unwrap()).await;
    let answer: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(answer["bounded_by"], "drain");
    assert!(answer["ttl_seconds"].as_f64().unwrap() <= 20.0);
    // Nobody retrieves it: a second order ends the wait.
    proxy.drain(Duration::ZERO).await;
    proxy.ended().await;
}

#[tokio::test]
async fn the_unix_socket_is_the_same_api() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api");
    let proxy = Proxy::start(&[("ZIPLINE_SOCKET", path.to_str().unwrap())]).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let request = format!(
        "GET /openapi.yaml HTTP/1.1\r\nHost: localhost\r\nZipline-Token: {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    proxy.drain(Duration::ZERO).await;
    proxy.ended().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = Server::bind(config(&[("ZIPLINE_API_PORT", &port)])).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the local API cannot listen on 127.0.0.1:{port}"));
}

#[tokio::test]
async fn requests_that_run_are_finished_before_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let (asked, mut is_asked) = mpsc::channel(1);
    let may_answer = Arc::new(tokio::sync::Notify::new());
    let answers = Arc::clone(&may_answer);
    let function = zipline_http::handler_fn(move |_: Request<Body>| {
        let (asked, answers) = (asked.clone(), Arc::clone(&answers));
        async move {
            asked.send(()).await.unwrap();
            answers.notified().await;
            Response::new(Body::full("finished"))
        }
    });
    let tasks = Tasks::new();
    drop(tasks.spawn("function", serve(listener, function, ServeLimits::default(), tasks.clone())));

    let (stream, engine) = tokio::io::duplex(4096);
    let (reports, speaker, _listener) = crate::control::open(stream);
    drop(tasks.spawn("reports", speaker.run()));
    let function = [("ZIPLINE_GUEST", "0"), ("USER_PORT", &port), ("SERVING_SERVICE", "recog")];
    let proxy = Proxy::start_reporting(&function, reports).await;
    let inbound = proxy.addresses.inbound.unwrap();
    let request = Request::get("/").body(Body::empty()).unwrap();
    let running = async {
        let response = proxy.send(inbound, request).await;
        (response.status().as_u16(), text(response).await)
    };
    let drains = async {
        is_asked.recv().await.unwrap();
        assert_eq!(proxy.admin("/readyz").await.0, 200);
        proxy.drain(Duration::from_secs(600)).await;
        proxy.shared.lifecycle.reached(Phase::Draining).await;
        assert_eq!(proxy.admin("/readyz").await.0, 503);
        while TcpStream::connect(inbound).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(proxy.shared.lifecycle.phase(), Phase::Draining, "a request still runs");
        may_answer.notify_one();
    };
    let ((status, answer), ()) = tokio::join!(running, drains);
    assert_eq!((status, answer.as_str()), (200, "finished"));
    let ((), lines) = tokio::join!(proxy.ended(), lines(engine, 4));
    let kinds: Vec<_> = lines.iter().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert_eq!(kinds, ["listening", "ready", "not_ready", "drained"]);
}
