//! Ending a server.

use crate::support::{BOTH, Server, client, get, pattern, read_all};
use bytes::Bytes;
use http::{Request, Response};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use zipline_http::{Body, PeerAddr, ServeLimits, handler_fn, serve};
use zipline_runtime::Tasks;

#[tokio::test]
async fn requests_in_flight_are_finished_and_nothing_new_is_taken() {
    for protocol in BOTH {
        let (report, mut reports) = mpsc::channel(8);
        let server = Server::start(handler_fn(move |request: Request<Body>| {
            let report = report.clone();
            async move {
                if request.uri().path() == "/idle" {
                    return Response::new(Body::empty());
                }
                let (sender, body) = Body::channel(1);
                report.send(sender).await.unwrap();
                Response::new(body)
            }
        }))
        .await;
        let (busy, idle) = (client(), client());
        idle.send(&server.target(protocol), get("/idle")).await.unwrap();
        let response = busy.send(&server.target(protocol), get("/")).await.unwrap();
        let sender = reports.recv().await.unwrap();
        sender.send(Bytes::from_static(b"before ")).await.unwrap();
        server.tasks.cancel();
        let finish = async {
            while TcpStream::connect(server.addr).await.is_ok() {
                tokio::task::yield_now().await;
            }
            sender.send(Bytes::from_static(b"after")).await.unwrap();
            sender.finish(None).await.unwrap();
            read_all(response.into_body()).await.unwrap().0
        };
        let (aborted, body) = tokio::join!(server.tasks.shutdown(Duration::from_secs(30)), finish);
        assert_eq!((aborted, body), (0, Bytes::from_static(b"before after")), "{protocol:?}");
    }
}

#[tokio::test]
async fn what_does_not_end_is_aborted_and_seen_as_an_abort() {
    for protocol in BOTH {
        let server = Server::start(handler_fn(|_| async { Response::new(crate::support::endless()) })).await;
        let response = client().send(&server.target(protocol), get("/")).await.unwrap();
        assert!(server.tasks.shutdown(Duration::ZERO).await >= 1);
        assert!(read_all(response.into_body()).await.is_err());
    }
}

#[tokio::test]
async fn unix_sockets_are_served_without_a_peer_address() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let tasks = Tasks::new();
    let handler = handler_fn(|request: Request<Body>| async move {
        assert!(request.extensions().get::<PeerAddr>().is_none());
        Response::new(Body::full(pattern(3)))
    });
    drop(tasks.spawn("listener", serve(listener, handler, ServeLimits::default(), tasks.clone())));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&pattern(3)));
}
