//! What breaks off is never taken for an end.

use crate::support::{BOTH, Server, client, endless, exchange_raw, get, pattern, post, read_all};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use zipline_http::{Body, BodyError, BodyErrorKind, Frame, SendError, Target, handler_fn};

fn breaks_off(announced: Option<u64>) -> Body {
    let frames = vec![Ok(Frame::data(pattern(1000))), Err(BodyError::aborted("test"))];
    match announced {
        Some(length) => Body::from_frames_sized(length, stream::iter(frames)),
        None => Body::from_frames(stream::iter(frames)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Begun,
    Broken(BodyErrorKind),
    Ended,
}

/// Reads the request body and reports what it sees.
fn reporting() -> (impl zipline_http::Handler, mpsc::Receiver<Seen>) {
    let (report, reports) = mpsc::channel(8);
    let handler = handler_fn(move |request: Request<Body>| {
        let report = report.clone();
        async move {
            let mut body = request.into_body();
            body.data().await.unwrap().unwrap();
            report.send(Seen::Begun).await.unwrap();
            let seen = loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Seen::Broken(error.kind()),
                    None => break Seen::Ended,
                }
            };
            report.send(seen).await.unwrap();
            Response::new(Body::empty())
        }
    });
    (handler, reports)
}

#[tokio::test]
async fn an_aborted_request_body_is_an_error_for_the_handler() {
    let (handler, mut reports) = reporting();
    let server = Server::start(handler).await;
    for upstream in BOTH {
        let proxied = Server::proxy(server.addr, upstream).await;
        for downstream in BOTH {
            for announced in [false, true] {
                for target in [server.target(downstream), proxied.target(downstream)] {
                    let (sender, body) = Body::channel(1);
                    let mut request = post("/", body);
                    if announced {
                        request.headers_mut().insert("content-length", HeaderValue::from_static("5000"));
                    }
                    let abort = async {
                        sender.send(pattern(1000)).await.unwrap();
                        assert_eq!(reports.recv().await, Some(Seen::Begun));
                        sender.abort(BodyError::aborted("test")).await;
                        assert_eq!(reports.recv().await, Some(Seen::Broken(BodyErrorKind::Aborted)));
                    };
                    let client = client();
                    let (sent, ()) = tokio::join!(client.send(&target, request), abort);
                    assert!(sent.unwrap_err().is_request_body(), "{downstream:?} {upstream:?} {announced}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_never_ends_for_the_handler() {
    for upstream in BOTH {
        for downstream in BOTH {
            let (handler, mut reports) = reporting();
            let server = Server::start(handler).await;
            let proxied = Server::proxy(server.addr, upstream).await;
            let (sender, body) = Body::channel(4);
            sender.send(Bytes::from_static(b"abc")).await.unwrap();
            let (client, target) = (client(), proxied.target(downstream));
            {
                let mut sending = std::pin::pin!(client.send(&target, post("/", body)));
                tokio::select! {
                    _ = &mut sending => panic!("no response comes"),
                    report = reports.recv() => assert_eq!(report, Some(Seen::Begun)),
                }
            }
            sender.closed().await;
            // The handler is dropped, or sees an error if it is asked before that; then the channel closes.
            server.tasks.cancel();
            server.tasks.idle().await;
            while let Some(seen) = reports.recv().await {
                assert_ne!(seen, Seen::Ended);
            }
        }
    }
}

#[tokio::test]
async fn an_aborted_response_body_is_an_error_for_the_client() {
    let server = Server::start(handler_fn(|request: Request<Body>| async move {
        Response::new(breaks_off((request.uri().path() == "/known").then_some(5000)))
    }))
    .await;
    for upstream in BOTH {
        let proxied = Server::proxy(server.addr, upstream).await;
        for downstream in BOTH {
            for path in ["/known", "/unknown"] {
                for target in [server.target(downstream), proxied.target(downstream)] {
                    // The abort can overtake the head, which is an error as well.
                    let result = match client().send(&target, get(path)).await {
                        Ok(response) if response.status() == 502 => Err(BodyErrorKind::Upstream),
                        Ok(response) => read_all(response.into_body()).await.map_err(|error| error.kind()),
                        Err(SendError::BeforeResponse { .. }) => Err(BodyErrorKind::Upstream),
                        Err(other) => panic!("{other:?}"),
                    };
                    assert_eq!(result, Err(BodyErrorKind::Upstream), "{downstream:?} {upstream:?} {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn http_1_0_sees_an_abort_as_a_reset_and_an_end_as_an_end() {
    let server = Server::start(handler_fn(|request: Request<Body>| async move {
        Response::new(match request.uri().path() {
            "/end" => crate::support::unknown_length(pattern(1000)),
            _ => breaks_off(None),
        })
    }))
    .await;
    let text = exchange_raw(&mut server.connect().await, "GET /end HTTP/1.0\r\n\r\n").await;
    assert!(text.is_ok());
    let text = exchange_raw(&mut server.connect().await, "GET /abort HTTP/1.0\r\n\r\n").await;
    assert_eq!(text.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn dropping_the_response_stops_its_producer_and_the_upload() {
    let (report, mut reports) = mpsc::channel(8);
    let server = Server::start(handler_fn(move |request: Request<Body>| {
        let report = report.clone();
        async move {
            let (sender, body) = Body::channel(1);
            let _ = report.send((sender, request.into_body())).await;
            Response::new(body)
        }
    }))
    .await;
    for upstream in BOTH {
        let proxied = Server::proxy(server.addr, upstream).await;
        for downstream in BOTH {
            let (upload, body) = Body::channel(1);
            upload.send(Bytes::from_static(b"abc")).await.unwrap();
            let client = client();
            let response = client.send(&proxied.target(downstream), post("/", body)).await.unwrap();
            let (sender, mut received) = reports.recv().await.unwrap();
            received.data().await.unwrap().unwrap();
            sender.send(Bytes::from_static(b"def")).await.unwrap();
            drop(response);
            upload.closed().await;
            while sender.send(pattern(65_536)).await.is_ok() {}
            loop {
                match received.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => break,
                    None => panic!("taken for an end"),
                }
            }
        }
    }
}

#[tokio::test]
async fn an_upstream_that_closes_inside_a_body_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::http1(listener.local_addr().unwrap());
    let client = client();
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1000]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let receive = async { read_all(client.send(&target, get("/")).await.unwrap().into_body()).await };
        let (received, ()) = tokio::join!(receive, serve);
        assert_eq!(received.unwrap_err().kind(), BodyErrorKind::Upstream, "{answer:?}");
    }
}

#[tokio::test]
async fn shorter_than_announced_is_an_abort() {
    let (handler, mut reports) = reporting();
    let server = Server::start(handler).await;
    for protocol in BOTH {
        let (sender, body) = Body::channel(1);
        let mut request = post("/", body);
        request.headers_mut().insert("content-length", HeaderValue::from_static("5000"));
        let end = async {
            sender.send(pattern(1000)).await.unwrap();
            assert_eq!(reports.recv().await, Some(Seen::Begun));
            sender.finish(None).await.unwrap();
            assert_eq!(reports.recv().await, Some(Seen::Broken(BodyErrorKind::Aborted)));
        };
        let (client, target) = (client(), server.target(protocol));
        let (sent, ()) = tokio::join!(client.send(&target, request), end);
        assert!(sent.is_err(), "{protocol:?}");
    }
    let short = Body::from_frames_sized(5000, stream::iter(vec![Ok(Frame::data(pattern(1000)))]));
    assert_eq!(short.exact_length(), Some(5000));
    assert!(read_all(short).await.unwrap_err().is_aborted());
    let long = Body::from_frames_sized(500, stream::iter(vec![Ok(Frame::data(pattern(1000)))]));
    assert!(read_all(long).await.unwrap_err().is_aborted());
}

#[tokio::test]
async fn a_client_that_goes_away_drops_its_handler() {
    struct Report(mpsc::Sender<()>);
    impl Drop for Report {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let (report, mut reports) = mpsc::channel(8);
    let (called, mut calls) = mpsc::channel(8);
    let server = Server::start(handler_fn(move |_| {
        let (report, called) = (report.clone(), called.clone());
        async move {
            let _report = Report(report);
            called.send(()).await.unwrap();
            std::future::pending().await
        }
    }))
    .await;
    for upstream in BOTH {
        let proxied = Server::proxy(server.addr, upstream).await;
        for downstream in BOTH {
            let client = client();
            let target = proxied.target(downstream);
            tokio::select! {
                _ = client.send(&target, get("/")) => panic!("no response comes"),
                _ = calls.recv() => {}
            }
            drop(client);
            reports.recv().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_guard_lives_as_long_as_the_message() {
    let (sender, body) = Body::channel(1);
    let (guard, guarded) = oneshot::channel::<()>();
    let mut body = body.holding(guard);
    sender.send(Bytes::from_static(b"abc")).await.unwrap();
    body.data().await.unwrap().unwrap();
    let mut guarded = guarded;
    assert!(guarded.try_recv() == Err(oneshot::error::TryRecvError::Empty));
    sender.finish(None).await.unwrap();
    assert!(body.data().await.is_none());
    assert!(guarded.await.is_err());
    drop(body);
    assert!(
        endless().collect_up_to(1_000_000).await.is_err_and(|error| error.kind() == BodyErrorKind::TooLarge)
    );
    assert_eq!(
        crate::support::unknown_length(pattern(100_000)).collect_up_to(100_000).await.unwrap(),
        pattern(100_000)
    );
}
