//! In which zone a node is.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use zipline_protocol::limits;

use crate::kubernetes::{Kubernetes, Node};

/// Label of nodes with their zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Nodes do not move; a label that was corrected is seen after this long.
const FRESH: Duration = Duration::from_secs(600);
/// Nodes remembered; when full, all are forgotten.
const NODES_MAX: usize = 8192;

/// Zones by node.
#[derive(Debug)]
pub struct Zones {
    kubernetes: Kubernetes,
    known: Mutex<HashMap<String, (Instant, String)>>,
}

impl Zones {
    /// Zones as `kubernetes` tells them.
    #[must_use]
    pub fn new(kubernetes: Kubernetes) -> Self {
        Self { kubernetes, known: Mutex::default() }
    }

    /// The zone of `node`; empty if it is not known or cannot be asked for: it is only a hint.
    pub async fn of(&self, node: &str) -> String {
        if node.is_empty() {
            return String::new();
        }
        if let Some((at, zone)) = self.known.lock().get(node)
            && at.elapsed() < FRESH
        {
            return zone.clone();
        }
        let found: Option<Node> = match self.kubernetes.get(&format!("/api/v1/nodes/{node}")).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    node,
                    "the zone of a node is not known"
                );
                return String::new();
            }
        };
        let mut zone = found.and_then(|mut node| node.metadata.labels.remove(ZONE_LABEL)).unwrap_or_default();
        if zone.len() > limits::ZONE_MAX {
            zone.clear();
        }
        let mut known = self.known.lock();
        if known.len() >= NODES_MAX {
            known.clear();
        }
        known.insert(node.to_owned(), (Instant::now(), zone.clone()));
        zone
    }
}
