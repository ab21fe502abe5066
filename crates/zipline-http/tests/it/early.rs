//! Final answers while the request is still being sent.

use crate::support::{BOTH, Server, client, endless, get, pattern, post, read_all, read_until};
use http::{HeaderValue, Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use zipline_http::{Body, Protocol, Target, handler_fn};

async fn refuse(_: Request<Body>) -> Response<Body> {
    Response::builder().status(413).body(Body::full(pattern(100_000))).unwrap()
}

#[tokio::test]
async fn an_early_answer_arrives_whole_and_the_connection_is_not_reused() {
    let server = Server::start(handler_fn(refuse)).await;
    for upstream in BOTH {
        let proxied = Server::proxy(server.addr, upstream).await;
        for downstream in BOTH {
            let client = client();
            for turn in 0..20 {
                for target in [server.target(downstream), proxied.target(downstream)] {
                    let response = client.send(&target, post("/", endless())).await.unwrap();
                    assert_eq!(response.status(), 413);
                    let (bytes, _) = read_all(response.into_body())
                        .await
                        .unwrap_or_else(|error| panic!("{downstream:?} {upstream:?} {turn}: {error:?}"));
                    assert_eq!(bytes, pattern(100_000));
                }
            }
            let opened = client.statistics().opened;
            match downstream {
                Protocol::Http1 => assert_eq!(opened, 40),
                Protocol::Http2 => assert_eq!(opened, 2),
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_answers_and_closes_without_reading_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::http1(listener.local_addr().unwrap());
    let client = client();
    for _ in 0..30 {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
        };
        let (response, ()) = tokio::join!(client.send(&target, post("/", endless())), serve);
        let response = response.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(read_all(response.into_body()).await.unwrap().0, "big");
    }
}

#[tokio::test]
async fn a_raw_client_that_uploads_first_still_gets_the_answer() {
    let server = Server::start(handler_fn(refuse)).await;
    let mut stream = server.connect().await;
    let length = 20 * 1024 * 1024;
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // Reads nothing until all is sent.
    stream.write_all(&pattern(length)).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
}

#[tokio::test]
async fn an_unread_small_body_keeps_the_connection() {
    let server = Server::start(handler_fn(|_| async { Response::new(Body::from("ok")) })).await;
    let client = client();
    for _ in 0..5 {
        let mut request = post("/", pattern(100));
        request.headers_mut().insert("x", HeaderValue::from_static("y"));
        let response = client.send(&server.target(Protocol::Http1), request).await.unwrap();
        assert_eq!(read_all(response.into_body()).await.unwrap().0, "ok");
    }
    let response = client.send(&server.target(Protocol::Http1), get("/")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(client.statistics().opened, 1);
}
