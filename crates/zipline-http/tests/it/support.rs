//! Servers on ports of their own and bodies to send.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zipline_http::{
    Body, BodyError, Client, ClientConfig, Frame, Handler, Protocol, ServeLimits, Target, proxy, serve,
};
use zipline_runtime::Tasks;

pub(crate) const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) tasks: Tasks,
}

impl Server {
    pub(crate) async fn start(handler: impl Handler) -> Self {
        Self::with_limits(handler, ServeLimits::default()).await
    }

    pub(crate) async fn with_limits(handler: impl Handler, limits: ServeLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        drop(tasks.spawn("listener", serve(listener, handler, limits, tasks.clone())));
        Self { addr, tasks }
    }

    /// A server that passes everything on.
    pub(crate) async fn proxy(to: SocketAddr, upstream: Protocol) -> Self {
        let client = client();
        Self::start(zipline_http::handler_fn(move |mut request: Request<Body>| {
            let client = client.clone();
            async move {
                proxy::request_for_upstream(&mut request, None);
                let target = Target { addr: to.into(), protocol: upstream };
                match client.send(&target, request).await {
                    Ok(mut response) => {
                        proxy::response_for_downstream(&mut response);
                        response
                    }
                    Err(error) => {
                        Response::builder().status(502).body(Body::from(error.to_string())).unwrap()
                    }
                }
            }
        }))
        .await
    }

    pub(crate) fn target(&self, protocol: Protocol) -> Target {
        Target { addr: self.addr.into(), protocol }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }
}

pub(crate) fn client() -> Client {
    Client::new(ClientConfig::default(), Tasks::new())
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).unwrap()
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect::<Vec<_>>().into()
}

/// The bytes in frames of at most 64 KiB, of a length nobody is told.
pub(crate) fn unknown_length(bytes: Bytes) -> Body {
    let chunks: Vec<_> =
        bytes.chunks(65_536).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
    Body::from_frames(stream::iter(chunks))
}

/// Never ends.
pub(crate) fn endless() -> Body {
    let chunk = pattern(65_536);
    Body::from_frames(stream::repeat_with(move || Ok(Frame::data(chunk.clone()))))
}

pub(crate) async fn read_all(mut body: Body) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    let mut bytes = Vec::new();
    let mut trailers = None;
    while let Some(frame) = body.data().await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((bytes.into(), trailers))
}

/// Reads from a raw connection until `until` has come.
pub(crate) async fn read_until(stream: &mut TcpStream, until: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(until.as_bytes()) {
        assert_ne!(stream.read(&mut byte).await.unwrap(), 0, "ended at {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

pub(crate) async fn exchange_raw(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
