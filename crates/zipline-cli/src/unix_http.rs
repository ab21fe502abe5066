//! HTTP/1.1 over a Unix socket: how commands talk to the engine and to local APIs.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use zipline_runtime::{AbortOnDrop, Tasks};

/// A request's body.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// No body.
pub(crate) fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is all there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// One connection. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: http1::SendRequest<RequestBody>,
    /// Process id of who listens.
    pub(crate) peer: Option<i32>,
    _driver: AbortOnDrop,
}

impl Connection {
    pub(crate) async fn open(tasks: &Tasks, socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tasks.spawn_owned("unix http connection", async move {
            // What breaks here breaks the request as well, where it is reported.
            let _ = connection.await;
        });
        Ok(Self { sender, peer, _driver: driver })
    }

    /// # Cancel safety
    /// Dropping the future may leave the connection unusable.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}
