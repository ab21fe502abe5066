//! Binds every port of a queue-proxy in a Knative pod, then runs them until the end.
//!
//! Ports of Knative must be free: one that is not ends the process. Zipline's own may be taken by a user's container; then
//! payloads go inline, or the local API is missing, and that is told.
//!
//! # Source
//! knative/serving `pkg/queue/sharedmain/{main,servers}.go`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use zipline_buffer::{Store, StoreConfig};
use zipline_http::{ClientConfig, HostPort, ServeLimits, serve};
use zipline_knative::contract::IDLE_CONNECTIONS;
use zipline_protocol::controller;
use zipline_runtime::Tasks;
use zipline_seal::{Keyring, new_boot_id};
use zipline_transfer::{CertificateMakingError, DataCertificate, DataPort, DataPortConfig};

use super::admin::DrainPort;
use super::chain::{Chain, Core};
use super::drain::Drainer;
use super::observe::Observer;
use super::passage::InFlight;
use super::probing::Prober;
use super::settings::KnativeConfig;
use super::stats::Stats;
use super::telemetry_doors::{TelemetryBindError, TelemetryDoors};
use super::tls::{self, Certificate, TlsError};
use super::{shutdown, tls_door};
use crate::admin::Admin;
use crate::guidance::Guidance;
use crate::keys::controller::{Controller, ControllerConfig};
use crate::keys::holding;
use crate::local::Local;
use crate::sdk;
use crate::server::{self, Parts, Socket, keep_warm, serve_data, spawn};
use crate::state::Shared;

/// Connections of one serving port. Go's servers have no bound; this one is above what a pod can have descriptors for.
const CONNECTIONS_MAX: usize = 65_536;
/// Longest header block, as Go's server with its slack.
const HEADER_BYTES_MAX: usize = (1 << 20) + 4096;
/// Most fields of one head. Go's server has no such bound; this is half of what a header map can hold.
const HEADERS_MAX: usize = 16 * 1024;
/// First attempt to connect to the function (`knative.dev/pkg/network/transports.go`).
const DIAL_FIRST: Duration = Duration::from_millis(50);
/// All of them: what Knative's fifteen attempts with their pauses come to.
const DIAL_MAX: Duration = Duration::from_secs(21);
/// Streams of one HTTP/2 connection at a time, as Go's server.
const STREAMS_MAX: u32 = 250;

/// Where a queue-proxy in a pod listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnativeAddresses {
    /// Requests to the function.
    pub serving: SocketAddr,
    /// The same over TLS, if there is a certificate.
    pub serving_tls: Option<SocketAddr>,
    /// Where kubelet waits for the end of the drain.
    pub admin: SocketAddr,
    /// Where the autoscaler scrapes.
    pub stats: SocketAddr,
    /// Local API and forward proxy, if its port was free.
    pub local_api: Option<SocketAddr>,
    /// What other queue-proxies retrieve from, if its port was free.
    pub data: Option<SocketAddr>,
    /// Zipline's own status, if its port was free.
    pub status: Option<SocketAddr>,
    /// Where Prometheus scrapes, if it does.
    pub user_metrics: Option<SocketAddr>,
    /// Where profiles are refused, if they are asked for.
    pub profiling: Option<SocketAddr>,
}

