//! What moved between this function and which others: the table that `status` and the demo show.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::Serialize;
use zipline_protocol::{FunctionName, InlineReason, ReferenceKind, Way};

/// Rows the table keeps; what has no row of its own is counted in one row whose peer is [`OTHER`].
pub const MAX_ROWS: usize = 1024;

/// The peer named by rows that count everything beyond [`MAX_ROWS`].
pub const OTHER: &str = "other";

/// Which way the bytes went, seen from this queue-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// This function's bytes went to another.
    Sent,
    /// Another function's bytes came here.
    Received,
}

impl Direction {
    /// The word that stands in metrics and `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// Whether the bytes stayed within one zone, seen from the side that retrieved them. Bytes between zones cost money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Zones {
    /// One of the two is not known, or nothing was retrieved.
    #[default]
    Unknown,
    /// Both ends are in one zone.
    Same,
    /// They are in two.
    Other,
}

impl Zones {
    /// From the names of both zones, which are empty where unknown.
    #[must_use]
    pub fn between(own: &str, other: &str) -> Self {
        match (own, other) {
            ("", _) | (_, "") => Self::Unknown,
            (own, other) if own == other => Self::Same,
            _ => Self::Other,
        }
    }

    /// The word that stands in metrics and `status`; empty where unknown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Same => "same",
            Self::Other => "other",
        }
    }
}

/// What tells one row of the table from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Sent or received.
    pub direction: Direction,
    /// What was transferred.
    pub kind: ReferenceKind,
    /// The function at the other end, where it is known.
    pub peer: Option<FunctionName>,
    /// The way the bytes took.
    pub way: Way,
    /// Why it went inline.
    pub reason: Option<InlineReason>,
    /// Whether the bytes stayed within one zone.
    pub zones: Zones,
}

/// One row as `status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EdgeRow {
    /// `sent` or `received`.
    pub direction: &'static str,
    /// `request`, `response` or `put`.
    pub kind: &'static str,
    /// `service.namespace`, `other`, or empty where unknown.
    pub peer_service: String,
    /// `inline` or `network`.
    pub way: &'static str,
    /// Why it went inline, else empty.
    pub reason: &'static str,
    /// `same` or `other` zone for what was retrieved, empty where unknown.
    pub zones: &'static str,
    /// Transfers.
    pub count: u64,
    /// Payload bytes of all of them.
    pub bytes: u64,
    /// Seconds of all of them, added up.
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: u64,
    bytes: u64,
    seconds: f64,
}

impl Sums {
    fn add(&mut self, bytes: u64, seconds: f64) {
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.seconds += seconds;
    }
}

#[derive(Debug, Default)]
struct Rows {
    named: HashMap<EdgeKey, Sums>,
    // Keyed by everything but the peer, whose other parts are closed sets: so this stays small without a limit.
    other: HashMap<EdgeKey, Sums>,
}

/// The bounded table of what moved. When it is full, transfers of further peers are counted in rows named
/// [`OTHER`], so totals stay true.
#[derive(Debug, Default)]
pub struct Edges {
    rows: Mutex<Rows>,
}

impl Edges {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one transfer of `bytes` that took `seconds`.
    pub fn record(&self, key: EdgeKey, bytes: u64, seconds: f64) {
        let mut rows = self.rows.lock();
        if let Some(sums) = rows.named.get_mut(&key) {
            sums.add(bytes, seconds);
        } else if rows.named.len() < MAX_ROWS {
            rows.named.entry(key).or_default().add(bytes, seconds);
        } else {
            rows.other.entry(EdgeKey { peer: None, ..key }).or_default().add(bytes, seconds);
        }
    }

    /// All rows, in an order that does not change between two calls.
    #[must_use]
    pub fn rows(&self) -> Vec<EdgeRow> {
        let rows = self.rows.lock();
        let named = rows.named.iter().map(|(key, sums)| {
            let peer = key.peer.as_ref().map(ToString::to_string).unwrap_or_default();
            row(key, peer, *sums)
        });
        let other = rows.other.iter().map(|(key, sums)| row(key, OTHER.to_owned(), *sums));
        let mut all: Vec<EdgeRow> = named.chain(other).collect();
        drop(rows);
        all.sort_by(|a, b| {
            (&a.peer_service, a.direction, a.kind, a.way, a.reason, a.zones).cmp(&(
                &b.peer_service,
                b.direction,
                b.kind,
                b.way,
                b.reason,
                b.zones,
            ))
        });
        all
    }
}

fn row(key: &EdgeKey, peer_service: String, sums: Sums) -> EdgeRow {
    EdgeRow {
        direction: key.direction.as_str(),
        kind: key.kind.as_str(),
        peer_service,
        way: key.way.as_str(),
        reason: key.reason.map_or("", |reason| reason.as_str()),
        zones: key.zones.as_str(),
        count: sums.count,
        bytes: sums.bytes,
        seconds: sums.seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str) -> EdgeKey {
        EdgeKey {
            direction: Direction::Sent,
            kind: ReferenceKind::Request,
            peer: Some(format!("{service}.default").parse().unwrap()),
            way: Way::Network,
            reason: None,
            zones: Zones::Unknown,
        }
    }

    #[test]
    fn bytes_between_zones_have_rows_of_their_own() {
        let edges = Edges::new();
        for (other, bytes) in [("a", 1), ("b", 2), ("", 4), ("a", 8)] {
            edges.record(EdgeKey { zones: Zones::between("a", other), ..key("recog") }, bytes, 0.0);
        }
        let rows: Vec<_> = edges.rows().iter().map(|row| (row.zones, row.bytes)).collect();
        assert_eq!(rows, [("", 4), ("other", 2), ("same", 9)]);
    }

    #[test]
    fn one_edge_adds_up() {
        let edges = Edges::new();
        edges.record(key("recog"), 10, 0.5);
        edges.record(key("recog"), 20, 0.25);
        let rows = edges.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].count, rows[0].bytes, rows[0].seconds), (2, 30, 0.75));
        assert_eq!((rows[0].peer_service.as_str(), rows[0].reason), ("recog.default", ""));
    }

    #[test]
    fn a_full_table_counts_the_rest_as_other() {
        let edges = Edges::new();
        for number in 0..MAX_ROWS + 5 {
            edges.record(key(&format!("f{number}")), 1, 0.0);
        }
        let rows = edges.rows();
        assert_eq!(rows.len(), MAX_ROWS + 1);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), (MAX_ROWS + 5) as u64);
        assert_eq!(rows.iter().find(|row| row.peer_service == OTHER).unwrap().count, 5);
    }
}
