//! A whole queue-proxy of a pod in this process, on ports of its own, before a function of the test's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use zipline_http::{Body, Client, ClientConfig, ServeLimits, Target, handler_fn, serve};
use zipline_knative::Environment;
use zipline_protocol::sdk;
use zipline_runtime::{Task, Tasks};
use zipline_seal::new_boot_id;

use super::*;

fn variables(user_port: u16, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let user_port = user_port.to_string();
    let all = [
        ("CONTAINER_CONCURRENCY", "0"),
        ("QUEUE_SERVING_PORT", "0"),
        ("QUEUE_SERVING_TLS_PORT", "0"),
        ("USER_PORT", user_port.as_str()),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_CONFIGURATION", "hello"),
        ("SERVING_REVISION", "hello-00001"),
        ("SERVING_POD", "hello-pod"),
        ("SERVING_POD_IP", "127.0.0.1"),
    ];
    all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn config(user_port: u16, more: &[(&str, &str)]) -> KnativeConfig {
    let environment = Environment::parse(variables(user_port, more)).unwrap();
    let mut config =
        KnativeConfig::read(environment, &Variables::default(), crate::config::Budgets::default());
    config.listen_ip = "127.0.0.1".parse().unwrap();
    config.ports =
        FixedPorts { admin: 0, stats: 0, local_api: 0, data: 0, status: 0, user_metrics: 0, profiling: 0 };
    config.socket = format!("@zipline-test-{}-{user_port}", std::process::id()).into();
    config.quiet = Duration::from_millis(100);
    config
}

struct Pod {
    at: KnativeAddresses,
    ending: CancellationToken,
    running: Task<()>,
    client: Client,
    _tasks: Tasks,
}

impl Pod {
    async fn start<A, F>(answer: A, more: &[(&str, &str)], change: impl FnOnce(&mut KnativeConfig)) -> Self
    where
        A: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send,
    {
        let tasks = Tasks::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let function = serve(listener, handler_fn(answer), ServeLimits::default(), tasks.clone());
        drop(tasks.spawn("function", function));
        Self::before(port, more, change, tasks)
    }

    fn before(
        port: u16,
        more: &[(&str, &str)],
        change: impl FnOnce(&mut KnativeConfig),
        tasks: Tasks,
    ) -> Self {
        let mut config = config(port, more);
        change(&mut config);
        let server = KnativeServer::bind(config).unwrap();
        let (at, ending) = (server.addresses(), CancellationToken::new());
        let running = tasks.spawn("queue-proxy", server.run(ending.clone()));
        let client = Client::new(ClientConfig::default(), tasks.clone());
        Self { at, ending, running, client, _tasks: tasks }
    }

    async fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> (u16, HeaderMap, String) {
        self.ask(&Target::http1(self.at.serving), path, headers).await
    }

    async fn ask(
        &self,
        target: &Target,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> (u16, HeaderMap, String) {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (parts, body) = self.client.send(target, request).await.unwrap().into_parts();
        let body = body.collect_up_to(1 << 20).await.unwrap();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn health(&self) -> u16 {
        self.get("/", &[("user-agent", "kube-probe/1"), ("k-network-probe", "queue")]).await.0
    }
}

/// Gives its request back as text.
async fn mirror(request: Request<Body>) -> Response<Body> {
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri().path(), request.version());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    Response::new(Body::full(text))
}

/// Sends bytes and reads to the end.
async fn raw(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // Whoever answers early need not read all of it.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_pass_and_what_is_knatives_own_does_not() {
    let pod = Pod::start(mirror, &[], |_| {}).await;
    let headers = [
        ("host", "10.0.0.1"),
        ("k-original-host", "a.b.svc"),
        ("knative-serving-revision", "r"),
        ("k-proxy-request", "activator"),
        ("x-forwarded-for", "1.2.3.4"),
        ("zipline-anything", "1"),
        // Without the user agent of a probe it is none.
        ("k-network-probe", "queue"),
    ];
    let (status, answered, text) = pod.get("/a", &headers).await;
    assert_eq!(status, 200);
    assert_eq!(answered["content-type"], "text/plain; charset=utf-8");
    assert!(!answered.contains_key("zipline-version"), "nothing of Zipline without keys: {answered:?}");
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "GET /a HTTP/1.1",
            "forwarded: for=1.2.3.4",
            "host: a.b.svc",
            "k-network-probe: queue",
            "k-proxy-request: activator",
            "x-forwarded-for: 1.2.3.4, 127.0.0.1",
        ]
    );
    let (_, _, text) = pod.ask(&Target::http2(pod.at.serving), "/b", &[]).await;
    assert!(text.starts_with("GET /b HTTP/2.0\n"), "{text}");
}

