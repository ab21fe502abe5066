//! What a queue-proxy says about itself at `/status`.

use serde::Deserialize;

/// The whole answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Of its function.
    pub service: String,
    /// Of its function.
    pub namespace: String,
    /// `off`, `receive` or `on`.
    pub mode: String,
    /// Whether the function is ready.
    pub ready: bool,
    /// Whether it drains.
    pub draining: bool,
    /// Held payloads.
    pub held: HeldStatus,
    /// Payloads on their way to the function.
    pub in_flight: InFlightStatus,
    /// Each held payload.
    pub payloads: Vec<PayloadStatus>,
    /// What moved.
    pub transfers: Transfers,
}

/// The budget of held payloads.
#[derive(Debug, Clone, Deserialize)]
pub struct HeldStatus {
    /// Held now.
    pub bytes: u64,
    /// Number of payloads.
    pub payloads: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// The most that was ever held.
    pub peak_bytes: u64,
}

/// The budget of payloads in flight.
#[derive(Debug, Clone, Deserialize)]
pub struct InFlightStatus {
    /// In flight now.
    pub bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
}

/// One held payload.
#[derive(Debug, Clone, Deserialize)]
pub struct PayloadStatus {
    /// `request`, `response` or `put`.
    pub kind: String,
    /// Its length, if known.
    pub length: Option<u64>,
    /// Bytes of it in memory.
    pub buffered_bytes: u64,
}

/// What moved.
#[derive(Debug, Clone, Deserialize)]
pub struct Transfers {
    /// Per direction, kind, peer, way and reason.
    pub edges: Vec<EdgeStatus>,
}

/// One line of what moved.
#[derive(Debug, Clone, Deserialize)]
pub struct EdgeStatus {
    /// `sent` or `received`.
    pub direction: String,
    /// `request`, `response` or `put`.
    pub kind: String,
    /// `service.namespace` of the other side, or empty.
    pub peer_service: String,
    /// `inline` or `network`.
    pub way: String,
    /// Why inline, or empty.
    pub reason: String,
    /// Payloads.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Status {
    /// How many payloads went this way.
    #[must_use]
    pub fn count(&self, direction: &str, kind: &str, way: &str) -> u64 {
        self.edges(direction, kind, way).map(|edge| edge.count).sum()
    }

    /// How many bytes went this way.
    #[must_use]
    pub fn bytes(&self, direction: &str, kind: &str, way: &str) -> u64 {
        self.edges(direction, kind, way).map(|edge| edge.bytes).sum()
    }

    /// How many payloads were sent inline for this reason.
    #[must_use]
    pub fn inline_because(&self, kind: &str, reason: &str) -> u64 {
        self.edges("sent", kind, "inline").filter(|edge| edge.reason == reason).map(|edge| edge.count).sum()
    }

    fn edges<'a>(
        &'a self,
        direction: &'a str,
        kind: &'a str,
        way: &'a str,
    ) -> impl Iterator<Item = &'a EdgeStatus> {
        let edges = self.transfers.edges.iter();
        edges.filter(move |edge| edge.direction == direction && edge.kind == kind && edge.way == way)
    }
}
