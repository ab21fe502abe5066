//! Random ids, straight from the kernel.

use zipline_protocol::{BootId, LeaseId, Nonce, PayloadId};

/// `N` random bytes from the kernel.
///
/// # Panics
/// If the kernel has no randomness to give. Nothing in Zipline may go on without it: ids would repeat and references
/// could be forged.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes)
        .expect("getrandom(2) only fails where the kernel lacks it or a filter forbids it");
    bytes
}

/// A random payload id.
#[must_use]
pub fn new_payload_id() -> PayloadId {
    PayloadId::from_bytes(random_bytes())
}

/// A random boot id: one per holder process.
#[must_use]
pub fn new_boot_id() -> BootId {
    BootId::from_bytes(random_bytes())
}

/// A random lease id: one per retrieval, the same for every request of it.
#[must_use]
pub fn new_lease_id() -> LeaseId {
    LeaseId::from_bytes(random_bytes())
}

/// A random nonce.
#[must_use]
pub fn new_nonce() -> Nonce {
    Nonce::from_bytes(random_bytes())
}
