use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use zipline_http::{ClientConfig, Frame, ServeLimits, Target, handler_fn, proxy, serve};

use super::*;
use crate::function::Counters;
use crate::instance::Failure;
use crate::manifest::parse;

/// A gateway with functions whose instances the test plays.
struct Stage {
    address: SocketAddr,
    functions: Functions,
    client: Client,
    tasks: Tasks,
}

impl Stage {
    async fn new(services: &[(&str, u32)], held_max: usize, hold: Duration) -> Self {
        let tasks = Tasks::new();
        let functions: BTreeMap<_, _> = services
            .iter()
            .map(|(name, concurrency)| {
                let (service, namespace) = name.split_once('.').unwrap();
                let text = format!(
                    "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: {service}, namespace: {namespace}}}\nspec: {{template: {{spec: {{containerConcurrency: {concurrency}, containers: [{{command: [x]}}]}}}}}}\n"
                );
                let manifest = parse(&text, Path::new("t.yaml"), Path::new("/")).unwrap().remove(0);
                let name = manifest.name.clone();
                (name, Function::new(manifest, "/bin/true".into(), held_max, Counters::default()))
            })
            .collect();
        let functions = Arc::new(functions);
        let client = Client::new(ClientConfig::default(), tasks.clone());
        let gateway = Gateway::new(functions.clone(), client.clone(), tasks.clone(), hold);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn("gateway", serve(listener, gateway, ServeLimits::default(), tasks.clone()));
        Self { address, functions, client, tasks }
    }

    fn function(&self, name: &str) -> &Arc<Function> {
        &self.functions[&name.parse().unwrap()]
    }

    /// Plays an instance.
    async fn instance(&self, name: &str, id: u64, handler: impl Handler) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.tasks.spawn("instance", serve(listener, handler, ServeLimits::default(), self.tasks.clone()));
        self.function(name).pool.add(id, address);
        self.function(name).pool.set_ready(id, true);
    }

    async fn send(&self, host: &str, path: &str, body: Body) -> Response<Body> {
        let request = Request::post(path).header(HOST, host).body(body).unwrap();
        self.client.send(&Target::http1(self.address), request).await.unwrap()
    }
}

const LONG: Duration = Duration::from_secs(60);

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect_up_to(1 << 20).await.unwrap().to_vec()).unwrap()
}

/// Answers what it saw of the request.
fn mirror() -> impl Handler {
    handler_fn(|request: Request<Body>| async move {
        let field = |name: &str| {
            let value = request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            value.unwrap_or_default()
        };
        let seen = format!(
            "{} {} host={} for={} proto={} prefix={} zipline={}",
            request.method(),
            request.uri().path_and_query().unwrap(),
            request.uri().authority().map_or(field("host"), ToString::to_string),
            field("x-forwarded-for"),
            field("x-forwarded-proto"),
            field("x-forwarded-prefix"),
            field("zipline-accept"),
        );
        Response::new(Body::full(seen))
    })
}

#[tokio::test]
async fn requests_find_their_function_by_host_and_by_path() {
    let stage = Stage::new(&[("a.default", 0), ("b.vid", 0)], 10, LONG).await;
    stage.instance("a.default", 1, mirror()).await;
    stage.instance("b.vid", 2, mirror()).await;
    let by_host = text(stage.send("a.localhost:80", "/x?y=1", Body::empty()).await).await;
    assert_eq!(by_host, "POST /x?y=1 host=a.localhost:80 for=127.0.0.1 proto=http prefix= zipline=");
    let host = stage.address.to_string();
    let by_path = text(stage.send(&host, "/vid/b/x?y=1", Body::empty()).await).await;
    assert_eq!(
        by_path,
        "POST /x?y=1 host=b.vid.svc.cluster.local for=127.0.0.1 proto=http prefix=/vid/b zipline="
    );
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "http://b.vid.svc.cluster.local/z".parse().unwrap();
    request.headers_mut().insert("zipline-accept", HeaderValue::from_static("kept"));
    let over_h2 = stage.client.send(&Target::http2(stage.address), request).await.unwrap();
    assert_eq!(
        text(over_h2).await,
        "GET /z host=b.vid.svc.cluster.local for=127.0.0.1 proto=http prefix= zipline=kept"
    );
}

