//! What the HTTP/1.1 client makes of answers, whole and early, well and badly said.

use crate::support::{client, get, pattern, post, read_all, read_until};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use zipline_http::{Body, BodyError, BodyErrorKind, Client, ClientConfig, SendError, Target};
use zipline_runtime::Tasks;

async fn listener() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::http1(listener.local_addr().unwrap());
    (listener, target)
}

/// Sends a `GET` and answers it with `text`; the connection stays open with whoever asked.
async fn answered(
    client: &Client,
    (listener, target): &(TcpListener, Target),
    text: &str,
) -> (Result<http::Response<Body>, SendError>, TcpStream) {
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    };
    tokio::join!(client.send(target, get("/")), serving)
}

#[tokio::test]
async fn every_end_of_a_body_is_understood() {
    let server = listener().await;
    for (text, body, kept) in [
        ("content-length: 2\r\n\r\nok", "ok", true),
        ("content-length: 0\r\n\r\n", "", true),
        ("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", true),
        ("transfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nx: 1\r\n\r\n", "ok", true),
        // Something that nobody asked for follows.
        ("content-length: 2\r\n\r\nokHTTP/1.1", "ok", false),
        ("connection: close\r\ncontent-length: 2\r\n\r\nok", "ok", false),
        ("content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", false),
    ] {
        let client = client();
        let (response, stream) = answered(&client, &server, &format!("HTTP/1.1 200 OK\r\n{text}")).await;
        let (bytes, _) = read_all(response.unwrap().into_body()).await.unwrap();
        assert_eq!(bytes, body, "{text:?}");
        assert_eq!(client.statistics().open, usize::from(kept), "{text:?}");
        drop(stream);
    }
    let trailing = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\ngrpc-status: 5\r\n\r\n";
    let (response, _stream) = answered(&client(), &server, trailing).await;
    let body = response.unwrap().into_body();
    assert_eq!(body.exact_length(), None);
    let (bytes, trailers) = read_all(body).await.unwrap();
    assert_eq!((&bytes[..], &trailers.unwrap()["grpc-status"]), (&b""[..], &"5".parse().unwrap()));
    let client = client();
    let (response, mut stream) = answered(&client, &server, "HTTP/1.0 200 OK\r\n\r\nuntil ").await;
    let mut body = response.unwrap().into_body();
    assert_eq!(body.exact_length(), None);
    stream.write_all(b"the end").await.unwrap();
    drop(stream);
    let mut bytes = Vec::new();
    while let Some(frame) = body.data().await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    assert_eq!(bytes, b"until the end");
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    let server = listener().await;
    let endless_hints = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "a".repeat(1000)).repeat(20);
    for text in [
        "what?\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        endless_hints.as_str(),
    ] {
        let config = ClientConfig { max_header_bytes: 10_000, ..ClientConfig::default() };
        let client = Client::new(config, Tasks::new());
        let (response, stream) = answered(&client, &server, text).await;
        assert!(matches!(response, Err(SendError::BeforeResponse { .. })), "{text:?}: {response:?}");
        assert_eq!(client.statistics().open, 0, "{text:?}");
        drop(stream);
    }
    for body in ["content-length: 9\r\n\r\nok", "transfer-encoding: chunked\r\n\r\n9\r\nok"] {
        let (response, stream) = answered(&client(), &server, &format!("HTTP/1.1 200 OK\r\n{body}")).await;
        drop(stream);
        let error = read_all(response.unwrap().into_body()).await.unwrap_err();
        assert_eq!(error.kind(), BodyErrorKind::Upstream, "{body:?}");
    }
}

#[tokio::test]
async fn a_request_may_end_shortly_after_its_response() {
    let (listener, target) = listener().await;
    let client = client();
    let (sender, body) = Body::channel(1);
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        stream
    };
    let (response, mut stream) = tokio::join!(client.send(&target, post("/", body)), serving);
    let response = response.unwrap();
    sender.send(pattern(3)).await.unwrap();
    sender.finish(None).await.unwrap();
    read_until(&mut stream, "0\r\n\r\n").await;
    assert_eq!(read_all(response.into_body()).await.unwrap().0, "ok");
    let again = async {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (response, ()) = tokio::join!(client.send(&target, get("/")), again);
    response.unwrap();
    assert_eq!(client.statistics().opened, 1);
}

