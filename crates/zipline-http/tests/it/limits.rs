//! Header limits, time limits, connection limits.

use crate::support::{BOTH, Server, client, get, read_all, read_until};
use http::{HeaderName, HeaderValue, Response};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use zipline_http::{
    Body, Client, ClientConfig, Handler, Protocol, SendError, ServeLimits, handler_fn, serve_connection,
};
use zipline_runtime::Tasks;

fn ok() -> impl Handler {
    handler_fn(|_| async { Response::new(Body::from("ok")) })
}

#[tokio::test]
async fn header_blocks_and_counts_beyond_the_limit_are_431() {
    let server = Server::start(ok()).await;
    for protocol in BOTH {
        let mut large = get("/");
        for index in 0..30 {
            let name = HeaderName::try_from(format!("x-{index}")).unwrap();
            large.headers_mut().insert(name, HeaderValue::try_from("v".repeat(10 * 1024)).unwrap());
        }
        let mut many = get("/");
        for index in 0..1000 {
            let name = HeaderName::try_from(format!("x-{index}")).unwrap();
            many.headers_mut().insert(name, HeaderValue::from_static("v"));
        }
        for request in [large, many] {
            let response = client().send(&server.target(protocol), request).await.unwrap();
            assert_eq!(response.status(), 431, "{protocol:?}");
        }
        let mut within = get("/");
        for index in 0..200 {
            let name = HeaderName::try_from(format!("x-{index}")).unwrap();
            within.headers_mut().insert(name, HeaderValue::try_from("v".repeat(1024)).unwrap());
        }
        let response = client().send(&server.target(protocol), within).await.unwrap();
        assert_eq!(response.status(), 200, "{protocol:?}");
    }
    // One field of 300 KiB, raw, sent whole before anything is read.
    let mut stream = server.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "v".repeat(300 * 1024));
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn response_heads_beyond_the_limit_are_errors() {
    let server = Server::start(handler_fn(|_| async {
        let mut response = Response::new(Body::empty());
        for index in 0..1000 {
            let name = HeaderName::try_from(format!("x-{index}")).unwrap();
            response.headers_mut().insert(name, HeaderValue::try_from("v".repeat(1024)).unwrap());
        }
        response
    }))
    .await;
    for protocol in BOTH {
        let result = client().send(&server.target(protocol), get("/")).await;
        assert!(matches!(result, Err(SendError::BeforeResponse { .. })), "{protocol:?}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_heads_and_idle_connections_are_closed() {
    let limits = ServeLimits::default();
    for (sent, seconds) in
        [("", 60), ("GET / HT", 60), ("PRI * HTTP/2.0\r\n", 60), ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 600)]
    {
        let (mut near, far) = tokio::io::duplex(65_536);
        let begun = Instant::now();
        let serving = serve_connection(far, None, ok(), &limits, CancellationToken::new());
        let using = async {
            near.write_all(sent.as_bytes()).await.unwrap();
            near.read_to_end(&mut Vec::new()).await.unwrap();
        };
        tokio::join!(serving, using);
        assert_eq!(begun.elapsed().as_secs(), seconds, "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_gets_the_whole_time_for_its_next_head() {
    let limits = ServeLimits::default();
    let (mut near, far) = tokio::io::duplex(65_536);
    let begun = Instant::now();
    let serving = serve_connection(far, None, ok(), &limits, CancellationToken::new());
    let using = async {
        near.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(300)).await;
        near.write_all(b"GET / HT").await.unwrap();
        near.read_to_end(&mut Vec::new()).await.unwrap();
    };
    tokio::join!(serving, using);
    assert_eq!(begun.elapsed().as_secs(), 360);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let limits = ServeLimits { max_connections: 1, ..ServeLimits::default() };
    let server = Server::with_limits(ok(), limits).await;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut first = server.connect().await;
    first.write_all(request).await.unwrap();
    read_until(&mut first, "ok").await;
    let mut second = server.connect().await;
    second.write_all(request).await.unwrap();
    // The first goes on being served; the second is not looked at.
    first.write_all(request).await.unwrap();
    read_until(&mut first, "ok").await;
    assert!(second.try_read(&mut [0; 1]).is_err());
    drop(first);
    read_until(&mut second, "ok").await;
}

#[tokio::test]
async fn a_client_waits_for_one_of_its_connections_and_gives_up() {
    let server = Server::start(handler_fn(|request: http::Request<Body>| async move {
        Response::new(if request.uri().path() == "/slow" {
            crate::support::endless()
        } else {
            Body::from("ok")
        })
    }))
    .await;
    let config = ClientConfig {
        max_connections: 1,
        connect_timeout: Duration::from_millis(50),
        ..ClientConfig::default()
    };
    let client = Client::new(config, Tasks::new());
    let target = server.target(Protocol::Http1);
    let busy = client.send(&target, get("/slow")).await.unwrap();
    let refused = client.send(&target, get("/")).await.unwrap_err();
    assert!(matches!(refused, SendError::Busy { limit: 1, .. }) && refused.is_connect());
    drop(busy);
    let response = client.send(&target, get("/")).await.unwrap();
    assert_eq!(read_all(response.into_body()).await.unwrap().0, "ok");
    // An idle connection to one target makes room for another.
    let other = Server::start(ok()).await;
    let response = client.send(&other.target(Protocol::Http2), get("/")).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn nobody_listening_is_a_connect_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    for protocol in BOTH {
        let target = zipline_http::Target { addr: addr.into(), protocol };
        let error = client().send(&target, get("/")).await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
    }
    let unused = timeout(Duration::from_secs(5), async {}).await;
    assert!(unused.is_ok());
}