#[tokio::test]
async fn unknown_functions_are_answered_with_what_there_is() {
    let stage = Stage::new(&[("a.default", 0), ("b.vid", 0)], 10, LONG).await;
    for (host, path) in
        [("c.default.svc", "/"), ("example.com", "/"), ("localhost", "/"), ("127.0.0.1", "/x/y/")]
    {
        let response = stage.send(host, path, Body::empty()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()["zipline-error"], "not-found");
        let problem = text(response).await;
        assert!(problem.contains("here run a.default, b.vid"), "{problem}");
    }
    assert_eq!(stage.function("a.default").target(), 0);
}

#[tokio::test]
async fn bodies_are_counted_to_the_byte_in_both_directions() {
    let stage = Stage::new(&[("a.default", 0)], 10, LONG).await;
    let echo = handler_fn(|request: Request<Body>| async move {
        let mut body = request.into_body().collect_up_to(1 << 24).await.unwrap().to_vec();
        body.extend_from_slice(b"more");
        Response::new(Body::full(body))
    });
    stage.instance("a.default", 1, echo).await;
    let sent = vec![7_u8; 3_000_001];
    let response = stage.send("a.localhost", "/", Body::full(sent)).await;
    assert_eq!(response.headers()["content-length"], "3000005");
    assert_eq!(response.into_body().collect_up_to(1 << 24).await.unwrap().len(), 3_000_005);
    let counters = &stage.function("a.default").counters;
    assert_eq!(
        (counters.requests.get(), counters.received.get(), counters.sent.get()),
        (1, 3_000_001, 3_000_005)
    );
    assert_eq!(stage.function("a.default").pool.in_flight(1), 0);
}

#[tokio::test]
async fn requests_are_held_until_an_instance_comes() {
    let stage = Stage::new(&[("a.default", 0)], 1, LONG).await;
    let function = stage.function("a.default");
    let held = stage.send("a.localhost", "/", Body::full("x"));
    let come = async {
        while function.pool.held() == 0 {
            tokio::task::yield_now().await;
        }
        let refused = stage.send("a.localhost", "/", Body::empty()).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(text(refused).await.contains("1 requests to a.default wait for an instance already"));
        assert_eq!((function.target(), function.pool.held()), (1, 1));
        stage.instance("a.default", 1, mirror()).await;
    };
    let (response, ()) = tokio::join!(held, come);
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_failed_start_is_told_to_those_who_wait() {
    let stage = Stage::new(&[("a.default", 0)], 10, LONG).await;
    let function = stage.function("a.default");
    let held = stage.send("a.localhost", "/", Body::empty());
    let fail = async {
        while function.pool.held() == 0 {
            tokio::task::yield_now().await;
        }
        let message = "function a.default: its process ended with status 1".into();
        function.pool.fail_waiting(&Arc::new(Failure { code: ErrorCode::UpstreamFailed, message }));
    };
    let (response, ()) = tokio::join!(held, fail);
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(text(response).await.contains("ended with status 1"));
}

#[tokio::test]
async fn waiting_is_bounded() {
    let stage = Stage::new(&[("a.default", 0)], 10, Duration::from_millis(1)).await;
    let response = stage.send("a.localhost", "/", Body::empty()).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(response.headers()["zipline-error"], "deadline-exceeded");
    assert_eq!(stage.function("a.default").pool.held(), 0);
}

/// Counts requests in `seen` and answers when `gate` gives a permit.
fn gated(seen: watch::Sender<usize>, gate: Arc<Semaphore>) -> impl Handler {
    handler_fn(move |_request: Request<Body>| {
        let (seen, gate) = (seen.clone(), gate.clone());
        async move {
            seen.send_modify(|count| *count += 1);
            gate.acquire().await.unwrap().forget();
            Response::new(Body::empty())
        }
    })
}

#[tokio::test]
async fn requests_spread_and_the_concurrency_limit_holds() {
    let stage = Stage::new(&[("a.default", 2)], 10, LONG).await;
    let gate = Arc::new(Semaphore::new(0));
    let counts: Vec<_> = (0..2).map(|_| watch::Sender::new(0)).collect();
    for (id, count) in counts.iter().enumerate() {
        stage.instance("a.default", id as u64, gated(count.clone(), gate.clone())).await;
    }
    let requests =
        futures_util::future::join_all((0..5).map(|_| stage.send("a.localhost", "/", Body::empty())));
    let open = async {
        for count in &counts {
            count.subscribe().wait_for(|seen| *seen == 2).await.unwrap();
        }
        while stage.function("a.default").pool.held() == 0 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(5);
    };
    let (responses, ()) = tokio::join!(requests, open);
    assert!(responses.iter().all(|response| response.status() == StatusCode::OK));
    assert_eq!(counts.iter().map(|count| *count.borrow()).sum::<usize>(), 5);
}

#[tokio::test]
async fn an_instance_that_cannot_be_reached_is_passed_over() {
    let stage = Stage::new(&[("a.default", 0)], 10, LONG).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pool = &stage.function("a.default").pool;
    pool.add(0, gone);
    pool.set_ready(0, true);
    let request = stage.send("a.localhost", "/", Body::full("whole"));
    let other = async {
        while pool.held() == 0 {
            tokio::task::yield_now().await;
        }
        let echo = handler_fn(|request: Request<Body>| async move { Response::new(request.into_body()) });
        stage.instance("a.default", 1, echo).await;
    };
    let (response, ()) = tokio::join!(request, other);
    assert_eq!(text(response).await, "whole");
}

#[tokio::test]
async fn a_request_that_may_have_run_is_not_sent_again() {
    let stage = Stage::new(&[("a.default", 0)], 10, LONG).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = &stage.function("a.default").pool;
    for id in 0..2 {
        pool.add(id, listener.local_addr().unwrap());
    }
    let connections = AtomicUsize::new(0);
    let break_off = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 1024]).await;
        }
    };
    let response = tokio::select! {
        response = stage.send("a.localhost", "/", Body::full("x")) => response,
        () = break_off => unreachable!(),
    };
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(text(response).await.contains("the function may have run, so the request is not sent again"));
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert_eq!(pool.in_flight(0) + pool.in_flight(1), 0);
}

