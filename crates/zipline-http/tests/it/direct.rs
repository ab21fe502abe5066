//! Bodies that are read from their connection into the reader's own memory.

use crate::support::{BOTH, Server, client, get, pattern, post, read_until, unknown_length};
use http::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use zipline_http::{Body, BodyError, Protocol, Target, handler_fn};

const LENGTH: usize = 3 * 1024 * 1024;

/// Reads a body, as much of it as possible directly; how much that was.
async fn read(mut body: Body) -> Result<(Vec<u8>, usize), BodyError> {
    let mut memory = vec![0; 100_000];
    let (mut all, mut directly) = (Vec::new(), 0);
    loop {
        let direct = body.direct_bytes();
        if direct > 0 {
            let length = body.read_into(&mut memory).await?;
            assert!(length > 0 && length as u64 <= direct);
            all.extend_from_slice(&memory[..length]);
            directly += length;
            continue;
        }
        match body.data().await {
            None => return Ok((all, directly)),
            Some(frame) => all.extend_from_slice(frame?.data_ref().map_or(&[], |data| data)),
        }
    }
}

/// Answers with the length that was read directly, and the body in the form it came in.
async fn echo(request: Request<Body>) -> Response<Body> {
    let known = request.body().exact_length().is_some();
    let (all, directly) = read(request.into_body()).await.unwrap();
    let body = if known { Body::full(all) } else { unknown_length(all.into()) };
    Response::builder().header("directly", directly).body(body).unwrap()
}

#[tokio::test]
async fn most_of_a_long_body_is() {
    let server = Server::start(handler_fn(echo)).await;
    for protocol in BOTH {
        for body in [Body::full(pattern(LENGTH)), unknown_length(pattern(LENGTH))] {
            let client = client();
            let target = server.target(protocol);
            let response = client.send(&target, post("/", body)).await.unwrap();
            let asked: usize = response.headers()["directly"].to_str().unwrap().parse().unwrap();
            let (all, answered) = read(response.into_body()).await.unwrap();
            assert!(all == pattern(LENGTH), "{protocol:?}");
            for directly in [asked, answered] {
                match protocol {
                    Protocol::Http1 => assert!(directly > LENGTH / 2, "{directly}"),
                    Protocol::Http2 => assert_eq!(directly, 0),
                }
            }
            client.send(&target, post("/", "short")).await.unwrap();
            assert_eq!(client.statistics().opened, 1, "both ends of the body were found");
        }
    }
}

#[tokio::test]
async fn one_that_breaks_off_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::http1(listener.local_addr().unwrap());
    for framing in ["content-length: 100000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n186A0\r\n"] {
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).await.unwrap();
            stream
        };
        let client = client();
        let (response, mut stream) = tokio::join!(client.send(&target, get("/")), serving);
        let body = response.unwrap().into_body();
        stream.write_all(&pattern(1000)).await.unwrap();
        drop(stream);
        read(body).await.unwrap_err();
        assert_eq!(client.statistics().open, 0);
    }
    // The other way round.
    let server = Server::start(handler_fn(|request: Request<Body>| async {
        let broke = read(request.into_body()).await.is_err();
        Response::builder().status(if broke { 400 } else { 200 }).body(Body::empty()).unwrap()
    }))
    .await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
    stream.write_all(&pattern(1000)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 400"));
}
