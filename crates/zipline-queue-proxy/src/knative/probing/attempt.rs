//! One attempt of one probe.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use zipline_http::Resolver;
use zipline_knative::probe::Check;
use zipline_runtime::Tasks;

use super::trust::{Trust, TrustFiles};
use super::{grpc, http};

/// What attempts need.
#[derive(Debug)]
pub(super) struct Means {
    detect_http2: bool,
    pub(super) trust: Trust,
    /// Owns the connections of attempts over HTTP/2.
    pub(super) tasks: Tasks,
}

impl Means {
    pub(super) fn new(detect_http2: bool, trust: TrustFiles, tasks: Tasks) -> Self {
        Self { detect_http2, trust: Trust::new(trust), tasks }
    }

    /// Whether the check passes; else why not. Each of its requests takes at most `limit`.
    pub(super) async fn attempt(&self, check: &Check, limit: Duration) -> Result<(), String> {
        match check {
            Check::Tcp { host, port } => within(limit, connect(host, *port)).await.map(drop),
            Check::Grpc { port, service } => within(limit, grpc::check(self, *port, service)).await,
            Check::Http { .. } => {
                let get = http::Get::of(check);
                if !self.detect_http2 {
                    return within(limit, http::get(self, get, false)).await;
                }
                let bare = get.bare();
                match within(limit, http::get(self, bare, true)).await {
                    Ok(()) => within(limit, http::get(self, get, true)).await,
                    Err(_) => within(limit, http::get(self, bare, false)).await,
                }
            }
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

/// Connects; where nobody listens on an ephemeral port, the kernel may connect the socket to itself.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    // Nearly always an address: a resolver costs nothing before it is asked for a name, and then it must not remember.
    let addresses = Resolver::system().resolve(host, port).await.map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(&*addresses).await.map_err(|error| error.to_string())?;
    if stream.local_addr().ok() == stream.peer_addr().ok() {
        return Err("connected to itself: nobody listens".to_owned());
    }
    Ok(stream)
}
