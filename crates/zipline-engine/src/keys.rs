//! Keys of tenants (here: namespaces): random per engine start, told to queue-proxies over their inherited sockets.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use zipline_protocol::control::{KeyMessage, KeyringMessage};
use zipline_protocol::{limits, to_text};

/// Pause between the steps of a rotation. Queue-proxies act on a keyring within milliseconds, and one that is late
/// still finds the key, because opening waits `KEY_WAIT` for a serial that is not there yet.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a key stays after it was last sealed with: the longest life of a put, and the settling.
const OVERLAP: Duration = Duration::from_secs(limits::TTL_MAX.as_secs() + 60);

/// A rotation was refused or failed; the keys in use stay as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    /// Too many rotations within the longest life of a put.
    #[error(
        "a tenant has {have} keys already, at most {max} fit: each stays for {} seconds; wait for the oldest to go",
        OVERLAP.as_secs()
    )]
    TooMany {
        /// Keys of the tenant.
        have: usize,
        /// The most that a keyring holds.
        max: usize,
    },
    /// No randomness.
    #[error("the operating system gave no random bytes")]
    Random,
}

/// The keyrings of all tenants.
#[derive(Debug)]
pub(crate) struct Keys {
    tenants: Mutex<BTreeMap<String, watch::Sender<KeyringMessage>>>,
    /// Rotations run one after the other.
    rotating: tokio::sync::Mutex<()>,
}

impl Keys {
    /// One fresh key for each tenant.
    pub(crate) fn new<'a>(tenants: impl IntoIterator<Item = &'a str>) -> Result<Self, RotateError> {
        let keys = Self { tenants: Mutex::new(BTreeMap::new()), rotating: tokio::sync::Mutex::new(()) };
        for tenant in tenants {
            keys.subscribe(tenant)?;
        }
        Ok(keys)
    }

    /// The keyring of a tenant and its changes. A new tenant gets its first key now.
    pub(crate) fn subscribe(&self, tenant: &str) -> Result<watch::Receiver<KeyringMessage>, RotateError> {
        let mut tenants = self.tenants.lock();
        if let Some(sender) = tenants.get(tenant) {
            return Ok(sender.subscribe());
        }
        let first = KeyringMessage { tenant: tenant.to_owned(), keys: vec![fresh(1)?], seal_with: Some(1) };
        let (sender, receiver) = watch::channel(first);
        tenants.insert(tenant.to_owned(), sender);
        Ok(receiver)
    }

    /// Installs a new key everywhere, then seals with it. Returns the number of tenants. The old keys are to be removed
    /// by [`Keys::forget_before`] after [`Keys::overlap`].
    pub(crate) async fn rotate(&self) -> Result<Rotated, RotateError> {
        let _one_at_a_time = self.rotating.lock().await;
        let mut added = BTreeMap::new();
        for (tenant, sender) in self.tenants.lock().iter() {
            let keyring = sender.borrow();
            if keyring.keys.len() >= limits::KEYS_MAX {
                return Err(RotateError::TooMany { have: keyring.keys.len(), max: limits::KEYS_MAX });
            }
            let serial = keyring.keys.iter().map(|key| key.serial).max().unwrap_or(0) + 1;
            added.insert(tenant.clone(), fresh(serial)?);
        }
        let newest: BTreeMap<String, u32> =
            added.iter().map(|(tenant, key)| (tenant.clone(), key.serial)).collect();
        self.change(|tenant, keyring| {
            if let Some(key) = added.remove(tenant) {
                keyring.keys.push(key);
            }
        });
        tokio::time::sleep(SETTLE).await;
        self.change(|tenant, keyring| {
            if let Some(serial) = newest.get(tenant) {
                keyring.seal_with = Some(*serial);
            }
        });
        Ok(Rotated { serials: newest })
    }

    /// How long after a rotation the keys before it are to be kept.
    pub(crate) fn overlap() -> Duration {
        OVERLAP
    }

    /// Removes the keys that are older than those of a rotation.
    pub(crate) fn forget_before(&self, rotated: &Rotated) {
        self.change(|tenant, keyring| {
            if let Some(serial) = rotated.serials.get(tenant) {
                keyring.keys.retain(|key| key.serial >= *serial);
            }
        });
    }

    fn change(&self, mut change: impl FnMut(&str, &mut KeyringMessage)) {
        for (tenant, sender) in self.tenants.lock().iter() {
            sender.send_modify(|keyring| change(tenant, keyring));
        }
    }
}

/// A rotation that was made: the serial of each tenant's new key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rotated {
    pub(crate) serials: BTreeMap<String, u32>,
}

fn fresh(serial: u32) -> Result<KeyMessage, RotateError> {
    Ok(KeyMessage { serial, secret: random_text().map_err(|_| RotateError::Random)? })
}

/// 32 random bytes in base64url.
pub(crate) fn random_text() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(to_text(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_known_everywhere_before_it_seals() {
        let keys = Keys::new(["default"]).unwrap();
        let mut told = keys.subscribe("default").unwrap();
        assert_eq!(told.borrow_and_update().seal_with, Some(1));
        let rotation = async { keys.rotate().await.unwrap() };
        let watching = async {
            let mut seen = Vec::new();
            for _ in 0..2 {
                told.changed().await.unwrap();
                let keyring = told.borrow_and_update();
                seen.push((keyring.keys.len(), keyring.seal_with));
            }
            seen
        };
        let (rotated, seen) = tokio::join!(rotation, watching);
        assert_eq!(seen, [(2, Some(1)), (2, Some(2))]);
        keys.forget_before(&rotated);
        let keyring = told.borrow_and_update().clone();
        assert_eq!((keyring.keys.len(), keyring.keys[0].serial), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn keyrings_are_bounded() {
        let keys = Keys::new(["default"]).unwrap();
        for _ in 1..limits::KEYS_MAX {
            keys.rotate().await.unwrap();
        }
        let error = keys.rotate().await.unwrap_err();
        assert!(error.to_string().contains("at most 16"), "{error}");
    }
}
