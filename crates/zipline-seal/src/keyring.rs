//! A tenant's keys: which are accepted, which one seals.
//!
//! Every key of the ring is accepted for opening and verifying; one of them may be named for sealing. A ring is replaced
//! as a whole, atomically, so rotation is: install the new key everywhere, then name it for sealing, then remove the old one.

use crate::error::InstallError;
use crate::keys::{Key, Secret, tenant_half};
use parking_lot::RwLock;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;
use zeroize::Zeroizing;
use zipline_protocol::control::KeyringMessage;
use zipline_protocol::limits::{KEY_WAIT, KEYS_MAX};
use zipline_protocol::{KeyId, from_text};

/// One key as it is installed.
#[derive(Debug, Clone)]
pub struct TenantKey {
    /// Number of the key; unique in the ring.
    pub serial: u32,
    /// Its secret.
    pub secret: Secret,
}

/// A whole keyring, replacing the one before.
#[derive(Debug, Clone, Default)]
pub struct KeyringUpdate {
    /// At most 16 keys.
    pub keys: Vec<TenantKey>,
    /// Serial of the key that seals; `None`: only open.
    pub seal_with: Option<u32>,
}

impl TryFrom<&KeyringMessage> for KeyringUpdate {
    type Error = InstallError;

    /// Reads the secrets of a control message. Its tenant is for the caller to compare.
    fn try_from(message: &KeyringMessage) -> Result<Self, InstallError> {
        let mut keys = Vec::with_capacity(message.keys.len().min(KEYS_MAX));
        // One more than allowed is enough to be refused.
        for key in message.keys.iter().take(KEYS_MAX + 1) {
            let bytes = from_text(&key.secret).map(Zeroizing::new);
            let secret = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
            let secret = secret.ok_or(InstallError::Secret { serial: key.serial })?;
            keys.push(TenantKey { serial: key.serial, secret: Secret::from_bytes(secret) });
        }
        Ok(Self { keys, seal_with: message.seal_with })
    }
}

/// The keys of one tenant, shared by clones.
///
/// Empty when new: nothing seals and nothing opens until [`Keyring::install`].
#[derive(Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
}

struct Inner {
    tenant: String,
    half: [u8; 4],
    ring: RwLock<Ring>,
    /// Counts installations, so that openers can wait for a key.
    installed: watch::Sender<u64>,
}

#[derive(Clone, Default)]
struct Ring {
    keys: Vec<Arc<Key>>,
    sealing: Option<Arc<Key>>,
}

/// Why a key id names no key of the ring.
pub(crate) enum LookupError {
    OtherTenant,
    Unknown { serial: u32 },
}

impl Keyring {
    /// An empty ring of `tenant`.
    #[must_use]
    pub fn new(tenant: &str) -> Self {
        let (installed, _) = watch::channel(0);
        Self {
            inner: Arc::new(Inner {
                tenant: tenant.to_owned(),
                half: tenant_half(tenant),
                ring: RwLock::default(),
                installed,
            }),
        }
    }

    /// The tenant whose keys these are.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.inner.tenant
    }

    /// Whether a key is named for sealing. Without one every payload goes inline.
    #[must_use]
    pub fn can_seal(&self) -> bool {
        self.inner.ring.read().sealing.is_some()
    }

    /// Serials of the keys in the ring, ascending.
    #[must_use]
    pub fn serials(&self) -> Vec<u32> {
        let mut serials: Vec<u32> = self.inner.ring.read().keys.iter().map(|key| key.serial).collect();
        serials.sort_unstable();
        serials
    }

    /// Replaces the ring as a whole and wakes those who wait for a key. Keys that stay keep their derived keys.
    ///
    /// # Errors
    /// [`InstallError`] says what is wrong with the update; the ring in use stays.
    pub fn install(&self, update: KeyringUpdate) -> Result<(), InstallError> {
        if update.keys.len() > KEYS_MAX {
            return Err(InstallError::TooManyKeys { count: update.keys.len(), max: KEYS_MAX });
        }
        let mut ring = self.inner.ring.write();
        let mut next = Ring::default();
        for TenantKey { serial, secret } in update.keys {
            if next.keys.iter().any(|key| key.serial == serial) {
                return Err(InstallError::DuplicateSerial { serial });
            }
            let key = match ring.keys.iter().find(|key| key.serial == serial) {
                Some(known) if known.has_secret(&secret) => Arc::clone(known),
                Some(_) => return Err(InstallError::SecretChanged { serial }),
                None => Arc::new(Key::derive(self.inner.half, serial, secret)),
            };
            next.keys.push(key);
        }
        if let Some(serial) = update.seal_with {
            let key = next.keys.iter().find(|key| key.serial == serial);
            next.sealing = Some(Arc::clone(key.ok_or(InstallError::SealingKeyMissing { serial })?));
        }
        *ring = next;
        drop(ring);
        self.inner.installed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Names no key for sealing any more; all of them still open. For keys that others may not have any longer.
    pub fn seal_no_more(&self) {
        self.inner.ring.write().sealing = None;
    }

    pub(crate) fn sealing_key(&self) -> Option<Arc<Key>> {
        self.inner.ring.read().sealing.clone()
    }

    /// The key that authenticates: the sealing one, else the one with the highest serial. A ring that only opens can
    /// still retrieve and prove.
    pub(crate) fn proving_key(&self) -> Option<Arc<Key>> {
        let ring = self.inner.ring.read();
        ring.sealing.clone().or_else(|| ring.keys.iter().max_by_key(|key| key.serial).cloned())
    }

    pub(crate) fn all_keys(&self) -> Vec<Arc<Key>> {
        self.inner.ring.read().keys.clone()
    }

    pub(crate) fn lookup(&self, id: &KeyId) -> Result<Arc<Key>, LookupError> {
        if id.tenant_digest() != self.inner.half {
            return Err(LookupError::OtherTenant);
        }
        let serial = id.serial();
        let ring = self.inner.ring.read();
        ring.keys.iter().find(|key| key.serial == serial).cloned().ok_or(LookupError::Unknown { serial })
    }

    /// As [`Keyring::lookup`], but waits up to `KEY_WAIT` for a key of ours that is not there yet.
    pub(crate) async fn lookup_waiting(&self, id: &KeyId) -> Result<Arc<Key>, LookupError> {
        // Subscribed before the first look, so that no installation falls between the two.
        let mut installed = self.inner.installed.subscribe();
        let found = tokio::time::timeout(KEY_WAIT, async {
            loop {
                installed.borrow_and_update();
                match self.lookup(id) {
                    Err(LookupError::Unknown { .. }) if installed.changed().await.is_ok() => {}
                    result => return result,
                }
            }
        })
        .await;
        found.unwrap_or_else(|_elapsed| self.lookup(id))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sealing = self.inner.ring.read().sealing.as_ref().map(|key| key.serial);
        f.debug_struct("Keyring")
            .field("tenant", &self.inner.tenant)
            .field("serials", &self.serials())
            .field("seals_with", &sealing)
            .finish()
    }
}