#[tokio::test]
async fn names_of_fields_are_written_as_go_writes_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pod = Pod::before(listener.local_addr().unwrap().port(), &[], |_| {}, Tasks::new());
    let asks = raw(pod.at.serving, "GET / HTTP/1.1\r\nhost: a\r\nx-foo: 1\r\nconnection: close\r\n\r\n");
    let answers = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let mut length = 0;
        while !head[..length].ends_with(b"\r\n\r\n") {
            length += stream.read(&mut head[length..]).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 201 Created\r\nx-bar: 2\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(head[..length].to_vec()).unwrap()
    };
    let (answer, head) = tokio::join!(asks, answers);
    assert!(head.contains("\r\nX-Foo: 1\r\n"), "{head}");
    assert!(answer.contains("\r\nX-Bar: 2\r\n") && answer.contains("\r\nDate: "), "{answer}");
}

#[tokio::test]
async fn a_function_that_is_not_there_is_a_502_in_gos_words() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let pod = Pod::before(port, &[], |_| {}, Tasks::new());
    let (status, headers, text) = pod.get("/", &[]).await;
    assert_eq!((status, text), (502, format!("dial tcp 127.0.0.1:{port}: connect: connection refused\n")));
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn health_is_the_functions_and_is_asked_only_when_somebody_asks() {
    let probe = r#"{"httpGet":{"path":"/ready"},"periodSeconds":1,"timeoutSeconds":10}"#;
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let function = move |_: Request<Body>| {
        let at = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move { Response::builder().status(if at == 0 { 500 } else { 200 }).body(Body::empty()).unwrap() }
    };
    let pod = Pod::start(function, &[("SERVING_READINESS_PROBE", probe)], |_| {}).await;
    assert_eq!(pod.health().await, 503);
    assert_eq!(pod.health().await, 200);
    let (status, _, text) = pod.get("/", &[("user-agent", "kube-probe/1")]).await;
    assert_eq!((status, text.as_str()), (400, "unexpected probe header value: \n"));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_takes_too_long_is_a_504() {
    let function = async |_: Request<Body>| std::future::pending().await;
    let pod = Pod::start(function, &[], |config| {
        config.environment.revision_timeout = Duration::from_millis(50);
    })
    .await;
    let (status, headers, text) = pod.get("/", &[]).await;
    assert_eq!((status, text.as_str()), (504, "request timeout"));
    assert!(!headers.contains_key("x-content-type-options"));
}

#[tokio::test]
async fn a_response_that_has_started_ends_cleanly_with_the_text() {
    let function = async |_: Request<Body>| {
        let (sender, body) = Body::channel(1);
        sender.send("begun ".into()).await.unwrap();
        // Never finished, never dropped.
        std::mem::forget(sender);
        Response::builder().header("content-type", "a/b").body(body).unwrap()
    };
    let pod = Pod::start(function, &[], |config| {
        config.environment.revision_timeout = Duration::from_millis(100);
    })
    .await;
    for target in [Target::http1(pod.at.serving), Target::http2(pod.at.serving)] {
        let (status, _, text) = pod.ask(&target, "/", &[]).await;
        assert_eq!((status, text.as_str()), (200, "begun request timeout"));
    }
}

#[tokio::test]
async fn eleven_times_the_concurrency_is_admitted() {
    let gate = Arc::new(Semaphore::new(0));
    let (opened, entered) = (Arc::clone(&gate), Arc::new(Notify::new()));
    let enters = Arc::clone(&entered);
    let function = move |_: Request<Body>| {
        let (opened, enters) = (Arc::clone(&opened), Arc::clone(&enters));
        async move {
            enters.notify_one();
            opened.acquire().await.unwrap().forget();
            Response::new(Body::empty())
        }
    };
    let pod = Arc::new(Pod::start(function, &[("CONTAINER_CONCURRENCY", "1")], |_| {}).await);
    let (refused, mut refusals) = tokio::sync::mpsc::channel(20);
    let all = futures_util::future::join_all((0..12).map(|_| {
        let (pod, refused) = (Arc::clone(&pod), refused.clone());
        async move {
            let answer = pod.get("/", &[]).await;
            if answer.0 == 503 {
                refused.send(answer.2).await.unwrap();
            }
        }
    }));
    let opens = async {
        entered.notified().await;
        assert_eq!(refusals.recv().await.unwrap(), "pending request queue full\n");
        gate.add_permits(11);
    };
    tokio::join!(all, opens);
    assert!(refusals.try_recv().is_err(), "only one is too many");
}

#[tokio::test]
async fn an_upgrade_to_h2c_answers_on_stream_one() {
    let pod = Pod::start(mirror, &[], |_| {}).await;
    let mut stream = TcpStream::connect(pod.at.serving).await.unwrap();
    let ask = "POST /up HTTP/1.1\r\nHost: a\r\nX-Long: @\r\nContent-Length: 3\r\nUpgrade: h2c\r\n\
        Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\nabc"
        .replace('@', &"v".repeat(300));
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let (mut status, mut body) = (None, Vec::new());
    loop {
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.unwrap();
        let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        let on_one = frame[5..] == [0, 0, 0, 1];
        match frame[3] {
            // 0x88 is `:status: 200` of the static table.
            1 if on_one => status = payload.first().copied(),
            0 if on_one => body.extend(payload),
            _ => {}
        }
        if on_one && frame[4] & 1 == 1 {
            break;
        }
    }
    assert_eq!(status, Some(0x88));
    let body = String::from_utf8(body).unwrap();
    assert!(body.starts_with("POST /up HTTP/2.0\n") && body.contains("content-length: 3\n"), "{body}");
    assert!(!body.contains("upgrade") && !body.contains("http2-settings"), "{body}");
}

#[tokio::test]
async fn without_full_duplex_a_request_is_thrown_away_before_its_response() {
    // Answers as soon as something comes and reads no further, so that the rest stays on its way.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, tasks) = (listener.local_addr().unwrap().port(), Tasks::new());
    drop(tasks.spawn("function", async move {
        let mut connections = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            connections.push(stream);
        }
    }));
    let pod = Pod::before(port, &[], |_| {}, tasks);
    let post = |length: usize| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length))
    };
    let next = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let short = raw(pod.at.serving, &(post(1000) + next)).await;
    assert_eq!(short.matches("HTTP/1.1 413 ").count(), 2, "the connection serves on: {short}");
    // More than all the sockets' buffers take.
    let long = raw(pod.at.serving, &post(64 << 20)).await;
    assert!(long.starts_with("HTTP/1.1 413 ") && long.contains("\r\nConnection: close\r\n"), "{long}");
}

