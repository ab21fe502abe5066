//! What an HTTP/1.1 client can see of this server and of no library's.

use crate::support::{Server, read_until};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use zipline_http::{Body, Informational, Protocol, ServeLimits, handler_fn};

const END: &str = "\r\n\r\n";

#[tokio::test]
async fn informational_responses_go_out_before_the_response() {
    let server = Server::start(handler_fn(|request: Request<Body>| async move {
        let client = Informational::of(&request).unwrap();
        let mut hints = HeaderMap::new();
        hints.insert("link", HeaderValue::from_static("</a.css>"));
        client.send(StatusCode::EARLY_HINTS, &hints);
        client.send(StatusCode::OK, &hints);
        tokio::task::yield_now().await;
        client.send(StatusCode::PROCESSING, &HeaderMap::new());
        Response::builder().status(201).header("date", "now").body(Body::from("made")).unwrap()
    }))
    .await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        let hints = read_until(&mut stream, END).await;
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        assert_eq!(read_until(&mut stream, END).await, "HTTP/1.1 102 Processing\r\n\r\n");
        let made = read_until(&mut stream, "made").await;
        assert_eq!(made, "HTTP/1.1 201 Created\r\ndate: now\r\ncontent-length: 4\r\n\r\nmade");
    }
}

#[tokio::test]
async fn what_an_upstream_says_before_its_response_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxied = Server::proxy(listener.local_addr().unwrap(), Protocol::Http1).await;
    let upstream = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, END).await;
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: x\r\nconnection: x-own\r\nx-own: 1\r\n\r\n";
        stream.write_all(hints.as_bytes()).await.unwrap();
        stream
    };
    let client = async {
        let mut stream = proxied.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        // It comes while the response does not.
        let hints = read_until(&mut stream, END).await;
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
        stream
    };
    let (mut upstream, mut client) = tokio::join!(upstream, client);
    upstream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert!(read_until(&mut client, END).await.starts_with("HTTP/1.1 204 No Content\r\n"));
}

#[tokio::test]
async fn trailers_go_to_who_has_not_asked_for_them() {
    let server = Server::start(handler_fn(|_| async {
        let (sender, body) = Body::channel(4);
        sender.send("abc".into()).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("content-length", HeaderValue::from_static("9"));
        sender.finish(Some(trailers)).await.unwrap();
        Response::new(body)
    }))
    .await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    read_until(&mut stream, END).await;
    assert_eq!(read_until(&mut stream, END).await, "3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n");
}

#[tokio::test]
async fn a_head_may_have_as_many_fields_as_the_limit_says() {
    let limits = ServeLimits { max_headers: 2000, ..ServeLimits::default() };
    let count = |request: Request<Body>| async move {
        Response::new(Body::from(format!("{} fields", request.headers().len())))
    };
    let server = Server::with_limits(handler_fn(count), limits).await;
    let head = |fields| format!("GET / HTTP/1.1\r\nhost: t\r\n{}\r\n", "x-a: 1\r\n".repeat(fields));
    let mut stream = server.connect().await;
    stream.write_all(head(1999).as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n2000 fields").await;
    stream.write_all(head(2000).as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, END).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let echo = |request: Request<Body>| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect_up_to(100).await.unwrap();
        Response::new(Body::full([path.as_bytes(), b"=", &body].concat()))
    };
    let server = Server::start(handler_fn(echo)).await;
    let mut stream = server.connect().await;
    let posts = ["/a", "/b", "/c"].map(|path| {
        format!("POST {path} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n")
    });
    let all = posts.concat() + "GET /end HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let bodies: Vec<_> = text.split(END).skip(1).map(|rest| rest.split("HTTP/1.1").next().unwrap()).collect();
    assert_eq!(bodies, ["/a=12", "/b=12", "/c=12", "/end="]);
}

#[tokio::test]
async fn a_body_kept_beyond_its_request_reads_nothing_of_the_next() {
    let (keep, mut kept) = tokio::sync::mpsc::channel(1);
    let server = Server::start(handler_fn(move |request: Request<Body>| {
        let keep = keep.clone();
        async move {
            if request.method() == http::Method::POST {
                let mut body = request.into_body();
                assert_eq!(body.data().await.unwrap().unwrap().into_data().unwrap(), "ab");
                keep.send(body).await.unwrap();
            }
            Response::new(Body::empty())
        }
    }))
    .await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nab").await.unwrap();
    read_until(&mut stream, END).await;
    let mut body = kept.recv().await.unwrap();
    stream.write_all(b"cGET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    assert_eq!(body.data().await.unwrap().unwrap().into_data().unwrap(), "c");
    assert!(body.data().await.is_none());
    assert!(read_until(&mut stream, END).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_body_of_a_connection_that_ended_is_an_error() {
    let (keep, mut kept) = tokio::sync::mpsc::channel(1);
    let server = Server::start(handler_fn(move |request: Request<Body>| {
        let keep = keep.clone();
        async move {
            keep.send(request.into_body()).await.unwrap();
            std::future::pending().await
        }
    }))
    .await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\na").await.unwrap();
    let mut body = kept.recv().await.unwrap();
    assert_eq!(body.data().await.unwrap().unwrap().into_data().unwrap(), "a");
    // The server's end drops the connection, and whoever waits for its body hears of it.
    let (read, aborted) = tokio::join!(body.data(), server.tasks.shutdown(Duration::ZERO));
    assert!(read.unwrap().is_err() && aborted > 0);
}

#[tokio::test]
async fn an_idle_connection_over_http2_that_confirms_nothing_ends_with_the_server() {
    let server = Server::start(handler_fn(|_| async { Response::new(Body::empty()) })).await;
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // Its settings.
    stream.read_exact(&mut [0; 9]).await.unwrap();
    server.tasks.cancel();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    server.tasks.idle().await;
}
