//! What tests and models put.
use std::time::Duration;

use zipline_protocol::{PayloadId, ReferenceKind, Retrievals};

use crate::Spec;

/// The id of payload `n`.
pub(crate) fn id(n: u8) -> PayloadId {
    PayloadId::from_bytes([n; 16])
}

/// A put for one retrieval.
pub(crate) fn put(n: u8, length: Option<u64>) -> Spec {
    Spec {
        id: id(n),
        kind: ReferenceKind::Put,
        length,
        retrievals: Retrievals::Limited(1),
        ttl: Some(Duration::from_secs(60)),
        linger: Duration::ZERO,
        wait: Some(Duration::from_secs(5)),
        windowed: false,
    }
}
