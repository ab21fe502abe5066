//! Master secrets, and the namespace keys that derive from them.
//!
//! A namespace's key is `HKDF-SHA256(salt "zipline controller 1", master, "namespace key" | serial | namespace)`. A serial
//! number is the master's number (12 bits) and the number of a period of time (20 bits): so keys change by themselves, every
//! replica derives the same ones, and nothing is stored.
//!
//! In period *n* the key *n* of the sealing master seals, and *n*-1 and *n*+1 of every master are accepted as well. So a key
//! is known everywhere one period before it seals, and for one period after.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;
use zipline_protocol::controller::{ControllerKey, KeyState};
use zipline_protocol::{limits, to_text};
use zipline_seal::{Secret, key_id};

/// Most masters at a time: 12 keys of the 16 that fit into a keyring.
pub const MASTERS_MAX: usize = 4;
/// Bits of a serial number that count periods.
const PERIOD_BITS: u32 = 20;
/// Highest number of a master.
const NUMBER_MAX: u32 = (1 << (32 - PERIOD_BITS)) - 1;
/// Longest file of a master.
const FILE_MAX: u64 = 4096;
/// How far clocks may be apart.
const MARGIN: Duration = Duration::from_secs(300);

/// The master secrets by their numbers. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Masters {
    secrets: BTreeMap<u32, Zeroizing<[u8; 32]>>,
}

/// The masters cannot be used. Contents are not quoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MastersError {
    /// A file or the folder cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file's name is no number.
    #[error("{} is not named by a number from 1 to {NUMBER_MAX}", path.display())]
    Name {
        /// Which one.
        path: PathBuf,
    },
    /// A file does not hold a secret.
    #[error("{} is not 32 bytes in base64", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
    },
    /// There is none.
    #[error("{} has no master secret: add a file named 1 with 32 random bytes in base64", folder.display())]
    None {
        /// Where they should be.
        folder: PathBuf,
    },
    /// There are too many for one keyring.
    #[error("{} has {count} master secrets, at most {MASTERS_MAX} fit: remove old ones", folder.display())]
    TooMany {
        /// Where they are.
        folder: PathBuf,
        /// How many.
        count: usize,
    },
}

impl Masters {
    /// Reads every file in `folder`, except hidden ones (Kubernetes makes those to change a mounted Secret at once).
    ///
    /// # Errors
    /// [`MastersError`].
    pub fn load(folder: &Path) -> Result<Self, MastersError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| MastersError::Read { path, source }
        };
        let mut secrets = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
            let path = entry.map_err(failed(folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with('.') {
                continue;
            }
            let number = name.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number));
            let Some(number) = number else { return Err(MastersError::Name { path }) };
            let secret = read(&path).map_err(failed(&path))?.ok_or(MastersError::Content { path })?;
            secrets.insert(number, secret);
        }
        match secrets.len() {
            0 => Err(MastersError::None { folder: folder.to_owned() }),
            count if count > MASTERS_MAX => Err(MastersError::TooMany { folder: folder.to_owned(), count }),
            _ => Ok(Self { secrets }),
        }
    }

    /// Their numbers, ascending.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.secrets.keys().copied().collect()
    }

    /// Which keys there are at `now` (since 1970). `sealing` is the master that seals; without one, or when it is not
    /// there, it is the one with the lowest number: a new master is accepted everywhere before it is named.
    #[must_use]
    pub fn plan(&self, sealing: Option<u32>, period: Duration, now: Duration) -> Plan {
        let lowest = self.secrets.keys().next().copied();
        let sealing = sealing.filter(|number| self.secrets.contains_key(number)).or(lowest);
        let seconds = period.as_secs().max(1);
        let current = now.as_secs() / seconds;
        let mut keys = Vec::with_capacity(self.secrets.len() * 3);
        for master in self.secrets.keys().copied() {
            for number in [current.saturating_sub(1), current, current + 1] {
                let mask = (1 << PERIOD_BITS) - 1;
                let number = u32::try_from(number & mask).expect("20 bits fit into 32");
                keys.push(Planned {
                    serial: master << PERIOD_BITS | number,
                    active: Some(master) == sealing && u64::from(number) == current & mask,
                });
            }
        }
        keys.dedup();
        let seals_until = Duration::from_secs((current + 1) * seconds);
        // Others accept the active key for one period after it has sealed; the last put made with it must end before.
        let valid = (seals_until + period).saturating_sub(limits::TTL_MAX + MARGIN).saturating_sub(now);
        Plan { keys, valid }
    }

    /// The key of `namespace` with this serial number; `None` if its master is not there.
    #[must_use]
    pub fn key(&self, namespace: &str, serial: u32) -> Option<Secret> {
        let master = self.secrets.get(&(serial >> PERIOD_BITS))?;
        let hkdf = Hkdf::<Sha256>::new(Some(b"zipline controller 1"), master.as_ref());
        let mut key = Zeroizing::new([0_u8; 32]);
        hkdf.expand_multi_info(
            &[b"namespace key", &serial.to_be_bytes(), namespace.as_bytes()],
            key.as_mut(),
        )
        .expect("32 bytes are within what HKDF-SHA256 can expand to");
        Some(Secret::from_bytes(*key))
    }

    /// The keys of `namespace` as they are sent to its queue-proxies.
    #[must_use]
    pub fn keys(&self, namespace: &str, plan: &Plan) -> Vec<ControllerKey> {
        plan.keys
            .iter()
            .filter_map(|planned| {
                let secret = self.key(namespace, planned.serial)?;
                Some(ControllerKey {
                    id: key_id(namespace, planned.serial).to_text(),
                    secret: to_text(secret.expose()),
                    state: if planned.active { KeyState::Active } else { KeyState::Accept },
                })
            })
            .collect()
    }
}