#[tokio::test]
async fn upgraded_connections_end_at_the_absolute_limit() {
    let function = async |mut request: Request<Body>| {
        let upgraded = zipline_http::upgrade::on(&mut request);
        let echo = async move {
            let mut stream = zipline_http::upgrade::into_stream(upgraded).await.unwrap();
            let mut text = [0; 4];
            stream.read_exact(&mut text).await.unwrap();
            stream.write_all(&text).await.unwrap();
            std::future::pending::<()>().await;
        };
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        drop(tokio::spawn(echo));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        zipline_http::hop::set_upgrade(response.headers_mut(), "echo".parse().unwrap());
        response
    };
    let pod = Pod::start(function, &[], |config| {
        config.environment.idle_timeout = Some(Duration::from_millis(300));
    })
    .await;
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nping";
    let answer = raw(pod.at.serving, ask).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\nping"), "{answer}");
}

#[tokio::test]
async fn the_end_keeps_serving_until_it_is_quiet() {
    let gate = Arc::new(Semaphore::new(0));
    let (opened, entered) = (Arc::clone(&gate), Arc::new(Notify::new()));
    let enters = Arc::clone(&entered);
    let function = move |request: Request<Body>| {
        let (opened, enters) = (Arc::clone(&opened), Arc::clone(&enters));
        async move {
            if request.uri().path() == "/slow" {
                enters.notify_one();
                opened.acquire().await.unwrap().forget();
            }
            Response::new(Body::full("done"))
        }
    };
    let pod = Pod::start(function, &[], |_| {}).await;
    let slow = pod.get("/slow", &[]);
    let ends = async {
        entered.notified().await;
        assert_eq!(pod.health().await, 200);
        pod.ending.cancel();
        while pod.health().await == 200 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pod.get("/", &[]).await.2, "done", "requests are served in the quiet period");
        // The listener goes when the quiet period is over; what runs goes on.
        while TcpStream::connect(pod.at.serving).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!pod.running.is_finished());
        gate.add_permits(1);
    };
    let (slow, ()) = tokio::join!(slow, ends);
    assert_eq!((slow.0, slow.2.as_str()), (200, "done"));
    pod.running.await.unwrap();
}

