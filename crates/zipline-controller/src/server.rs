//! Puts the controller together and runs it until it is told to end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use zipline_http::{Body, Handler, ServeLimits};
use zipline_https::{IdentityError, ServerIdentity};
use zipline_runtime::{Metrics, Tasks};

use crate::api::{Api, Doors};
use crate::config::Config;
use crate::guards::Guards;
use crate::kubernetes::{Kubernetes, KubernetesError};
use crate::masters::{Masters, MastersError};
use crate::metrics::ControllerMetrics;
use crate::modes::Board;
use crate::refusal::Refusal;
use crate::verify::Verifier;
use crate::zones::Zones;

/// How often the serving certificate's files are looked at.
const IDENTITY_EVERY: Duration = Duration::from_secs(10);
/// How long requests may still run once the controller is told to end; long polls end at once.
const GRACE: Duration = Duration::from_secs(10);
/// Every queue-proxy has one connection for its long poll, and a second one now and then.
const CONNECTIONS_MAX: usize = 32_768;

/// The controller cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A socket could not be taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no certificate to show.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is nothing to derive keys from.
    #[error(transparent)]
    Masters(#[from] MastersError),
    /// The API server cannot be asked.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
}

/// A controller whose sockets listen.
#[derive(Debug)]
pub struct Server {
    config: Config,
    tasks: Tasks,
    listener: TcpListener,
    admin: TcpListener,
    identity: ServerIdentity,
    kubernetes: Kubernetes,
    board: Board,
}

impl Server {
    /// Reads the secrets and takes the sockets. Nothing is served yet, and nobody was asked.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let tasks = Tasks::new();
        let identity = ServerIdentity::load(&config.tls)?;
        let board = Board::new(Masters::load(&config.masters)?, config.key_period);
        let kubernetes = Kubernetes::new(&config, tasks.clone())?;
        let listener = listen(config.listen).await?;
        let admin = listen(config.admin).await?;
        Ok(Self { config, tasks, listener, admin, identity, kubernetes, board })
    }

    /// Where it listens: for queue-proxies, and for health and metrics.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.listener.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until `end` resolves, then lets what runs end.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let Self { config, tasks, listener, admin, identity, kubernetes, board } = self;
        let registry = Metrics::new();
        let metrics = registry.register(ControllerMetrics::new);
        let guards = Arc::new(Guards::new());
        // Questions end before what answers them does.
        let questions = tasks.child();
        let doors = Doors::new(
            board.clone(),
            Verifier::new(kubernetes.clone()),
            Zones::new(kubernetes.clone()),
            Arc::clone(&guards),
            metrics.clone(),
            questions.token(),
        );
        let watched = identity.clone();
        spawn(&tasks, "certificate", async move { watched.watch(IDENTITY_EVERY).await });
        let (kept, watching) = (board.clone(), kubernetes.clone());
        spawn(&tasks, "board", async move { kept.run(watching, config).await });
        spawn(&tasks, "guards", async move { guards.run(kubernetes, metrics).await });
        let limits = ServeLimits {
            max_connections: CONNECTIONS_MAX,
            max_header_bytes: 32 * 1024,
            max_headers: 64,
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Some(Duration::from_secs(120)),
            max_concurrent_streams: 8,
            ..ServeLimits::default()
        };
        let api = Api::new(Arc::new(doors));
        drop(
            questions.spawn(
                "api",
                zipline_https::serve(listener, identity, api, limits.clone(), questions.clone()),
            ),
        );
        let limits = ServeLimits { max_connections: 64, ..limits };
        let health = Admin { registry, board, stop: questions.token() };
        drop(tasks.spawn("admin", zipline_http::serve(admin, health, limits, tasks.clone())));
        end.await;
        tracing::info!("draining");
        let aborted = questions.shutdown(GRACE).await;
        tasks.shutdown(Duration::from_secs(1)).await;
        tracing::info!(aborted, "ended");
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

/// A task that has no end of its own and stops when its owner is asked to.
fn spawn(tasks: &Tasks, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let stop = tasks.token();
    drop(tasks.spawn(name, async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }));
}

/// Health, readiness and metrics, for kubelet and Prometheus.
#[derive(Clone, Debug)]
struct Admin {
    registry: Metrics,
    board: Board,
    stop: tokio_util::sync::CancellationToken,
}

impl Handler for Admin {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::GET {
            return Refusal::NotFound.to_response();
        }
        let ready = !self.stop.is_cancelled() && self.board.subscribe().borrow().is_complete();
        let (status, content_type, text) = match request.uri().path() {
            "/healthz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" if ready => (StatusCode::OK, "text/plain", "ready\n".to_owned()),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "not ready\n".to_owned()),
            "/metrics" => (StatusCode::OK, Metrics::CONTENT_TYPE, self.registry.encode()),
            _ => return Refusal::NotFound.to_response(),
        };
        let mut response = Response::new(Body::full(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}
