//! Binds every door of one queue-proxy, then runs them until it has drained.
//!
//! | phase | entered | what happens |
//! |---|---|---|
//! | running | at the start | everything is served |
//! | draining | first drain order | readiness fails; requests that run are finished and may still put, with their expiry capped; new connections to the function are not accepted |
//! | keeping | every request has ended | payloads stay until they are retrieved, expired or released |
//! | closed | nothing is held any more, or the grace has passed | every door is closed |
//!
//! The function can reach its local API and the outside until *closed*, since finishing a request may need it. Further
//! orders can only shorten the grace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use zipline_buffer::{InFlight, Store, StoreConfig};
use zipline_http::{Client, ClientConfig, ServeLimits, serve};
use zipline_protocol::control::QueueProxyMessage;
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{Mode, Way};
use zipline_runtime::{Metrics, Tasks};
use zipline_seal::{Keyring, new_boot_id};
use zipline_transfer::host::{HostPort, Neighbours};
use zipline_transfer::{
    CertificateMakingError, Copies, DataCertificate, DataPort, DataPortConfig, DataPortMonitor, Retriever,
    RetrieverConfig,
};

use crate::admin::Admin;
use crate::breaker::Breaker;
use crate::capability::Capabilities;
use crate::config::{Config, KeySource};
use crate::control::{DrainOrder, Reports};
use crate::edges::Edges;
use crate::guidance::Guidance;
use crate::keys::{self, KeysError};
use crate::local::Local;
use crate::metrics::ProxyMetrics;
use crate::readiness::Readiness;
use crate::sdk;
use crate::state::{Lifecycle, Phase, Shared};

mod deadline;
mod socket;
#[cfg(test)]
pub(crate) mod tests;

use deadline::Deadline;
pub(crate) use socket::Socket;

/// Time for connections to end by themselves once everything else has ended: as long as one that was answered before it
/// was read may linger, so that its client gets the answer and no reset.
pub(crate) const CLOSING: Duration = Duration::from_secs(5);

/// Where a queue-proxy listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Requests to the function; none for a guest.
    pub inbound: Option<SocketAddr>,
    /// Local API and forward proxy.
    pub api: SocketAddr,
    /// What other queue-proxies retrieve from.
    pub data: SocketAddr,
    /// Health, metrics, status.
    pub admin: SocketAddr,
}