#[tokio::test]
async fn the_autoscaler_is_served_and_kubelet_is_told() {
    let pod = Pod::start(mirror, &[], |_| {}).await;
    let (status, headers, text) = pod.ask(&Target::http1(pod.at.stats), "/metrics", &[]).await;
    assert_eq!((status, &headers["content-type"]), (200, &"application/protobuf".parse().unwrap()));
    assert!(text.contains("hello-pod"));
    pod.ending.cancel();
    let (status, _, text) = pod.ask(&Target::http1(pod.at.admin), "/wait-for-drain", &[]).await;
    assert_eq!((status, text.as_str()), (200, ""));
    pod.running.await.unwrap();
}

/// The kind of the first frame after a hello at the SDK's socket.
async fn welcome(path: &Path) -> u8 {
    use std::os::linux::net::SocketAddrExt as _;
    let name = path.to_str().unwrap().strip_prefix('@').unwrap();
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let stream = std::os::unix::net::UnixStream::connect_addr(&address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(stream).unwrap();
    let mut hello = sdk::PREFACE.to_vec();
    sdk::Request::Hello { version: sdk::VERSION, token: b"pod" }.write(&mut hello);
    stream.write_all(&hello).await.unwrap();
    let mut head = [0; sdk::HEAD_BYTES];
    stream.read_exact(&mut head).await.unwrap();
    sdk::FrameHead::read(&head).unwrap().unwrap().kind
}

#[tokio::test]
async fn sdks_find_a_socket_without_a_file_and_its_loss_costs_nothing_else() {
    let path = PathBuf::from(format!("@zipline-pod-{}", std::process::id()));
    let at = path.clone();
    let pod = Pod::start(mirror, &[], move |config| config.socket = at).await;
    let mut taken = Vec::new();
    sdk::Answer::Welcome(sdk::Welcome {
        version: 0,
        boot: new_boot_id(),
        tenant: "",
        inline_max: 0,
        payload_max: 0,
    })
    .write(&mut taken);
    assert_eq!(welcome(&path).await, sdk::FrameHead::read(&taken).unwrap().unwrap().kind);
    // One name, one queue-proxy: the second does without.
    let second = Pod::start(mirror, &[], move |config| config.socket = path).await;
    assert_eq!(second.get("/", &[]).await.0, 200);
    assert_eq!(pod.get("/", &[]).await.0, 200);
}

#[tokio::test]
async fn a_taken_port_of_ours_is_done_without_and_one_of_knatives_is_not() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut ours = config(1, &[]);
    (ours.ports.local_api, ours.ports.data, ours.ports.status) = (port, port, port);
    let at = KnativeServer::bind(ours).unwrap().addresses();
    assert_eq!((at.local_api, at.data, at.status), (None, None, None));
    let mut knatives = config(1, &[]);
    knatives.ports.admin = port;
    let error = KnativeServer::bind(knatives).unwrap_err();
    assert_eq!(error.to_string(), format!("admin server failed to serve: listen tcp 127.0.0.1:{port}"));
}

#[tokio::test]
async fn with_a_certificate_both_protocols_come_over_tls_and_plain_stays() {
    use rustls::pki_types::ServerName;
    let folder = tempfile::tempdir().unwrap();
    let name = "data-plane.knative.dev";
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let files = CertificateFiles {
        certificate: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
        every: Duration::from_secs(60),
    };
    std::fs::write(&files.certificate, tls::tests::pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(&files.key, tls::tests::pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    let pod = Pod::start(mirror, &[], |config| config.certificate = files).await;
    let at = pod.at.serving_tls.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let connect = async |protocol: &[u8]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(at).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        stream
    };
    let mut stream = connect(b"http/1.1").await;
    stream.write_all(b"GET /tls HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("GET /tls HTTP/1.1\n"), "{answer}");
    drop(connect(b"h2").await);
    assert_eq!(pod.get("/", &[]).await.0, 200);
    let plain = raw(at, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{plain}");
}
