//! Mints and opens references, and proves who may ask for what.
//!
//! A tenant has a [`Keyring`]; queue-proxies hold it, functions never do. From each of its secrets three keys are derived:
//! one seals references and accept headers, one authenticates the data port, one proves that a deferred request was
//! opened. `docs/protocol.md` sections 3, 4, 5.1, 5.2 and 6 are the truth; `docs/adr/0002-aead-and-nonces.md` says why
//! XChaCha20-Poly1305.
//!
//! Nothing here does I/O or spawns; the only wait is [`Keyring::open_reference_waiting`] and its data port twin.
#![forbid(unsafe_code)]

mod data;
mod envelope;
mod error;
mod keyring;
mod keys;
mod opened;
mod random;
mod reference;

pub use data::{ProvenRequest, SignedRequest};
pub use error::{InstallError, OpenError, SealError, VerifyError};
pub use keyring::{Keyring, KeyringUpdate, TenantKey};
pub use keys::{Secret, key_id};
pub use random::{new_boot_id, new_lease_id, new_nonce, new_payload_id, random_bytes};

#[cfg(test)]
mod tests;