/// Why a queue-proxy could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A socket could not be taken.
    #[error("{door} cannot listen on {address}")]
    Listen {
        /// Which door.
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The Unix socket could not be taken.
    #[error("the local API cannot listen on {}", path.display())]
    Socket {
        /// Where.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The data port has no certificate to show.
    #[error(transparent)]
    Certificate(#[from] CertificateMakingError),
    /// The keyring file was refused.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// A queue-proxy whose sockets listen; [`Server::run`] serves them.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    inbound: Option<TcpListener>,
    api: TcpListener,
    socket: Option<Socket>,
    data: DataPort,
    admin: TcpListener,
    addresses: Addresses,
}

impl Server {
    /// Takes every socket. Connections wait in the kernel's queues until the server runs.
    ///
    /// # Errors
    /// [`BindError`] names the door and the address.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let inbound = match config.is_guest() {
            true => None,
            false => Some(listen("the inbound side", config.listen_ip, config.ports.inbound).await?),
        };
        let (api, api_at) = listen("the local API", loopback, config.ports.api).await?;
        let (admin, admin_at) = listen("the admin port", loopback, config.ports.admin).await?;
        let socket = config.socket.as_deref().map(Socket::bind).transpose()?;
        let keyring = Keyring::new(config.function.namespace());
        if let KeySource::File(path) = &config.keys {
            keys::install_file(&keyring, path)?;
        }
        let boot = new_boot_id();
        let store = Store::new(StoreConfig {
            digest_max_bytes: config.digest_max_bytes,
            ..StoreConfig::with_budget(config.budget_bytes)
        });
        let data_at = SocketAddr::new(config.listen_ip, config.ports.data);
        let certificate = config.data_tls.then(DataCertificate::generate).transpose()?;
        let data_certificate = certificate.as_ref().map(DataCertificate::digest);
        let port = DataPortConfig { certificate, ..DataPortConfig::new(data_at, boot) };
        let data = DataPort::bind(port, keyring.clone(), store.clone())
            .map_err(|source| BindError::Listen { door: "the data port", address: data_at, source })?;
        let addresses = Addresses {
            inbound: inbound.as_ref().map(|(_, address)| *address),
            api: api_at,
            data: data.local_addr(),
            admin: admin_at,
        };
        let listeners = [Some(api_at), Some(addresses.data), Some(admin_at), addresses.inbound];
        let shared = Arc::new(assemble(Parts {
            // A guest has nothing to wait for.
            ready: config.is_guest(),
            config,
            keyring,
            store,
            boot,
            client: ClientConfig::default(),
            data: Some(addresses.data),
            data_monitor: Some(data.monitor()),
            data_certificate,
            listeners: listeners.into_iter().flatten().collect(),
            guidance: Guidance::none(),
        }));
        Ok(Self {
            shared,
            inbound: inbound.map(|(listener, _)| listener),
            api,
            socket,
            data,
            admin,
            addresses,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What its doors share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Serves until it was ordered to drain and has drained; tells the engine about both through `reports`.
    ///
    /// Without any order left to come (`orders` closed) it serves for ever.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the tasks to their owner: cancel the `tasks` of [`Server::shared`] then.
    pub async fn run(self, reports: Reports, mut orders: mpsc::Receiver<DrainOrder>) {
        let Self { shared, inbound, api, socket, data, admin, addresses } = self;
        // Two owners: requests to the function end first, everything they may need later.
        let requests = shared.tasks.child();
        let doors = shared.tasks.child();
        let limits = ServeLimits::default();
        if let Some(listener) = inbound {
            let handler = crate::inbound::handler(Arc::clone(&shared));
            drop(requests.spawn("inbound", serve(listener, handler, limits.clone(), requests.clone())));
        }
        let local = Local::new(Arc::clone(&shared));
        drop(doors.spawn("local api", serve(api, local, limits.clone(), doors.clone())));
        let file = socket.map(|Socket { listener, file }| {
            let serving = sdk::serve(listener, Arc::clone(&shared), limits.clone(), doors.clone());
            drop(doors.spawn("local api socket", serving));
            file
        });
        drop(doors.spawn("admin", serve(admin, Admin::new(Arc::clone(&shared)), limits, doors.clone())));
        serve_data(&shared, data, &doors);
        if let Some(host) = host_port(&shared) {
            drop(doors.spawn("host port", host.run(doors.clone())));
        }
        spawn(&doors, "expiry", shared.store.run_expiry());
        spawn(&doors, "warm memory", keep_warm(&shared));
        watch_readiness(&shared, &doors, reports.clone());

        let Addresses { inbound, api, data, admin } = addresses;
        reports.say(QueueProxyMessage::Listening { inbound, api, data, admin }).await;
        tracing::info!(?inbound, %api, %data, %admin, "listening");

        let order = match orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        };
        drain(&shared, &requests, order, orders, &reports).await;
        drop(file);
        let aborted = shared.tasks.shutdown(CLOSING).await;
        tracing::info!(aborted, "drained");
        reports.say(QueueProxyMessage::Drained).await;
    }
}

/// Where neighbours are served, if anywhere. Without it they use the data port, so it is not worth failing for.
fn host_port(shared: &Arc<Shared>) -> Option<HostPort> {
    let directory = shared.config.host_directory.as_deref()?;
    let told = Arc::clone(shared);
    let (keyring, store) = (shared.keyring.clone(), shared.store.clone());
    let on_delivered = move |delivered| told.delivered_by(delivered, Way::SameHost);
    HostPort::bind(directory, shared.boot, keyring, store, on_delivered)
        .inspect_err(|error| {
            let source = &error.source;
            tracing::warn!(%error, %source, "payloads are not shared on this host, the network carries them");
        })
        .ok()
}

/// Goes through the phases of a drain; the server's table tells them.
async fn drain(
    shared: &Shared,
    requests: &Tasks,
    order: DrainOrder,
    orders: mpsc::Receiver<DrainOrder>,
    reports: &Reports,
) {
    tracing::info!(grace_seconds = order.grace.as_secs(), "draining");
    let mut deadline = Deadline::new(Instant::now() + order.grace, orders);
    shared.lifecycle.advance(Phase::Draining);
    shared.store.drain(order.grace);
    if !shared.config.is_guest() {
        reports.say(QueueProxyMessage::NotReady).await;
    }
    // The limit on the request itself ends before this one does.
    let finished = deadline.bound(requests.shutdown(order.grace)).await;
    if finished.is_none() {
        let aborted = requests.shutdown(Duration::ZERO).await;
        tracing::warn!(aborted, "requests did not end within the grace");
    }
    shared.lifecycle.advance(Phase::Keeping);
    if deadline.bound(shared.store.drained()).await.is_none() {
        let left = shared.store.snapshot().payload_count;
        tracing::warn!(payloads = left, "payloads were not retrieved within the grace");
    }
    // Whoever still waits for memory is refused now, while there is time to tell it: the task that keeps the store's
    // deadlines is about to end.
    shared.store.drain(Duration::ZERO);
    shared.store.drained().await;
    shared.lifecycle.advance(Phase::Closed);
}

async fn listen(door: &'static str, ip: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), BindError> {
    let address = SocketAddr::new(ip, port);
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listening.await.map_err(|source| BindError::Listen { door, address, source })
}

/// What the doors' common state is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) keyring: Keyring,
    pub(crate) store: Store,
    pub(crate) boot: zipline_protocol::BootId,
    /// Limits of connections to the function and to others.
    pub(crate) client: ClientConfig,
    /// Where the data port listens; `None`: nothing can be retrieved from here.
    pub(crate) data: Option<SocketAddr>,
    pub(crate) data_monitor: Option<DataPortMonitor>,
    pub(crate) data_certificate: Option<[u8; 32]>,
    pub(crate) listeners: Vec<SocketAddr>,
    /// Whether requests need not wait for the function to become ready.
    pub(crate) ready: bool,
    /// What the controller says, if there is one.
    pub(crate) guidance: Guidance,
}

pub(crate) fn assemble(parts: Parts) -> Shared {
    let Parts {
        config,
        keyring,
        store,
        boot,
        client,
        data,
        data_monitor,
        data_certificate,
        listeners,
        ready,
        guidance,
    } = parts;
    let tasks = Tasks::new();
    let registry = Metrics::new();
    let metrics = registry.register(ProxyMetrics::new);
    let advertised = data.map(|data| match config.advertise {
        Some(advertise) => SocketAddr::new(advertise.ip, advertise.port.unwrap_or(data.port())),
        None => data,
    });
    let neighbours = config.host_directory.clone();
    let neighbours = neighbours.map(|directory| Neighbours::new(directory, keyring.clone(), tasks.clone()));
    let data_addresses: Vec<_> = advertised.into_iter().collect();
    let lifecycle = Lifecycle::new();
    let place = CopyPlace { boot, addresses: data_addresses.clone(), certificate: data_certificate };
    let copies = copies(&config, place, &guidance, &lifecycle);
    let in_flight = InFlight::new(config.in_flight_bytes);
    let mut retriever = Retriever::new(
        keyring.clone(),
        tasks.clone(),
        RetrieverConfig { digest_max_bytes: config.digest_max_bytes, ..RetrieverConfig::default() },
    );
    if let Some(copies) = &copies {
        retriever = retriever.with_copies(copies.clone());
        in_flight.when_short(copies.lender());
    }
    Shared {
        neighbours,
        in_flight,
        retriever,
        copies,
        client: Client::new(client, tasks.clone()),
        edges: Edges::new(),
        capabilities: Capabilities::new(),
        function: config.function_address().map(Into::into),
        breaker: Breaker::new(config.container_concurrency),
        readiness: Readiness::new(ready),
        lifecycle,
        data_addresses,
        data_monitor,
        data_certificate,
        listeners,
        registry,
        metrics,
        guidance,
        keyring,
        store,
        boot,
        tasks,
        config,
    }
}

/// What other queue-proxies retrieve for many is served on; by whom, their holder says.
fn copies(config: &Config, place: CopyPlace, guidance: &Guidance, lifecycle: &Lifecycle) -> Option<Copies> {
    if place.addresses.is_empty() {
        return None;
    }
    let (mode, guidance, lifecycle) = (config.mode, guidance.clone(), lifecycle.clone());
    // Serving a copy is sending, and who drains begins nothing new.
    Some(Copies::new(place, move || mode.min(guidance.mode()) == Mode::On && !lifecycle.is_draining()))
}

/// Serves the data port, and copies on it.
pub(crate) fn serve_data(shared: &Arc<Shared>, data: DataPort, doors: &Tasks) {
    let told = Arc::clone(shared);
    let mut data = data.on_delivered(move |delivered| told.delivered(delivered));
    if let Some(copies) = shared.copies.clone() {
        data = data.with_copies(copies.clone());
        spawn(doors, "copies", async move { copies.run_expiry().await });
    }
    drop(doors.spawn("data port", data.run(doors.clone())));
}

/// Keeps memory warm for what is retrieved in one piece, and for what functions will write.
pub(crate) fn keep_warm(shared: &Shared) -> impl Future<Output = ()> + Send + 'static {
    let (in_flight, preparing) = (shared.in_flight.clone(), shared.store.run_prepare());
    async move {
        tokio::join!(in_flight.run_warm(), preparing);
    }
}

/// Probes the function, if there is one, and tells the engine what comes out.
fn watch_readiness(shared: &Arc<Shared>, doors: &Tasks, reports: Reports) {
    let Some(probe) = shared.config.readiness_probe.clone() else { return };
    let (readiness, client) = (shared.readiness.clone(), shared.client.clone());
    spawn(doors, "readiness", readiness.run(probe, client));
    let readiness = shared.readiness.clone();
    spawn(doors, "readiness reports", async move {
        loop {
            readiness.becomes(true).await;
            reports.say(QueueProxyMessage::Ready).await;
            readiness.becomes(false).await;
            reports.say(QueueProxyMessage::NotReady).await;
        }
    });
}

/// A task that has no end of its own and stops when its owner is asked to.
pub(crate) fn spawn(tasks: &Tasks, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let stop = tasks.token();
    drop(tasks.spawn(name, async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }));
}
