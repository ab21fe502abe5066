use super::*;
use ::http::{HeaderMap, Request, Response, StatusCode, Version};
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use zipline_http::{Body, Frame, ServeLimits, handler_fn, serve};

/// A function that answers by `answer` and counts what it was asked.
struct Function {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Function {
    async fn answering<A, F>(answer: A) -> Self
    where
        A: Fn(usize, Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let handler = handler_fn(move |request| answer(count.fetch_add(1, Ordering::SeqCst), request));
        let tasks = Tasks::new();
        drop(tasks.spawn("function", serve(listener, handler, ServeLimits::default(), tasks.clone())));
        Self { address, asked, tasks }
    }

    fn prober(&self, probe: &str, detect_http2: bool) -> Prober {
        let probes = Probe::parse_all(probe, probe.starts_with('['), self.address.port()).unwrap();
        Prober::new(probes, detect_http2, TrustFiles::new(None, None), self.tasks.clone())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn status(status: u16) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

const ONCE: &str = r#"{"httpGet":{"path":"/ready?a=b","httpHeaders":[{"name":"x-probe","value":"1"}]},"periodSeconds":1,"timeoutSeconds":10}"#;

#[tokio::test]
async fn without_a_probe_it_is_ready() {
    let function = Function::answering(async |_, _| status(500)).await;
    assert!(function.prober("", false).is_ready().await);
    assert_eq!(function.asked(), 0);
}

#[tokio::test]
async fn a_probe_with_a_period_is_one_request_in_kubelets_form() {
    let function = Function::answering(async |at, request: Request<Body>| {
        let headers = request.headers();
        assert_eq!((request.uri().to_string().as_str(), request.version()), ("/ready?a=b", Version::HTTP_11));
        assert_eq!(headers["user-agent"], "kube-probe//");
        assert_eq!(headers["x-probe"], "1");
        status([399, 400, 200][at])
    })
    .await;
    let prober = function.prober(ONCE, false);
    for ready in [true, false, true] {
        assert_eq!(prober.is_ready().await, ready);
    }
    assert_eq!(function.asked(), 3);
}

#[tokio::test]
async fn those_who_ask_together_share_one_attempt() {
    let may_answer = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&may_answer);
    let function = Function::answering(move |_, _| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            status(200)
        }
    })
    .await;
    let prober = function.prober(ONCE, false);
    let opens = async {
        while function.asked() == 0 {
            tokio::task::yield_now().await;
        }
        may_answer.add_permits(1);
    };
    assert_eq!(tokio::join!(prober.is_ready(), prober.is_ready(), opens), (true, true, ()));
    assert_eq!(function.asked(), 1);
}