#[tokio::test]
async fn trailers_pass_both_ways_over_h2c() {
    let stage = Stage::new(&[("a.default", 0)], 10, LONG).await;
    let handler = handler_fn(|request: Request<Body>| async move {
        let mut body = request.into_body();
        let mut frames = vec![Ok(Frame::data(Bytes::from_static(b"answer")))];
        while let Some(frame) = body.data().await {
            if let Ok(trailers) = frame.unwrap().into_trailers() {
                frames.push(Ok(Frame::trailers(trailers)));
            }
        }
        Response::new(Body::from_frames(futures_util::stream::iter(frames)))
    });
    stage.instance("a.default", 1, handler).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"question"))), Ok(Frame::trailers(trailers.clone()))];
    let mut request = Request::new(Body::from_frames(futures_util::stream::iter(frames)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = "http://a.default.svc/".parse().unwrap();
    proxy::accept_trailers(request.headers_mut());
    let mut body = stage.client.send(&Target::http2(stage.address), request).await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap().into_data().unwrap(), "answer");
    assert_eq!(body.data().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(body.data().await.is_none());
}

#[tokio::test]
async fn upgraded_connections_are_tunnelled_and_counted() {
    let stage = Stage::new(&[("a.default", 0)], 10, LONG).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let function = stage.function("a.default");
    function.pool.add(1, listener.local_addr().unwrap());
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut question = [0; 4];
        stream.read_exact(&mut question).await.unwrap();
        stream.write_all(b"pong!").await.unwrap();
        assert_eq!(stream.read(&mut question).await.unwrap(), 0);
    };
    let client = async {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        let ask =
            "GET /ws HTTP/1.1\r\nHost: a.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.unwrap();
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101"));
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong!");
        assert_eq!(function.pool.in_flight(1), 1);
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    };
    tokio::join!(server, client);
    while function.pool.in_flight(1) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((function.counters.received.get(), function.counters.sent.get()), (4, 5));
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn long_listings_are_cut() {
    let names: Vec<FunctionName> = (0..25).map(|n| format!("f{n}.default").parse().unwrap()).collect();
    assert!(listing(names.iter()).contains("f19.default and 5 more"));
}
