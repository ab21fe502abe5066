//! Peers that act while this runtime does not look: each is told by hand, on a thread of its own, and has acted before the
//! next poll.

use crate::support::{client, get, pattern, post, read_all, read_until};
use bytes::Bytes;
use http::{Request, Response};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zipline_http::{Body, BodyErrorKind, ServeLimits, Target, handler_fn, serve_connection};

fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Accepts one connection, reads one request of `length` bytes of body, answers, and hands the connection back.
fn answer_one(listener: &TcpListener, length: usize) -> JoinHandle<TcpStream> {
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.read_exact(&mut vec![0; length]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        stream
    })
}

#[tokio::test]
async fn an_http1_connection_closed_a_moment_ago_is_not_used() {
    let (listener, addr) = listener();
    let client = client();
    for _ in 0..10 {
        let serving = answer_one(&listener, 10);
        let response = client.send(&Target::http1(addr), post("/", pattern(10))).await.unwrap();
        assert_eq!(read_all(response.into_body()).await.unwrap().0, "ok");
        // Closed without a poll between here and the next request.
        drop(serving.join().unwrap());
    }
    assert_eq!(client.statistics().opened, 10);
}

#[tokio::test]
async fn an_http2_connection_closed_a_moment_ago_is_not_used() {
    let (listener, addr) = listener();
    let client = client();
    for _ in 0..10 {
        let (listener, token) = (listener.try_clone().unwrap(), CancellationToken::new());
        let stop = token.clone();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            runtime.block_on(async {
                let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                let echo =
                    handler_fn(|request: Request<Body>| async move { Response::new(request.into_body()) });
                let (limits, never) = (ServeLimits::default(), CancellationToken::new());
                tokio::select! {
                    () = serve_connection(stream, None, echo, &limits, never) => {}
                    () = stop.cancelled() => {}
                }
            });
        });
        let response = client.send(&Target::http2(addr), post("/", pattern(10))).await.unwrap();
        assert_eq!(read_all(response.into_body()).await.unwrap().0, pattern(10));
        token.cancel();
        serving.join().unwrap();
    }
    assert_eq!(client.statistics().opened, 10);
}

#[tokio::test]
async fn an_answer_is_heard_although_writing_fails_first() {
    let (listener, addr) = listener();
    let (sender, body) = Body::channel(1);
    sender.send(pattern(1000)).await.unwrap();
    let client = client();
    let target = Target::http1(addr);
    let mut sending = std::pin::pin!(client.send(&target, post("/", body)));
    let serving = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // At least one byte stays unread, so that closing resets the connection.
        stream.read_exact(&mut [0; 100]).unwrap();
        stream
    });
    let mut stream = tokio::select! {
        _ = &mut sending => panic!("nothing was answered"),
        stream = serving => stream.unwrap(),
    };
    stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").unwrap();
    drop(stream);
    // The connection is woken to write, and has not been told that there is something to read.
    sender.send(pattern(1000)).await.unwrap();
    let response = sending.await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(read_all(response.into_body()).await.unwrap().0, "big");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const DATA: &[u8] = b"\0\0\x03\0\0\0\0\0\x01abc";
const RESET_NO_ERROR: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\0";

#[tokio::test]
async fn a_response_reset_with_no_error_has_not_ended() {
    let (listener, addr) = listener();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        // `:status: 200` and some data; no end.
        let frames = [SETTINGS, b"\0\0\x01\x01\x04\0\0\0\x01\x88", DATA, RESET_NO_ERROR].concat();
        let mut seen = vec![0; 4096];
        let mut length = 0;
        // The request must be there before it can be answered: HEADERS is the frame of type 1.
        while !seen[..length].windows(9).any(|frame| frame[3] == 1 && frame[8] == 1) {
            length += stream.read(&mut seen[length..]).unwrap();
        }
        stream.write_all(&frames).unwrap();
        stream
    });
    let client = client();
    let mut body = client.send(&Target::http2(addr), get("/")).await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap().into_data().unwrap(), "abc");
    let stream = serving.join().unwrap();
    let error = body.data().await.expect("an error, not an end").unwrap_err();
    assert_eq!(error.kind(), BodyErrorKind::Upstream);
    drop(stream);
}

#[tokio::test]
async fn a_request_reset_with_no_error_has_not_ended() {
    let (report, mut reports) = mpsc::channel(1);
    let server = crate::support::Server::start(handler_fn(move |request: Request<Body>| {
        let report = report.clone();
        async move {
            let mut body = request.into_body();
            let first = body.data().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first, Bytes::from_static(b"abc"));
            report.send(body.data().await.map(|frame| frame.is_err())).await.unwrap();
            Response::new(Body::empty())
        }
    }))
    .await;
    let mut stream = server.connect().await;
    // POST, http, "/".
    let frames =
        [PREFACE, SETTINGS, b"\0\0\x03\x01\x04\0\0\0\x01\x83\x86\x84", DATA, RESET_NO_ERROR].concat();
    stream.write_all(&frames).await.unwrap();
    assert_eq!(reports.recv().await, Some(Some(true)));
}

#[tokio::test]
async fn a_request_torn_off_in_its_head_reaches_nobody() {
    let server =
        crate::support::Server::start(handler_fn(|_| async { Response::new(Body::from("ok")) })).await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "ok").await.starts_with("HTTP/1.1 200"));
}