impl fmt::Debug for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masters").field("numbers", &self.numbers()).finish_non_exhaustive()
    }
}

/// Which keys there are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    keys: Vec<Planned>,
    /// How long a queue-proxy that hears nothing more may seal with them.
    pub valid: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Planned {
    serial: u32,
    active: bool,
}

impl Plan {
    /// Changes whenever other keys are to be used; below 2^48.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Sha256::new();
        for Planned { serial, active } in &self.keys {
            digest.update(serial.to_be_bytes());
            digest.update([u8::from(*active)]);
        }
        below_48_bits(&digest.finalize())
    }

    /// Serial numbers of all keys.
    #[must_use]
    pub fn serials(&self) -> Vec<u32> {
        self.keys.iter().map(|key| key.serial).collect()
    }

    /// Serial number of the key that seals.
    #[must_use]
    pub fn active(&self) -> Option<u32> {
        self.keys.iter().find(|key| key.active).map(|key| key.serial)
    }
}

/// The first six bytes of a digest as a number.
pub(crate) fn below_48_bits(digest: &[u8]) -> u64 {
    digest.iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn read(path: &Path) -> io::Result<Option<Zeroizing<[u8; 32]>>> {
    use io::Read as _;
    let mut text = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?.take(FILE_MAX).read_to_end(&mut text)?;
    let text = text.trim_ascii();
    let bytes = BASE64_STANDARD.decode(text).or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(text));
    let bytes = bytes.map(Zeroizing::new).ok();
    Ok(bytes.and_then(|bytes| Some(Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn masters(numbers: &[u32]) -> Masters {
        let folder = tempfile::tempdir().unwrap();
        for number in numbers {
            let text = BASE64_STANDARD.encode([u8::try_from(*number).unwrap(); 32]);
            std::fs::write(folder.path().join(number.to_string()), text + "\n").unwrap();
        }
        std::fs::write(folder.path().join("..data"), "made by Kubernetes").unwrap();
        Masters::load(folder.path()).unwrap()
    }

    #[test]
    fn a_key_is_known_one_period_before_and_after_it_seals() {
        let masters = masters(&[1]);
        let mut known_since = None;
        for day in 100..110_u32 {
            let plan = masters.plan(None, DAY, DAY * day);
            let active = plan.active().unwrap();
            if active == (1 << 20 | 105) {
                known_since.get_or_insert(day);
                assert_eq!(day, 105);
                assert!(masters.plan(None, DAY, DAY * 104).serials().contains(&active));
                assert!(masters.plan(None, DAY, DAY * 107 - MARGIN).serials().contains(&active));
                assert!(!masters.plan(None, DAY, DAY * 107).serials().contains(&active));
                // Whoever seals until the last moment makes puts that others can still open until they expire.
                let last_put_ends = DAY * day + plan.valid + limits::TTL_MAX;
                assert!(last_put_ends < DAY * 107);
            }
        }
        assert_eq!(known_since, Some(105));
    }

    #[test]
    fn a_new_master_seals_when_it_is_named() {
        let masters = masters(&[1, 2]);
        let now = DAY * 100;
        let before = masters.plan(None, DAY, now);
        let after = masters.plan(Some(2), DAY, now);
        assert_eq!((before.active().unwrap() >> 20, after.active().unwrap() >> 20), (1, 2));
        assert_eq!(before.serials(), after.serials());
        assert_ne!(before.digest(), after.digest());
        assert_eq!(masters.plan(Some(3), DAY, now).active(), before.active());
    }

    #[test]
    fn namespaces_share_no_key_and_replicas_share_all() {
        let (one, other) = (masters(&[1]), masters(&[1]));
        let plan = one.plan(None, DAY, DAY * 100);
        let keys = one.keys("shop", &plan);
        assert_eq!(keys, other.keys("shop", &plan));
        assert_eq!(keys.iter().filter(|key| key.state == KeyState::Active).count(), 1);
        for key in one.keys("shop2", &plan) {
            assert!(keys.iter().all(|other| other.secret != key.secret && other.id != key.id));
        }
    }

    #[test]
    fn what_is_no_master_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Masters::load(folder.path()), Err(MastersError::None { .. })));
        std::fs::write(folder.path().join("1"), "c2VjcmV0").unwrap();
        let error = Masters::load(folder.path()).unwrap_err();
        assert!(matches!(error, MastersError::Content { .. }) && !error.to_string().contains("c2VjcmV0"));
        std::fs::rename(folder.path().join("1"), folder.path().join("one")).unwrap();
        assert!(matches!(Masters::load(folder.path()), Err(MastersError::Name { .. })));
    }
}
