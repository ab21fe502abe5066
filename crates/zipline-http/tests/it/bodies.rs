//! Complete exchanges: lengths, trailers, `Expect`, HEAD, streaming both ways.

use crate::support::{
    BOTH, Server, client, exchange_raw, get, pattern, post, read_all, read_until, unknown_length,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use zipline_http::{Body, Client, ClientConfig, Protocol, Target, handler_fn, proxy};
use zipline_runtime::Tasks;

async fn echo(request: Request<Body>) -> Response<Body> {
    let length = format!("{:?}", request.body().exact_length());
    let version = format!("{:?}", request.version());
    let trailer = request.headers().get("trailer").cloned();
    let mut response = Response::new(request.into_body());
    response.headers_mut().insert("x-length", HeaderValue::from_str(&length).unwrap());
    response.headers_mut().insert("x-version", HeaderValue::from_str(&version).unwrap());
    if let Some(trailer) = trailer {
        response.headers_mut().insert("trailer", trailer);
    }
    response
}

#[tokio::test]
async fn known_and_unknown_lengths_arrive_whole() {
    let server = Server::start(handler_fn(echo)).await;
    let client = client();
    let bytes = pattern(5_000_000);
    for protocol in BOTH {
        for length in [0, 1, 65_536, 5_000_000] {
            let bytes = bytes.slice(..length);
            let sent = post("/", bytes.clone());
            let response = client.send(&server.target(protocol), sent).await.unwrap();
            assert_eq!(response.headers()["x-length"], format!("Some({length})"));
            assert_eq!(response.body().exact_length(), Some(length as u64));
            assert_eq!(read_all(response.into_body()).await.unwrap().0, bytes);

            let response = client
                .send(&server.target(protocol), post("/", unknown_length(bytes.clone())))
                .await
                .unwrap();
            assert_eq!(response.headers()["x-length"], "None");
            assert_eq!(read_all(response.into_body()).await.unwrap().0, bytes);
        }
    }
}

fn with_trailers(bytes: Bytes) -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = vec![Ok(zipline_http::Frame::data(bytes)), Ok(zipline_http::Frame::trailers(trailers))];
    Body::from_frames(futures_util::stream::iter(frames))
}

