//! Connections that stop speaking HTTP.

use crate::support::{Server, client};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zipline_http::{Body, Client, Protocol, Target, handler_fn, hop, proxy, upgrade};
use zipline_runtime::Tasks;

/// Upgrades to "echo": says hello, then sends back everything in one go when the client has ended its side.
fn echo_server(tasks: Tasks) -> impl zipline_http::Handler {
    handler_fn(move |mut request: Request<Body>| {
        let tasks = tasks.clone();
        async move {
            let Some(protocol) = hop::upgrade_protocol(request.headers()) else {
                return Response::builder().status(400).body(Body::empty()).unwrap();
            };
            let upgrade = upgrade::on(&mut request);
            drop(tasks.spawn("echo", async move {
                let mut stream = upgrade::into_stream(upgrade).await.unwrap();
                stream.write_all(b"hello ").await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
                stream.shutdown().await.unwrap();
            }));
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            hop::set_upgrade(response.headers_mut(), protocol);
            response
        }
    })
}

fn tunnelling_proxy(client: Client, target: Target, tasks: Tasks) -> impl zipline_http::Handler {
    handler_fn(move |mut request: Request<Body>| {
        let (client, target, tasks) = (client.clone(), target.clone(), tasks.clone());
        async move {
            assert!(hop::is_upgrade(&request));
            let downstream = upgrade::on(&mut request);
            proxy::request_for_upstream(&mut request, None);
            let mut response = client.send(&target, request).await.unwrap();
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                let upstream = upgrade::on(&mut response);
                drop(
                    tasks
                        .spawn("tunnel", async move { upgrade::tunnel(downstream, upstream).await.unwrap() }),
                );
            }
            proxy::response_for_downstream(&mut response);
            response
        }
    })
}

#[tokio::test]
async fn an_upgraded_connection_is_tunnelled_with_half_close() {
    let tasks = Tasks::new();
    let server = Server::start(echo_server(tasks.clone())).await;
    let upstream_client = client();
    let handler = tunnelling_proxy(upstream_client.clone(), server.target(Protocol::Http1), tasks.clone());
    let proxied = Server::start(handler).await;
    for addr in [server.addr, proxied.addr] {
        let client = client();
        let mut request = Request::get("/").header("connection", "Upgrade").header("upgrade", "echo");
        request = request.header("host", "a");
        let request = request.body(Body::empty()).unwrap();
        let mut response = client.send(&Target::http1(addr), request).await.unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["upgrade"], "echo");
        let mut stream = upgrade::into_stream(upgrade::on(&mut response)).await.unwrap();
        drop(response);
        let bytes = crate::support::pattern(3_000_000);
        let mut hello = [0; 6];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello ");
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert!(all == bytes, "{} bytes came back", all.len());
    }
    tasks.idle().await;
    assert_eq!(upstream_client.statistics().opened, 1);
}

#[tokio::test]
async fn connect_reaches_a_stream() {
    let tasks = Tasks::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(tasks.spawn("target", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all.reverse();
        stream.write_all(&all).await.unwrap();
    }));
    let spawn = tasks.clone();
    let proxied = Server::start(handler_fn(move |mut request: Request<Body>| {
        let tasks = spawn.clone();
        async move {
            assert_eq!(request.uri().authority().unwrap().as_str(), addr.to_string());
            let downstream = upgrade::on(&mut request);
            let upstream = tokio::net::TcpStream::connect(addr).await.unwrap();
            drop(
                tasks.spawn("tunnel", async move { upgrade::tunnel_to(downstream, upstream).await.unwrap() }),
            );
            Response::new(Body::empty())
        }
    }))
    .await;
    let mut stream = proxied.connect().await;
    let head = format!("CONNECT {addr} HTTP/1.1\r\nhost: {addr}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(crate::support::read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    stream.write_all(b"abc").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"cba");
    tasks.idle().await;
}