#[tokio::test]
async fn an_upload_goes_on_while_nobody_reads_its_response() {
    let (listener, target) = listener().await;
    let client = client();
    let length = 8 * 1024 * 1024;
    let mut request = post("/", crate::support::unknown_length(pattern(length)));
    request.headers_mut().insert("content-length", length.into());
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await.unwrap();
        stream
    };
    let (response, mut stream) = tokio::join!(client.send(&target, request), serving);
    let mut received = vec![0; length];
    stream.read_exact(&mut received).await.unwrap();
    assert!(received == pattern(length));
    stream.write_all(b"k").await.unwrap();
    assert_eq!(read_all(response.unwrap().into_body()).await.unwrap().0, "ok");
}

#[tokio::test]
async fn bodies_are_as_long_as_they_announced() {
    for (announced, sent) in [(5, 4), (5, 6)] {
        let (listener, target) = listener().await;
        let mut request = post("/", crate::support::unknown_length(pattern(sent)));
        request.headers_mut().insert("content-length", announced.into());
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            // Closed or reset, it is over.
            let _ = stream.read_to_end(&mut text).await;
            let end = text.windows(4).position(|end| end == b"\r\n\r\n").map_or(text.len(), |at| at + 4);
            text.len() - end
        };
        let client = client();
        let (response, received) = tokio::join!(client.send(&target, request), serving);
        assert!(response.unwrap_err().is_request_body(), "{announced} {sent}");
        assert!(received < announced, "{announced} {sent}: {received}");
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_takes_its_response_along() {
    for framing in ["content-length: 9\r\n\r\no", "\r\no"] {
        let (listener, target) = listener().await;
        let client = client();
        let (sender, body) = Body::channel(1);
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).await.unwrap();
            stream
        };
        let (response, mut stream) = tokio::join!(client.send(&target, post("/", body)), serving);
        let mut body = response.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap().into_data().unwrap(), "o");
        sender.abort(BodyError::aborted("enough")).await;
        // The peer sees no end of the request, and says no more.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        drop(stream);
        let error = body.data().await.expect("an error, not an end").unwrap_err();
        assert_eq!(error.kind(), BodyErrorKind::Upstream, "{framing:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_that_its_peer_closes_is_closed() {
    let (listener, target) = listener().await;
    let tasks = Tasks::new();
    // Time alone does not close it while this test runs.
    let config = ClientConfig { idle_timeout: Duration::from_secs(3600), ..ClientConfig::default() };
    let client = Client::new(config, tasks.clone());
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream
    };
    let (response, mut stream) = tokio::join!(client.send(&target, get("/")), serving);
    response.unwrap();
    assert_eq!((client.statistics().open, tasks.len()), (1, 1));
    stream.shutdown().await.unwrap();
    // Our end closes, without another request, and nothing watches any more.
    let closed = timeout(Duration::from_secs(20), stream.read(&mut [0])).await;
    assert_eq!(closed.expect("nobody closed it").unwrap(), 0);
    tasks.idle().await;
    assert_eq!(client.statistics().open, 0);
}

#[tokio::test]
async fn only_announced_trailers_of_a_request_are_sent() {
    let (listener, target) = listener().await;
    let (sender, body) = Body::channel(1);
    let mut request = post("/", body);
    request.headers_mut().append("trailer", "X-One, x-two".parse().unwrap());
    let mut trailers = http::HeaderMap::new();
    for name in ["x-one", "x-three", "x-two"] {
        trailers.append(http::HeaderName::from_static(name), "1".parse().unwrap());
    }
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        sender.finish(Some(trailers)).await.unwrap();
        let end = read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        end
    };
    let client = client();
    let (response, end) = tokio::join!(client.send(&target, request), serving);
    response.unwrap();
    assert_eq!(end, "0\r\nx-one: 1\r\nx-two: 1\r\n\r\n");
}