#[tokio::test]
async fn an_aggressive_probe_goes_on_until_it_passed_often_enough_in_a_row() {
    let function = Function::answering(async |at, _| status([500, 200, 500, 200, 200][at.min(4)])).await;
    let prober = function.prober(r#"{"httpGet":{"path":"/"},"successThreshold":2}"#, false);
    assert!(prober.is_ready().await);
    assert_eq!(function.asked(), 5);
    // The successes before still count.
    assert!(prober.is_ready().await);
    assert_eq!(function.asked(), 6);
}

#[tokio::test]
async fn redirects_are_followed() {
    let function = Function::answering(async |_, request: Request<Body>| match request.uri().path() {
        "/" => Response::builder().status(302).header("location", "/there").body(Body::empty()).unwrap(),
        "/there" => status(204),
        _ => Response::builder().status(307).header("location", "/round").body(Body::empty()).unwrap(),
    })
    .await;
    let get = |path| format!(r#"{{"httpGet":{{"path":"{path}"}},"periodSeconds":1,"timeoutSeconds":10}}"#);
    assert!(function.prober(&get("/"), false).is_ready().await);
    assert!(!function.prober(&get("/round"), false).is_ready().await);
    assert_eq!(function.asked(), 12);
}

#[tokio::test]
async fn several_must_all_pass() {
    let function = Function::answering(async |_, _| status(200)).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let open = r#"{"tcpSocket":{},"periodSeconds":1,"timeoutSeconds":10}"#;
    let closed = format!(r#"{{"tcpSocket":{{"port":{nobody}}},"periodSeconds":1,"timeoutSeconds":10}}"#);
    assert!(function.prober(&format!("[{open},{open}]"), false).is_ready().await);
    assert!(!function.prober(&format!("[{open},{closed}]"), false).is_ready().await);
}

#[tokio::test]
async fn http2_is_tried_first_and_http1_is_enough() {
    let over = |http2: u16, http1: u16| {
        move |_, request: Request<Body>| async move {
            status(if request.version() == Version::HTTP_2 { http2 } else { http1 })
        }
    };
    for (http2, http1, ready, asked) in [(200, 500, true, 2), (500, 200, true, 2), (500, 500, false, 2)] {
        let function = Function::answering(over(http2, http1)).await;
        assert_eq!(function.prober(ONCE, true).is_ready().await, ready, "{http2} {http1}");
        assert_eq!(function.asked(), asked);
    }
}

#[tokio::test]
async fn grpc_health_is_asked() {
    for (health, code, ready) in [(1, "0", true), (2, "0", false), (1, "12", false)] {
        let function = Function::answering(move |_, request: Request<Body>| async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.into_body().collect_up_to(100).await.unwrap(), "\0\0\0\0\x03\x0a\x01s");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().unwrap());
            let message = vec![0, 0, 0, 0, 2, 8, health];
            let frames = [Ok(Frame::data(message.into())), Ok(Frame::trailers(trailers))];
            let body = Body::from_frames(futures_util::stream::iter(frames));
            Response::builder().status(StatusCode::OK).body(body).unwrap()
        })
        .await;
        let port = function.address.port();
        let probe =
            format!(r#"{{"grpc":{{"port":{port},"service":"s"}},"periodSeconds":1,"timeoutSeconds":10}}"#);
        assert_eq!(function.prober(&probe, false).is_ready().await, ready, "{health} {code}");
    }
}

/// A function behind TLS with a certificate for `name`, and the certificate.
async fn behind_tls(name: &str, tasks: &Tasks) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let pem = crate::knative::tls::tests::pem("CERTIFICATE", made.cert.der());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let handler = handler_fn(async |request: Request<Body>| {
        let asked = request.uri().path() == "/ready" && request.headers()["user-agent"] == "kube-probe//";
        status(if asked { 200 } else { 500 })
    });
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let door =
        crate::knative::tls_door::serve(listener, acceptor, handler, ServeLimits::default(), tasks.clone());
    drop(tasks.spawn("function behind TLS", door));
    (port, pem)
}

#[tokio::test]
async fn https_is_asked_of_those_whose_certificate_is_trusted_and_theirs() {
    let (tasks, folder) = (Tasks::new(), tempfile::tempdir().unwrap());
    let (port, own) = behind_tls("localhost", &tasks).await;
    let (misnamed_port, misnamed) = behind_tls("elsewhere", &tasks).await;
    let plain = Function::answering(async |_, _| status(200)).await;
    let none = folder.path().join("none");
    let ready = async |pem: &str, port: u16, path: &str| {
        let bundle = folder.path().join("bundle");
        std::fs::write(&bundle, pem).unwrap();
        let trust = TrustFiles::new(bundle.to_str(), none.to_str());
        let probe = format!(
            r#"{{"httpGet":{{"scheme":"HTTPS","host":"localhost","port":{port},"path":"{path}"}},"periodSeconds":1,"timeoutSeconds":10}}"#
        );
        let probes = Probe::parse_all(&probe, false, port).unwrap();
        Prober::new(probes, false, trust, tasks.clone()).is_ready().await
    };
    assert!(ready(&own, port, "/ready").await);
    assert!(!ready(&own, port, "/other").await, "what it answers counts, as without TLS");
    assert!(!ready(&misnamed, port, "/ready").await, "nobody vouches for it");
    assert!(!ready(&misnamed, misnamed_port, "/ready").await, "it is another's");
    assert!(!ready(&own, plain.address.port(), "/ready").await, "it speaks no TLS");
}

#[tokio::test]
async fn a_redirect_to_https_is_followed_and_verified() {
    let tasks = Tasks::new();
    let (port, _) = behind_tls("localhost", &tasks).await;
    let function = Function::answering(move |_, _| async move {
        let there = format!("https://localhost:{port}/ready");
        Response::builder().status(301).header("location", there).body(Body::empty()).unwrap()
    })
    .await;
    assert!(!function.prober(ONCE, false).is_ready().await);
    assert_eq!(function.asked(), 1);
}
