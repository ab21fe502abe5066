//! `CONNECT`. To a function it is looked into: HTTP in clear becomes invokes. Everything else is a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use zipline_http::upgrade::{self, OnUpgrade};
use zipline_http::{Body, Handler, ServeLimits};
use zipline_protocol::{ErrorCode, FunctionName, InlineReason, ReferenceKind, Way};

use super::destination::Destination;
use super::sniff::{Start, sniff};
use super::tunnel::{self, Moved};
use crate::api::{Refusal, prepare};
use crate::edges::{Direction, Zones};
use crate::outbound;
use crate::state::{Shared, Transfer};

/// Longest time to connect to one address outside.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the first bytes of a tunnel to a function.
const FIRST_BYTES: Duration = Duration::from_secs(30);

pub(super) async fn connect(
    shared: &Arc<Shared>,
    tunnels: &Arc<Semaphore>,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let authority = request.uri().authority().ok_or_else(|| Refusal::invalid("CONNECT names no host"))?;
    let destination = Destination::new(authority, None)?;
    let place = Arc::clone(tunnels)
        .try_acquire_owned()
        .map_err(|_full| Refusal::new(ErrorCode::BufferFull, "too many tunnels are open already"))?;
    let upgrade = upgrade::on(&mut request);
    let tunnel = Tunnel { shared: Arc::clone(shared), upgrade, place };
    match destination.function(shared) {
        Some(function) => {
            drop(shared.tasks.spawn("tunnel to a function", tunnel.look_into(destination, function)))
        }
        None => {
            let upstream = dial(shared, &destination).await?;
            drop(shared.tasks.spawn("tunnel", tunnel.pass(upstream)));
        }
    }
    // Any 2xx is an agreement without a body.
    Ok(Response::new(Body::empty()))
}

/// Connects to the first address that answers.
async fn dial(shared: &Shared, destination: &Destination) -> Result<TcpStream, Refusal> {
    let addresses = destination.resolve(shared).await?;
    let mut last = String::new();
    for address in addresses {
        match connect_to(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Refusal::new(ErrorCode::UpstreamFailed, format_args!("{destination} cannot be connected: {last}")))
}

async fn connect_to(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A tunnel that was agreed upon, with its place among all.
struct Tunnel {
    shared: Arc<Shared>,
    upgrade: OnUpgrade,
    place: OwnedSemaphorePermit,
}

impl Tunnel {
    /// Moves bytes, whatever they are.
    async fn pass(self, upstream: TcpStream) {
        match upgrade::into_stream(self.upgrade).await {
            Ok(client) => {
                tunnel::run(client, upstream, tunnel::IDLE).await;
            }
            Err(error) => tracing::debug!(%error, "the client gave its tunnel up"),
        }
        drop(self.place);
    }

    /// Serves HTTP as invokes; passes the rest on to where the client wanted to go.
    async fn look_into(self, destination: Destination, function: FunctionName) {
        let Self { shared, upgrade, place } = self;
        let start = async { sniff(upgrade::into_stream(upgrade).await?).await };
        let (start, client) = match timeout(FIRST_BYTES, start).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return tracing::debug!(%error, "the client gave its tunnel up"),
            Err(_elapsed) => return tracing::debug!("nothing came through a tunnel to a function"),
        };
        match start {
            Start::Http => {
                let door = FunctionDoor { shared: Arc::clone(&shared), function };
                let limits = ServeLimits::default();
                zipline_http::serve_connection(client, None, door, &limits, shared.tasks.token()).await;
            }
            Start::Tls | Start::Other => opaque(&shared, client, &destination, function, start).await,
        }
        drop(place);
    }
}

/// Bytes to a function that nobody can look into.
async fn opaque(
    shared: &Shared,
    client: impl AsyncRead + AsyncWrite,
    destination: &Destination,
    function: FunctionName,
    start: Start,
) {
    let started = Instant::now();
    let moved = match dial(shared, destination).await {
        Ok(upstream) => tunnel::run(client, upstream, tunnel::IDLE).await,
        Err(refusal) => {
            // The tunnel has been agreed upon, so all that is left is to close it.
            tracing::debug!(?refusal, "a tunnel to a function cannot be connected");
            Moved::default()
        }
    };
    let reason = if start == Start::Tls { InlineReason::Https } else { InlineReason::NotEligible };
    shared.record(Transfer {
        direction: Direction::Sent,
        kind: ReferenceKind::Request,
        peer: Some(function),
        way: Way::Inline,
        reason: Some(reason),
        zones: Zones::Unknown,
        bytes: moved.up_bytes,
        elapsed: started.elapsed(),
    });
}

/// Takes the requests inside a tunnel to one function.
#[derive(Clone)]
struct FunctionDoor {
    shared: Arc<Shared>,
    function: FunctionName,
}

impl Handler for FunctionDoor {
    async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        prepare(&mut request, path);
        Box::pin(outbound::invoke(&self.shared, self.function.clone(), request)).await
    }
}
