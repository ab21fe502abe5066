//! The holder's side: the data port (`docs/protocol.md` section 6).
//!
//! Every request is proven before anything it names is looked up. What one peer may cost is bounded: connections by
//! [`DataPortConfig::connections_per_peer`] (further ones are closed), leases by the store, and a connection that takes no
//! bytes for as long as a lease lives without progress is closed, so that a slow reader pins at most one or two segments
//! for that long. How many large payloads are sent at the same time is bounded as well, and peers take turns
//! (`docs/protocol.md` section 6.7).

mod answer;
mod connection;
pub mod head;
mod link;
mod peers;
mod send;
mod slots;
mod spread;

use crate::Copies;
use crate::sockets;
use crate::tls::DataCertificate;
use peers::Peers;
use slots::Slots;
use spread::Spread;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use zipline_buffer::{Delivered, Store};
use zipline_protocol::{BootId, limits};
use zipline_runtime::Tasks;
use zipline_seal::Keyring;

/// Pause after the process ran out of descriptors or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Settings of a data port.
#[derive(Debug, Clone)]
pub struct DataPortConfig {
    /// Where to listen; port 0 takes any free one.
    pub address: SocketAddr,
    /// The boot id of this process, as references name it.
    pub boot: BootId,
    /// With one, the port speaks TLS only, and references to what it serves must name its digest. Without, plain only.
    pub certificate: Option<DataCertificate>,
    /// Longest time for a TLS handshake; then the connection is closed.
    pub handshake_timeout: Duration,
    /// Connections accepted from one address; further ones are closed at once.
    pub connections_per_peer: usize,
    /// Connections in all; while they are taken, no further one is accepted and new ones wait in the kernel's queue.
    pub max_connections: usize,
    /// An idle connection is closed after this time.
    pub idle_timeout: Duration,
    /// A connection that takes no bytes for this long is closed.
    pub lease_lapse: Duration,
    /// Leases to which large payloads are sent at the same time, at least one. Further ones wait, peer by peer.
    pub max_sends: usize,
    /// A send of so many bytes or more is a large one.
    pub large_send_bytes: u64,
    /// Most requests that wait for their turn; further ones are refused at once.
    pub max_waiting_sends: usize,
    /// A put of so many bytes or more may be retrieved from receivers that have it.
    pub relay_min_bytes: u64,
    /// Longest wait for a turn; then the request is refused.
    pub send_wait: Duration,
    /// A receiver that takes nothing for so long does not count among the large sends any more.
    pub slow_after: Duration,
}

impl DataPortConfig {
    /// The protocol's numbers.
    #[must_use]
    pub fn new(address: SocketAddr, boot: BootId) -> Self {
        Self {
            address,
            boot,
            certificate: None,
            handshake_timeout: limits::CONNECT_TIMEOUT,
            connections_per_peer: limits::CONNECTIONS_PER_PEER,
            max_connections: 8192,
            idle_timeout: Duration::from_secs(90),
            lease_lapse: limits::LEASE_LAPSE,
            max_sends: limits::LARGE_SENDS,
            large_send_bytes: limits::LARGE_SEND,
            max_waiting_sends: 4096,
            relay_min_bytes: limits::RELAY_MIN,
            send_wait: limits::SEND_WAIT,
            slow_after: limits::SLOW_AFTER,
        }
    }
}

/// Counts of a data port since it was bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataPortStats {
    /// Connections that are open now.
    pub open_connections: u64,
    /// Connections closed at once because their peer had too many.
    pub refused_connections: u64,
    /// Connections closed because they took no bytes for too long.
    pub stuck_connections: u64,
    /// Requests with a valid proof.
    pub proven_requests: u64,
    /// Requests without a valid proof.
    pub unproven_requests: u64,
    /// Payload bytes handed to connections.
    pub sent_bytes: u64,
    /// Answers that bytes of a payload followed: retrievals, their resumptions and parts.
    pub sends: u64,
    /// Leases to which large payloads are sent now.
    pub large_sends: u64,
    /// Requests that wait now until fewer large payloads are sent.
    pub waiting_sends: u64,
    /// Leases whose receivers were named a relay.
    pub relayed: u64,
    /// Answers that bytes of a copy followed; among `sends`.
    pub copy_sends: u64,
    /// Requests refused because too many waited, or their turn did not come in time.
    pub refused_sends: u64,
}

#[derive(Debug, Default)]
struct Counters {
    refused_connections: AtomicU64,
    stuck_connections: AtomicU64,
    proven_requests: AtomicU64,
    unproven_requests: AtomicU64,
    sent_bytes: AtomicU64,
    sends: AtomicU64,
    refused_sends: AtomicU64,
    relayed: AtomicU64,
    copy_sends: AtomicU64,
}