/// Why a queue-proxy could not be started in a pod.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnativeBindError {
    /// A port of Knative's is not free.
    #[error("{door} server failed to serve: listen tcp {address}")]
    Listen {
        /// Which server, in Knative's words.
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The TLS port has files it cannot use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The variables of the TLS port are not valid.
    #[error("failed to read TLS configuration from environment")]
    TlsVariables(#[from] zipline_knative::tls::TlsError),
    /// The data port has no certificate to show.
    #[error(transparent)]
    Certificate(#[from] CertificateMakingError),
    /// Telemetry cannot be as it is configured.
    #[error(transparent)]
    Telemetry(#[from] TelemetryBindError),
}

pub(super) type Bound = (TcpListener, SocketAddr);

/// A queue-proxy whose ports listen; [`KnativeServer::run`] serves them.
#[derive(Debug)]
pub struct KnativeServer {
    config: KnativeConfig,
    shared: Arc<Shared>,
    serving: Bound,
    serving_tls: Option<(Bound, Secured)>,
    admin: Bound,
    stats: Bound,
    local_api: Option<Bound>,
    socket: Option<Socket>,
    data: Option<DataPort>,
    status: Option<Bound>,
    telemetry: TelemetryDoors,
    observer: Option<Arc<dyn Observer>>,
}

/// What the TLS port needs.
struct Secured {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured").finish_non_exhaustive()
    }
}

impl KnativeServer {
    /// Takes every port. Connections wait in the kernel's queues until the server runs.
    ///
    /// # Errors
    /// [`KnativeBindError`] names the server and the address, or what is wrong with TLS.
    pub fn bind(config: KnativeConfig) -> Result<Self, KnativeBindError> {
        let environment = &config.environment;
        let serving = must("main", config.at(environment.serving_port))?;
        let admin = must("admin", config.at(config.ports.admin))?;
        let stats = must("metrics", config.at(config.ports.stats))?;
        let serving_tls = match config.certificate.exist()? {
            true => {
                let certificate = Certificate::load(config.certificate.clone())?;
                let acceptor = tls::acceptor(&environment.tls.resolve()?, Arc::clone(&certificate))?;
                let bound = must("main tls", config.at(environment.serving_tls_port))?;
                Some((bound, Secured { acceptor, certificate }))
            }
            false => None,
        };
        let telemetry = TelemetryDoors::bind(&config)?;
        let own = config.own();
        let loopback = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let local_api = may("the local API", loopback(own.ports.api));
        let socket = own.socket.as_deref().map(Socket::bind).transpose();
        let socket = socket.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "functions cannot use the SDK's socket; the local API stays");
            None
        });
        let status = may("Zipline's status", loopback(own.ports.admin));
        let keyring = Keyring::new(own.function.namespace());
        let boot = new_boot_id();
        let store = Store::new(StoreConfig {
            digest_max_bytes: own.digest_max_bytes,
            ..StoreConfig::with_budget(own.budget_bytes)
        });
        let certificate = own.data_tls.then(DataCertificate::generate).transpose()?;
        let data_certificate = certificate.as_ref().map(DataCertificate::digest);
        let data = bind_data(&config, |address| {
            let port =
                DataPortConfig { certificate: certificate.clone(), ..DataPortConfig::new(address, boot) };
            DataPort::bind(port, keyring.clone(), store.clone())
        });
        let data_at = data.as_ref().map(DataPort::local_addr);
        let bound =
            [Some(&serving), serving_tls.as_ref().map(|(bound, _)| bound), Some(&admin), Some(&stats)];
        let listeners = bound.into_iter().chain([local_api.as_ref(), status.as_ref()]).flatten();
        let listeners = listeners.map(|(_, address)| *address).chain(data_at).collect();
        let shared = Arc::new(server::assemble(Parts {
            client: client(own.container_concurrency),
            config: own,
            keyring,
            store,
            boot,
            data: data_at,
            data_monitor: data.as_ref().map(DataPort::monitor),
            data_certificate,
            listeners,
            // Whoever sends requests has asked for readiness before.
            ready: true,
            guidance: Guidance::awaited(),
        }));
        Ok(Self {
            config,
            shared,
            serving,
            serving_tls,
            admin,
            stats,
            local_api,
            socket,
            data,
            status,
            observer: telemetry.telemetry.is_on().then(|| Arc::new(telemetry.telemetry.clone()) as _),
            telemetry,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> KnativeAddresses {
        let at = |bound: &Bound| bound.1;
        let (user_metrics, profiling) = self.telemetry.addresses();
        KnativeAddresses {
            serving: at(&self.serving),
            serving_tls: self.serving_tls.as_ref().map(|(bound, _)| at(bound)),
            admin: at(&self.admin),
            stats: at(&self.stats),
            local_api: self.local_api.as_ref().map(at),
            data: self.data.as_ref().map(DataPort::local_addr),
            status: self.status.as_ref().map(at),
            user_metrics,
            profiling,
        }
    }

    /// What its doors share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has every request observed, in place of telemetry.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Serves until `ending` is cancelled, and then through the phases of the end (the module `shutdown` says which).
    ///
    /// # Cancel safety
    /// Dropping the future leaves the tasks to their owner: cancel the `tasks` of [`KnativeServer::shared`] then.
    pub async fn run(self, ending: CancellationToken) {
        let addresses = self.addresses();
        let Self {
            config,
            shared,
            serving,
            serving_tls,
            admin,
            stats: scraped,
            local_api,
            socket,
            data,
            status,
            telemetry,
            observer,
        } = self;
        // Requests to the function end first, everything they may need later.
        let (requests, doors) = (shared.tasks.child(), shared.tasks.child());
        let drainer = Arc::new(Drainer::new(config.quiet));
        let environment = &config.environment;
        let stats = Stats::new(&environment.pod);
        let in_flight = Arc::new(InFlight::default());
        let limits = limits();
        let core = Arc::new(Core {
            shared: Arc::clone(&shared),
            drainer: Arc::clone(&drainer),
            prober: Prober::new(
                environment.readiness_probes.clone(),
                environment.http2_auto_detection,
                config.trust.clone(),
                doors.clone(),
            ),
            stats: stats.clone(),
            in_flight: Arc::clone(&in_flight),
            timeouts: config.timeouts(),
            full_duplex: environment.full_duplex,
            observer,
            requests: requests.clone(),
            limits: limits.clone(),
        });
        let chain = |tls| Chain { core: Arc::clone(&core), tls };
        drop(requests.spawn("serving", serve(serving.0, chain(false), limits.clone(), requests.clone())));
        if let Some(((listener, _), secured)) = serving_tls {
            let Secured { acceptor, certificate } = secured;
            spawn(&doors, "certificate", certificate.follow());
            let door = tls_door::serve(listener, acceptor, chain(true), limits, requests.clone());
            drop(requests.spawn("serving over TLS", door));
        }
        let own = ServeLimits::default();
        let port = DrainPort { drainer: Arc::clone(&drainer), ending: ending.clone(), tasks: doors.clone() };
        drop(doors.spawn("admin", serve(admin.0, port, own.clone(), doors.clone())));
        drop(doors.spawn("stats", serve(scraped.0, stats.clone(), own.clone(), doors.clone())));
        spawn(&doors, "reports", stats.run());
        if let Some(Socket { listener, .. }) = socket {
            let serving = sdk::serve(listener, Arc::clone(&shared), own.clone(), doors.clone());
            drop(doors.spawn("local api socket", serving));
        }
        if let Some((listener, _)) = local_api {
            let local = Local::new(Arc::clone(&shared));
            drop(doors.spawn("local api", serve(listener, local, own.clone(), doors.clone())));
        }
        if let Some((listener, _)) = status {
            let status = Admin::new(Arc::clone(&shared));
            drop(doors.spawn("status", serve(listener, status, own, doors.clone())));
        }
        if let Some(data) = data {
            serve_data(&shared, data, &doors);
        }
        spawn(&doors, "expiry", shared.store.run_expiry());
        spawn(&doors, "warm memory", keep_warm(&shared));
        let exporters = telemetry.run(&shared, &doors);
        if let Some(controller) = key_giver(&config, &doors) {
            let shared = Arc::clone(&shared);
            spawn(&doors, "controller", async move {
                let follow = controller.run(&shared.keyring, &shared.guidance);
                tokio::join!(follow, holding::report(&controller, &shared.store));
            });
        }
        tracing::info!(?addresses, "starting queue-proxy");

        ending.cancelled().await;
        shutdown::run(&shared, &drainer, &requests, &in_flight).await;
        let aborted = shared.tasks.shutdown(server::CLOSING).await;
        exporters.flush().await;
        tracing::info!(aborted, "shutdown complete, exiting");
    }

    /// The owner of everything that runs.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        self.shared.tasks.clone()
    }
}

/// Who gives keys, if Knative's settings say how to know it. Without it everything is as without Zipline.
fn key_giver(config: &KnativeConfig, tasks: &Tasks) -> Option<Controller> {
    if config.environment.root_ca.is_empty() {
        tracing::info!("no certificates to know a controller by: Zipline stays off");
        return None;
    }
    let asked = ControllerConfig {
        server: HostPort::new(controller::HOST, controller::PORT),
        roots: config.environment.root_ca.clone(),
        token: controller::TOKEN_PATH.into(),
        revision: config.environment.revision.clone(),
    };
    let made = Controller::new(asked, tasks.clone());
    if let Err(error) = &made {
        tracing::warn!(%error, "the certificates to know a controller by cannot be used: Zipline stays off");
    }
    made.ok()
}

/// As many idle connections to the function as requests may run; as many busy ones as are asked for.
fn client(concurrency: u32) -> ClientConfig {
    let idle = if concurrency == 0 { IDLE_CONNECTIONS } else { concurrency as usize };
    ClientConfig {
        max_connections: CONNECTIONS_MAX,
        max_idle_per_host: idle,
        max_http2_connections_per_host: CONNECTIONS_MAX,
        max_header_bytes: HEADER_BYTES_MAX,
        idle_timeout: Duration::from_secs(90),
        connect_timeout: DIAL_MAX,
        connect_attempt: Some(DIAL_FIRST),
        title_case_headers: true,
        ..ClientConfig::default()
    }
}

fn limits() -> ServeLimits {
    ServeLimits {
        max_connections: CONNECTIONS_MAX,
        max_header_bytes: HEADER_BYTES_MAX,
        max_headers: HEADERS_MAX,
        max_concurrent_streams: STREAMS_MAX,
        idle_timeout: None,
        title_case_headers: true,
        ..ServeLimits::default()
    }
}

pub(super) fn must(door: &'static str, address: SocketAddr) -> Result<Bound, KnativeBindError> {
    listen(address).map_err(|source| KnativeBindError::Listen { door, address, source })
}

fn may(door: &'static str, address: SocketAddr) -> Option<Bound> {
    let bound = listen(address);
    if let Err(error) = &bound {
        tracing::warn!(door, %address, %error, "not served: its port cannot be taken; requests pass as without it");
    }
    bound.ok()
}

/// The data port, if it can be reached: without it nothing is held here.
fn bind_data(config: &KnativeConfig, bind: impl Fn(SocketAddr) -> io::Result<DataPort>) -> Option<DataPort> {
    if config.environment.pod_ip.parse::<IpAddr>().is_err() {
        tracing::warn!(pod_ip = config.environment.pod_ip, "no address of this pod: payloads go inline");
        return None;
    }
    let address = config.at(config.ports.data);
    let bound = bind(address).or_else(|error| match without_ipv6(address, &error) {
        Some(address) => bind(address),
        None => Err(error),
    });
    if let Err(error) = &bound {
        tracing::warn!(%address, %error, "the data port cannot be taken: payloads go inline");
    }
    bound.ok()
}

/// Listens; the IPv6 wildcard takes IPv4 too, and stands for it where there is no IPv6.
fn listen(address: SocketAddr) -> io::Result<Bound> {
    let listener = open(address).or_else(|error| match without_ipv6(address, &error) {
        Some(address) => open(address),
        None => Err(error),
    })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let missing = error.kind() == io::ErrorKind::Unsupported
        || error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    (missing && address.ip().is_unspecified() && address.is_ipv6())
        .then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    /// As the kernel lets Go's servers have it.
    const BACKLOG: i32 = 4096;
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
