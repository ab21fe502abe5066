//! Reuse of connections, and peers that close them.

use crate::support::{BOTH, Server, client, get, pattern, post, read_all, read_until};
use http::{Request, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zipline_http::{Body, Client, ClientConfig, Protocol, ServeLimits, Target, handler_fn, serve_connection};
use zipline_runtime::Tasks;

async fn echo(request: Request<Body>) -> Response<Body> {
    Response::new(request.into_body())
}

#[tokio::test]
async fn connections_are_reused() {
    let server = Server::start(handler_fn(echo)).await;
    for protocol in BOTH {
        let client = client();
        for _ in 0..20 {
            let response = client.send(&server.target(protocol), post("/", pattern(100_000))).await.unwrap();
            assert_eq!(read_all(response.into_body()).await.unwrap().0.len(), 100_000);
        }
        let statistics = client.statistics();
        assert_eq!((statistics.opened, statistics.reused, statistics.open), (1, 19, 1), "{protocol:?}");
    }
}

#[tokio::test]
async fn concurrent_requests_share_http2_and_not_http1() {
    let server = Server::start(handler_fn(echo)).await;
    for (protocol, connections) in [(Protocol::Http1, 10), (Protocol::Http2, 1)] {
        let client = client();
        let mut open = Vec::new();
        for _ in 0..10 {
            let (sender, body) = Body::channel(1);
            let response = client.send(&server.target(protocol), post("/", body)).await.unwrap();
            open.push((sender, response));
        }
        assert_eq!(client.statistics().opened, connections);
        for (sender, response) in open {
            sender.finish(None).await.unwrap();
            read_all(response.into_body()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn another_http2_connection_when_the_stream_limit_is_reached() {
    let limits = ServeLimits { max_concurrent_streams: 2, ..ServeLimits::default() };
    let server = Server::with_limits(handler_fn(echo), limits).await;
    let config = ClientConfig { max_http2_connections_per_host: 3, ..ClientConfig::default() };
    let client = Client::new(config, Tasks::new());
    let target = server.target(Protocol::Http2);
    client.send(&target, get("/")).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..6 {
        let (sender, body) = Body::channel(1);
        open.push((sender, client.send(&target, post("/", body)).await.unwrap()));
    }
    assert_eq!(client.statistics().opened, 3);
    // The seventh waits for a place.
    let (finished, waiting) = tokio::join!(
        async {
            let (sender, response) = open.pop().unwrap();
            sender.finish(None).await.unwrap();
            read_all(response.into_body()).await
        },
        client.send(&target, get("/")),
    );
    finished.unwrap();
    assert_eq!(waiting.unwrap().status(), 200);
}

#[tokio::test]
async fn http1_servers_that_close_between_requests_fail_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::http1(listener.local_addr().unwrap());
    let tasks = Tasks::new();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    drop(tasks.spawn("server", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            read_until(&mut stream, "\r\n\r\n").await;
            stream.read_exact(&mut [0; 10]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    }));
    let client = client();
    for turn in 0..50 {
        let response = client.send(&target, post("/", pattern(10))).await;
        let response = response.unwrap_or_else(|error| panic!("{turn}: {error:?}"));
        assert_eq!(read_all(response.into_body()).await.unwrap().0, "ok");
        // The server has closed by now, though nobody has told the client's connection.
        while accepted.load(Ordering::Relaxed) != turn + 1 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 50);
}

#[tokio::test]
async fn http2_servers_that_close_between_requests_fail_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::http2(listener.local_addr().unwrap());
    let tasks = Tasks::new();
    let (close, closing) = tokio::sync::mpsc::channel::<()>(1);
    let (closed, mut is_closed) = tokio::sync::mpsc::channel::<()>(1);
    drop(tasks.spawn("server", async move {
        let mut closing = closing;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let token = CancellationToken::new();
            let limits = ServeLimits::default();
            let serving = serve_connection(stream, None, handler_fn(echo), &limits, token.clone());
            let cancelling = async {
                closing.recv().await;
                token.cancel();
            };
            tokio::join!(serving, cancelling);
            let _ = closed.send(()).await;
        }
    }));
    let client = client();
    for turn in 0..30 {
        let response = client.send(&target, post("/", pattern(1000))).await;
        let response = response.unwrap_or_else(|error| panic!("{turn}: {error:?}"));
        assert_eq!(read_all(response.into_body()).await.unwrap().0.len(), 1000);
        close.send(()).await.unwrap();
        is_closed.recv().await.unwrap();
    }
    assert_eq!(client.statistics().opened, 30);
}

#[tokio::test]
async fn a_get_on_a_reused_connection_is_sent_again_but_a_post_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::http1(listener.local_addr().unwrap());
    let tasks = Tasks::new();
    let (request, mut requests) = tokio::sync::mpsc::channel::<String>(8);
    drop(tasks.spawn("server", async move {
        // Of each connection the first request is answered, the second is read and dropped.
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            request.send(read_until(&mut stream, "\r\n\r\n").await).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            request.send(read_until(&mut stream, "\r\n\r\n").await).await.unwrap();
        }
    }));
    let client = client();
    for _ in 0..2 {
        let response = client.send(&target, get("/")).await.unwrap();
        assert_eq!(read_all(response.into_body()).await.unwrap().0, "ok");
    }
    assert_eq!(client.statistics().resent, 1);
    let mut request = get("/");
    *request.method_mut() = http::Method::POST;
    assert!(client.send(&target, request).await.is_err());
    for method in ["GET", "GET", "GET", "POST"] {
        assert!(requests.recv().await.unwrap().starts_with(method));
    }
}

#[tokio::test]
async fn idle_connections_close_when_the_client_goes() {
    let server = Server::start(handler_fn(echo)).await;
    let tasks = Tasks::new();
    for protocol in BOTH {
        let client = Client::new(ClientConfig::default(), tasks.clone());
        client.send(&server.target(protocol), get("/")).await.unwrap();
        let other = client.clone();
        other.send(&server.target(protocol), get("/")).await.unwrap();
        assert_eq!(tasks.len(), 1, "{protocol:?}");
        other.close_idle();
        tasks.idle().await;
        client.send(&server.target(protocol), get("/")).await.unwrap();
        drop(client);
        drop(other);
        tasks.idle().await;
    }
}
