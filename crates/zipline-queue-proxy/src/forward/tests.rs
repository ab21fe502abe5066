use std::net::SocketAddr;

use base64::Engine as _;
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zipline_http::{Body, ServeLimits, handler_fn};
use zipline_protocol::ErrorCode;
use zipline_runtime::Tasks;

use super::*;
use crate::server::tests::{Proxy, TOKEN, until};

/// A server that tells what it was asked.
async fn upstream(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = handler_fn(|request: Request<Body>| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect_up_to(1 << 20).await.unwrap();
        let host = parts.headers.get("host").map_or("-", |host| host.to_str().unwrap()).to_owned();
        let mut names: Vec<_> = parts.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        let told = format!("{} {} {host} {} [{}]", parts.method, parts.uri, body.len(), names.join(" "));
        Response::builder()
            .header("x-kept", "yes")
            .header("connection", "x-gone")
            .header("x-gone", "1")
            .body(Body::full(told))
            .unwrap()
    });
    drop(
        tasks
            .spawn("upstream", zipline_http::serve(listener, handler, ServeLimits::default(), tasks.clone())),
    );
    address
}

fn credentials() -> String {
    format!("Basic {}", STANDARD.encode(format!("zipline:{TOKEN}")))
}

async fn connection(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.addresses.api).await.unwrap()
}

