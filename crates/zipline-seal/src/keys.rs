//! One key of a tenant and what is derived from it.

use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};
use zipline_protocol::KeyId;

/// 32 secret bytes. Wiped when dropped; `Debug` shows nothing of them.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Takes the bytes of a secret.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A new random secret.
    ///
    /// # Panics
    /// If the kernel has no randomness to give.
    #[must_use]
    pub fn random() -> Self {
        Self::from_bytes(crate::random_bytes())
    }

    /// The bytes, for whoever hands the secret on to another queue-proxy.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Self::from_bytes(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// The first half of all key ids of `tenant`.
pub(crate) fn tenant_half(tenant: &str) -> [u8; 4] {
    let digest = Sha256::new().chain_update(b"zipline tenant").chain_update(tenant.as_bytes()).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// The id under which the key `serial` of `tenant` is named on the wire.
#[must_use]
pub fn key_id(tenant: &str, serial: u32) -> KeyId {
    KeyId::new(tenant_half(tenant), serial)
}

/// One key of the ring: its derived keys, expanded once. The ciphers wipe themselves when dropped.
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) serial: u32,
    /// Compared when a keyring is installed again, so that unchanged keys keep their derived ones.
    secret: Secret,
    pub(crate) seal: XChaCha20Poly1305,
    data: Hmac<Sha256>,
    proof: Hmac<Sha256>,
}

impl Key {
    pub(crate) fn derive(half: [u8; 4], serial: u32, secret: Secret) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, secret.expose());
        let expand = |info: &[u8]| {
            let mut okm = Zeroizing::new([0_u8; 32]);
            hkdf.expand(info, okm.as_mut()).expect("32 bytes are within what HKDF-SHA256 can expand to");
            okm
        };
        let mac = |info: &[u8]| {
            Hmac::<Sha256>::new_from_slice(expand(info).as_ref()).expect("HMAC takes keys of any length")
        };
        let mut seal_key = chacha20poly1305::Key::from(*expand(b"zl1 seal"));
        let seal = XChaCha20Poly1305::new(&seal_key);
        seal_key.as_mut_slice().zeroize();
        Self {
            id: KeyId::new(half, serial),
            serial,
            secret,
            seal,
            data: mac(b"zl1 data"),
            proof: mac(b"zl1 proof"),
        }
    }

    pub(crate) fn has_secret(&self, secret: &Secret) -> bool {
        self.secret.expose().ct_eq(secret.expose()).into()
    }

    /// HMAC of the parts, one after the other, with the data key.
    pub(crate) fn data_mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        mac_of(&self.data, parts)
    }

    /// HMAC of the parts, one after the other, with the proof key.
    pub(crate) fn proof_mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        mac_of(&self.proof, parts)
    }
}

fn mac_of(keyed: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("serial", &self.serial).finish_non_exhaustive()
    }
}