/// Is told of every delivery.
struct OnDelivered(Box<dyn Fn(Delivered) + Send + Sync>);

impl fmt::Debug for OnDelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDelivered")
    }
}

/// What all connections of a port share.
#[derive(Debug)]
struct Shared {
    on_delivered: OnceLock<OnDelivered>,
    config: DataPortConfig,
    keyring: Keyring,
    store: Store,
    peers: Peers,
    slots: Slots,
    spread: Spread,
    /// Copies of what others hold, if any are served.
    copies: OnceLock<Copies>,
    counters: Counters,
}

/// Reads the counts of a data port, also after it was run.
#[derive(Debug, Clone)]
pub struct DataPortMonitor(Arc<Shared>);

impl DataPortMonitor {
    /// The counts now.
    #[must_use]
    pub fn stats(&self) -> DataPortStats {
        let counters = &self.0.counters;
        DataPortStats {
            open_connections: self.0.peers.open(),
            refused_connections: counters.refused_connections.load(Ordering::Relaxed),
            stuck_connections: counters.stuck_connections.load(Ordering::Relaxed),
            proven_requests: counters.proven_requests.load(Ordering::Relaxed),
            unproven_requests: counters.unproven_requests.load(Ordering::Relaxed),
            sent_bytes: counters.sent_bytes.load(Ordering::Relaxed),
            sends: counters.sends.load(Ordering::Relaxed),
            large_sends: self.0.slots.running() as u64,
            waiting_sends: self.0.slots.waiting() as u64,
            relayed: counters.relayed.load(Ordering::Relaxed),
            copy_sends: counters.copy_sends.load(Ordering::Relaxed),
            refused_sends: counters.refused_sends.load(Ordering::Relaxed),
        }
    }
}

/// A data port whose socket listens; [`DataPort::run`] serves it.
#[derive(Debug)]
pub struct DataPort {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl DataPort {
    /// Takes the socket. Connections wait in the kernel's queue until the port runs.
    ///
    /// # Errors
    /// What the kernel says: the address is taken, not ours, or not allowed.
    pub fn bind(config: DataPortConfig, keyring: Keyring, store: Store) -> io::Result<Self> {
        let listener = sockets::listen(config.address)?;
        let address = listener.local_addr()?;
        let peers = Peers::new(config.connections_per_peer);
        let slots = Slots::new(config.max_sends, config.max_waiting_sends);
        let shared = Arc::new(Shared {
            on_delivered: OnceLock::new(),
            config,
            keyring,
            store,
            peers,
            slots,
            spread: Spread::default(),
            copies: OnceLock::new(),
            counters: Counters::default(),
        });
        Ok(Self { listener, address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Calls `told` once for every payload that a receiver has acknowledged, in the task of its connection. The first
    /// function given stays.
    #[must_use]
    pub fn on_delivered(self, told: impl Fn(Delivered) + Send + Sync + 'static) -> Self {
        // A second one changes nothing, as documented.
        let _ = self.shared.on_delivered.set(OnDelivered(Box::new(told)));
        self
    }

    /// Serves `copies` as well. The first ones given stay.
    #[must_use]
    pub fn with_copies(self, copies: Copies) -> Self {
        // Second ones change nothing, as documented.
        let _ = self.shared.copies.set(copies);
        self
    }

    /// Reads the port's counts from elsewhere.
    #[must_use]
    pub fn monitor(&self) -> DataPortMonitor {
        DataPortMonitor(Arc::clone(&self.shared))
    }

    /// Serves until the token of `tasks` is cancelled; its connections are tasks of `tasks`. Then accepts nothing more,
    /// idle connections close, and running answers go on until they end or `tasks` aborts them. Draining is the store's
    /// affair and does not stop the port.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listening socket; connections go on.
    pub async fn run(self, tasks: Tasks) {
        let stop = tasks.token();
        let slots = Arc::new(Semaphore::new(self.shared.config.max_connections));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            let (slot, stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a data connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = self.shared.peers.admit(peer.ip().to_canonical()) else {
                self.shared.counters.refused_connections.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, "data connection refused, its address has too many");
                continue;
            };
            let shared = Arc::clone(&self.shared);
            let stop = stop.clone();
            drop(tasks.spawn("data connection", async move {
                connection::serve(stream, place.peer(), shared, stop).await;
                drop((place, slot));
            }));
        }
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(tokio::sync::OwnedSemaphorePermit, tokio::net::TcpStream, SocketAddr)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((slot, stream, peer))
}