/// Everything that comes back for `request` until the connection is closed.
async fn exchange(proxy: &Proxy, request: String) -> String {
    let mut stream = connection(proxy).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn plain(uri: &str, more: &str) -> String {
    format!(
        "POST {uri} HTTP/1.1\r\nHost: wrong.example\r\nProxy-Authorization: {}\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
         X-Mine: 1\r\nContent-Length: 5\r\n{more}\r\nhello",
        credentials()
    )
}

#[tokio::test]
async fn anything_but_a_function_passes_through() {
    let tasks = Tasks::new();
    let server = upstream(&tasks).await;
    let proxy = Proxy::start(&[]).await;
    let token = format!("Zipline-Token: {TOKEN}\r\n");
    let answer = exchange(&proxy, plain(&format!("http://{server}/a/b?c=%20d"), &token)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let told = format!("POST /a/b?c=%20d {server} 5 [content-length host x-mine]");
    assert!(answer.ends_with(&told), "{answer}");
    assert!(answer.contains("x-kept: yes") && !answer.contains("x-gone"), "{answer}");
}

#[tokio::test]
async fn a_function_is_invoked() {
    let tasks = Tasks::new();
    let gateway = upstream(&tasks).await.to_string();
    let proxy = Proxy::start(&[("ZIPLINE_GATEWAY", &gateway)]).await;
    for host in ["recog.vid.svc.cluster.local", "recog.vid.svc:80", "recog.vid.localhost"] {
        let answer = exchange(&proxy, plain(&format!("http://{host}/x?y=1"), "")).await;
        assert!(answer.contains("\r\n\r\nPOST /x?y=1 recog.vid.svc.cluster.local 5 ["), "{answer}");
        assert!(!answer.contains("x-hop") && !answer.contains("proxy-authorization"), "{answer}");
    }
}

#[tokio::test]
async fn without_the_token_nothing_is_forwarded() {
    let proxy = Proxy::start(&[]).await;
    let wrong = STANDARD.encode(format!("zipline:{TOKEN}x"));
    let other = STANDARD.encode(format!("other:{TOKEN}"));
    for shown in [
        String::new(),
        format!("Basic {wrong}"),
        format!("Basic {other}"),
        "Basic !".into(),
        format!("Bearer {TOKEN}"),
    ] {
        for line in ["GET http://example.invalid/", "CONNECT example.invalid:443"] {
            let request = format!(
                "{line} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: {shown}\r\nConnection: close\r\n\r\n"
            );
            let answer = exchange(&proxy, request).await;
            assert!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
            assert!(answer.contains("proxy-authenticate: Basic realm=\"zipline\""), "{answer}");
            assert!(answer.contains("zipline-error: token-missing"), "{answer}");
        }
    }
}

#[tokio::test]
async fn loops_and_what_cannot_be_forwarded_are_refused() {
    let proxy = Proxy::start(&[]).await;
    let own = proxy.addresses;
    for uri in [
        format!("http://{}/v1/payload", own.api),
        format!("http://0.0.0.0:{}/", own.admin.port()),
        format!("http://localhost:{}/", own.data.port()),
        "https://example.invalid/".into(),
        "http://example.invalid:0/".into(),
    ] {
        let answer = exchange(&proxy, plain(&uri, "")).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains(ErrorCode::RequestInvalid.as_str()),
            "{uri} {answer}"
        );
    }
    for uri in ["http://example.invalid/", "http://127.0.0.1:1/"] {
        let answer = exchange(&proxy, plain(uri, "")).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream-failed"), "{uri} {answer}");
    }
    let (stream, answer) = open(&proxy, &own.api.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    drop(stream);
    let (_stream, answer) = open(&proxy, "127.0.0.1:1").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

/// Asks for a tunnel; gives the stream and the head of the answer.
async fn open(proxy: &Proxy, to: &str) -> (TcpStream, String) {
    let mut stream = connection(proxy).await;
    let request =
        format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: {}\r\n\r\n", credentials());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

#[tokio::test]
async fn a_tunnel_passes_bytes_and_closes_by_halves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(&[]).await;
    let (mut client, head) = open(&proxy, &listener.local_addr().unwrap().to_string()).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"\x16\x03question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = Vec::new();
    server.read_to_end(&mut asked).await.unwrap();
    assert_eq!(asked, b"\x16\x03question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answered = Vec::new();
    client.read_to_end(&mut answered).await.unwrap();
    assert_eq!(answered, b"answer");
    until(|| proxy.shared.edges.rows().is_empty()).await;
}

#[tokio::test]
async fn http_inside_a_tunnel_to_a_function_is_an_invoke() {
    let tasks = Tasks::new();
    let gateway = upstream(&tasks).await.to_string();
    let proxy = Proxy::start(&[("ZIPLINE_GATEWAY", &gateway)]).await;
    let (mut client, head) = open(&proxy, "recog.vid.svc.cluster.local:80").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client
        .write_all(b"PUT /x HTTP/1.1\r\nHost: else\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\r\n\r\nPUT /x recog.vid.svc.cluster.local 2 ["), "{answer}");
}

#[tokio::test]
async fn http2_inside_a_tunnel_to_a_function_is_an_invoke() {
    let tasks = Tasks::new();
    let gateway = upstream(&tasks).await.to_string();
    let proxy = Proxy::start(&[("ZIPLINE_GATEWAY", &gateway)]).await;
    let (client, _) = open(&proxy, "recog.vid.svc.cluster.local:80").await;
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(client);
    let (mut sender, driver) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    drop(tasks.spawn("h2 client", async move { drop(driver.await) }));
    let request = Request::post("http://recog.vid.svc.cluster.local/pkg.Service/Call")
        .body(Body::full("12345"))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let told = Body::from_incoming(response.into_body()).collect_up_to(1000).await.unwrap();
    let told = String::from_utf8(told.to_vec()).unwrap();
    assert!(told.contains("/pkg.Service/Call"), "{told}");
    assert!(told.contains("recog.vid.svc.cluster.local"), "{told}");
}

#[tokio::test]
async fn tls_to_a_function_is_counted_and_never_looked_into() {
    let tasks = Tasks::new();
    let gateway = upstream(&tasks).await.to_string();
    let proxy = Proxy::start(&[("ZIPLINE_GATEWAY", &gateway)]).await;
    let (mut client, head) = open(&proxy, "recog.vid.svc.cluster.local:443").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client.write_all(b"\x16\x03\x01").await.unwrap();
    // The name means nothing to the machine's resolver, so the tunnel is closed.
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
    until(|| !proxy.shared.edges.rows().is_empty()).await;
    let row = proxy.shared.edges.rows().remove(0);
    assert_eq!((row.peer_service.as_str(), row.way, row.reason), ("recog.vid", "inline", "https"));
}
