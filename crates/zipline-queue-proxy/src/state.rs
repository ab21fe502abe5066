//! What all doors of one queue-proxy share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zipline_buffer::{Delivered, InFlight, Store};
use zipline_http::{Client, HostPort};
use zipline_protocol::{BootId, FunctionName, InlineReason, Mode, ReferenceKind, Way};
use zipline_runtime::{Metrics, Tasks};
use zipline_seal::Keyring;
use zipline_transfer::host::Neighbours;
use zipline_transfer::{Copies, DataPortMonitor, Retriever};

use crate::breaker::Breaker;
use crate::capability::Capabilities;
use crate::config::Config;
use crate::edges::{Direction, EdgeKey, Edges, Zones};
use crate::guidance::Guidance;
use crate::metrics::ProxyMetrics;
use crate::readiness::Readiness;

/// Where a queue-proxy stands in its life. It only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serves.
    Running,
    /// Readiness fails; what runs is finished, and may still put within the remaining grace.
    Draining,
    /// No request runs any more; payloads are kept until they are retrieved, expired, or the grace ends.
    Keeping,
    /// Everything is closed.
    Closed,
}

/// The phase of one queue-proxy, observable by all its parts.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
}

impl Lifecycle {
    /// A queue-proxy that serves.
    #[must_use]
    pub fn new() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Running)) }
    }

    /// The phase right now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Moves on to `phase`; an earlier phase than the present one changes nothing.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|present| {
            let forward = phase > *present;
            if forward {
                *present = phase;
            }
            forward
        });
    }

    /// Resolves once `phase` is reached. Cancel safe.
    pub async fn reached(&self, phase: Phase) {
        let mut watcher = self.phase.subscribe();
        // An error means that the sender is gone, which `self` prevents.
        let _ = watcher.wait_for(|present| *present >= phase).await;
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

/// One transfer that has ended, for metrics and `status`.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Whether this side sent or received it.
    pub direction: Direction,
    /// What was transferred.
    pub kind: ReferenceKind,
    /// The function at the other end, where it is known.
    pub peer: Option<FunctionName>,
    /// The way the bytes took.
    pub way: Way,
    /// Why it went inline; `None` for every other way.
    pub reason: Option<InlineReason>,
    /// Whether the bytes stayed within one zone, where this side retrieved them.
    pub zones: Zones,
    /// Bytes of the payload.
    pub bytes: u64,
    /// From the first byte to the last.
    pub elapsed: Duration,
}

/// What all doors share. Made once by [`crate::server::Server::bind`], then only behind an [`Arc`].
#[derive(Debug)]
pub struct Shared {
    /// The settings, read once from the environment.
    pub config: Config,
    /// Where the function listens; `None` for a queue-proxy without a function.
    pub function: Option<HostPort>,
    /// The tenant's keys.
    pub keyring: Keyring,
    /// What the controller says, where there is one.
    pub guidance: Guidance,
    /// Payloads held here.
    pub store: Store,
    /// The budget of bytes on their way to the function.
    pub in_flight: InFlight,
    /// Retrieves from other queue-proxies.
    pub retriever: Retriever,
    /// What was retrieved for many and is served to others for a while; `None` if there is no data port.
    pub copies: Option<Copies>,
    /// Holders on this host; `None`: everything comes over the network.
    pub neighbours: Option<Neighbours>,
    /// Connections to the function, the gateway and whatever the forward proxy passes through to.
    pub client: Client,
    /// Where the counters are registered.
    pub registry: Metrics,
    /// Counters of this process.
    pub metrics: ProxyMetrics,
    /// What moved between which functions.
    pub edges: Edges,
    /// Which destinations open references.
    pub capabilities: Capabilities,
    /// The concurrency limit of the function.
    pub breaker: Breaker,
    /// Whether the function answers its readiness probe.
    pub readiness: Readiness,
    /// Where this process stands in its life.
    pub lifecycle: Lifecycle,
    /// This process, sealed into every reference; a retrieval that reaches another process is refused.
    pub boot: BootId,
    /// Where other queue-proxies reach the data port; one or two, sealed into every reference;
    /// none if there is no data port.
    pub data_addresses: Vec<SocketAddr>,
    /// The counts of the data port; `None` if there is none.
    pub data_monitor: Option<DataPortMonitor>,
    /// Digest of the certificate that the data port shows, sealed into every reference; `None`: it speaks plain.
    pub data_certificate: Option<[u8; 32]>,
    /// Every listener of this process, so that the forward proxy can refuse loops.
    pub listeners: Vec<SocketAddr>,
    /// The owner of every task of this process.
    pub tasks: Tasks,
}

impl Shared {
    /// Whether payloads may be deferred and references opened: the lower of what the settings and the controller say.
    #[must_use]
    pub fn mode(&self) -> Mode {
        // On Knative keys come later, and the data port may be taken. Without either nothing of Zipline is to be noticed.
        let lacks = self.config.needs_keys && (!self.keyring.can_seal() || self.data_addresses.is_empty());
        if lacks { Mode::Off } else { self.config.mode.min(self.guidance.mode()) }
    }

    /// How a holder's zone, as its reference names it, stands to the one of this process.
    #[must_use]
    pub fn zones(&self, holder: &str) -> Zones {
        Zones::between(&self.guidance.zone(), holder)
    }

    /// A receiver has acknowledged a payload over the network. Those of invocations are recorded by whoever holds them, who
    /// knows the other end.
    pub fn delivered(&self, delivered: Delivered) {
        self.delivered_by(delivered, Way::Network);
    }

    /// The same, by any way.
    pub fn delivered_by(&self, delivered: Delivered, way: Way) {
        if delivered.kind == ReferenceKind::Put {
            self.metrics.held(delivered.held);
            self.record(Transfer {
                direction: Direction::Sent,
                kind: delivered.kind,
                peer: None,
                way,
                reason: None,
                zones: Zones::Unknown,
                bytes: delivered.length,
                elapsed: delivered.held,
            });
        }
    }

    /// Writes a transfer that has ended into the metrics and the table that `status` shows.
    pub fn record(&self, transfer: Transfer) {
        self.metrics.transferred(&transfer);
        let key = EdgeKey {
            direction: transfer.direction,
            kind: transfer.kind,
            peer: transfer.peer,
            way: transfer.way,
            reason: transfer.reason,
            zones: transfer.zones,
        };
        self.edges.record(key, transfer.bytes, transfer.elapsed.as_secs_f64());
    }
}