#[tokio::test]
async fn trailers_survive_both_ways_directly_and_proxied() {
    let server = Server::start(handler_fn(echo)).await;
    let client = client();
    for upstream in BOTH {
        let proxied = Server::proxy(server.addr, upstream).await;
        for downstream in BOTH {
            for target in [server.target(downstream), proxied.target(downstream)] {
                for known in [false, true] {
                    let mut request = post("/", with_trailers(pattern(1000)));
                    proxy::accept_trailers(request.headers_mut());
                    proxy::announce_trailers(request.headers_mut(), ["x-sum"]);
                    if known {
                        request.headers_mut().insert("content-length", HeaderValue::from_static("1000"));
                    }
                    let response = client.send(&target, request).await.unwrap();
                    let (bytes, trailers) = read_all(response.into_body()).await.unwrap();
                    assert_eq!(bytes, pattern(1000));
                    assert_eq!(trailers.expect("trailers")["x-sum"], "42", "{downstream:?} to {upstream:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_keeps_the_protocol_it_is_asked_with() {
    let server = Server::start(handler_fn(echo)).await;
    for (protocol, version) in [(Protocol::Http1, "HTTP/1.1"), (Protocol::Http2, "HTTP/2.0")] {
        let proxied = Server::proxy(server.addr, protocol).await;
        let response = client().send(&proxied.target(protocol), get("/")).await.unwrap();
        assert_eq!(response.headers()["x-version"], version);
    }
}

#[tokio::test]
async fn host_and_authority_are_the_requests_own() {
    let server = Server::start(handler_fn(|request: Request<Body>| async move {
        let host = request
            .uri()
            .authority()
            .map(ToString::to_string)
            .or_else(|| request.headers().get("host").map(|host| host.to_str().unwrap().to_owned()));
        let cookies = request.headers().get_all("cookie").iter().count();
        Response::new(Body::from(format!("{} {} {cookies}", host.unwrap(), request.uri().path())))
    }))
    .await;
    for (protocol, cookies) in [(Protocol::Http1, 1), (Protocol::Http2, 2)] {
        for uri in ["/a", "http://f.default.svc/a"] {
            let mut request = get(uri);
            if uri == "/a" {
                request.headers_mut().insert("host", HeaderValue::from_static("f.default.svc"));
            }
            request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
            request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
            let response = client().send(&server.target(protocol), request).await.unwrap();
            let (text, _) = read_all(response.into_body()).await.unwrap();
            assert_eq!(text, format!("f.default.svc /a {cookies}"));
        }
    }
}

#[tokio::test]
async fn head_keeps_the_length_and_has_no_body() {
    let server = Server::start(handler_fn(|_| async { Response::new(Body::full(pattern(1000))) })).await;
    let client = client();
    for upstream in BOTH {
        let proxied = Server::proxy(server.addr, upstream).await;
        for target in [server.target(upstream), proxied.target(upstream)] {
            for _ in 0..3 {
                let request = Request::head("/").body(Body::empty()).unwrap();
                let response = client.send(&target, request).await.unwrap();
                assert_eq!(response.headers()["content-length"], "1000", "{upstream:?}");
                assert_eq!(read_all(response.into_body()).await.unwrap().0.len(), 0);
            }
        }
    }
    assert_eq!(client.statistics().opened, 4);
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let server = Server::start(handler_fn(echo)).await;
    for upstream in BOTH {
        let proxied = Server::proxy(server.addr, upstream).await;
        for downstream in BOTH {
            let (sender, body) = Body::channel(1);
            sender.send(Bytes::from_static(b"0")).await.unwrap();
            let client = client();
            let response = client.send(&proxied.target(downstream), post("/", body)).await.unwrap();
            let mut body = response.into_body();
            for turn in 0..100_u32 {
                let frame = body.data().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), turn.to_string());
                sender.send((turn + 1).to_string().into()).await.unwrap();
            }
            sender.finish(None).await.unwrap();
            assert_eq!(read_all(body).await.unwrap().0, "100");
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(handler_fn(echo)).await;
    let mut stream = server.connect().await;
    let text = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\none\
                POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
                POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nthree";
    let answers = exchange_raw(&mut stream, text).await.unwrap();
    let places: Vec<_> = ["one", "two", "three"].iter().map(|body| answers.find(body).unwrap()).collect();
    assert!(places.is_sorted());
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn continue_is_said_when_the_body_is_read() {
    let (go, waiting) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (go_on, called) = (Arc::clone(&go), Arc::clone(&waiting));
    let server = Server::start(handler_fn(move |request: Request<Body>| {
        let (go_on, called) = (Arc::clone(&go_on), Arc::clone(&called));
        async move {
            called.notify_one();
            go_on.notified().await;
            let (bytes, _) = read_all(request.into_body()).await.unwrap();
            Response::new(Body::full(bytes))
        }
    }))
    .await;
    for proxied in [false, true] {
        let server =
            if proxied { Server::proxy(server.addr, Protocol::Http1).await } else { server_copy(&server) };
        let mut stream = server.connect().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        waiting.notified().await;
        let early = stream.try_read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(early, Err(std::io::ErrorKind::WouldBlock));
        go.notify_one();
        assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(exchange_raw(&mut stream, "abc").await.unwrap().ends_with("abc"));
    }
}

fn server_copy(server: &Server) -> Server {
    Server { addr: server.addr, tasks: server.tasks.clone() }
}

#[tokio::test]
async fn the_client_waits_for_continue_but_not_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::http1(listener.local_addr().unwrap());
    let config = ClientConfig { continue_timeout: Duration::from_millis(20), ..ClientConfig::default() };
    let client = Client::new(config, Tasks::new());
    let request = || {
        let mut request = post("/", Bytes::from_static(b"abc"));
        request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
        request
    };
    for says_continue in [true, false] {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            if says_continue {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            }
            let mut body = [0; 3];
            stream.read_exact(&mut body).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(&body, b"abc");
        };
        let (response, ()) = tokio::join!(client.send(&target, request()), serve);
        assert_eq!(response.unwrap().status(), 200);
    }
    // Refused: the body is never sent.
    let client = Client::new(ClientConfig::default(), Tasks::new());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    };
    let (response, ()) = tokio::join!(client.send(&target, request()), serve);
    assert_eq!(response.unwrap().status(), 417);
}
