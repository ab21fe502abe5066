//! Which user each instance runs as.

use std::path::{Path, PathBuf};

use crate::config::InstanceUids;
use crate::error::EngineError;
use crate::manifest::ServiceManifest;

use super::program::{closed_folder, unreachable_for_others};

/// First user id given out; the group id is the same number. Above what distributions assign to people and services.
const FIRST: u32 = 61_000;
/// Ids given out before the first one is used again; by then its instance has long ended.
const COUNT: u64 = 4_000;

/// Who can reach whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Each instance is a user of its own: no function can reach into another.
    UserPerInstance,
    /// All run as the engine's user, so each can reach into every other.
    OneDomain {
        /// Why.
        reason: String,
    },
}

impl Trust {
    /// Decides once, for all instances.
    pub(crate) fn decide(
        wish: InstanceUids,
        is_root: bool,
        state_dir: &Path,
        services: &[(&ServiceManifest, PathBuf)],
        queue_proxy: &Path,
        zipline: &Path,
    ) -> Result<Self, EngineError> {
        let obstacle = if wish == InstanceUids::Off {
            Some("--instance-uids is off".to_owned())
        } else if !is_root {
            Some("the engine does not run as root".to_owned())
        } else if let Some(folder) = state_dir.parent().and_then(closed_folder) {
            Some(format!("other users cannot pass through {} to the state directory", folder.display()))
        } else {
            let own = [zipline, queue_proxy].into_iter().find_map(|program| {
                Some(("zipline".to_owned(), unreachable_for_others(program, Path::new("/"))?))
            });
            let theirs = || {
                services.iter().find_map(|(manifest, program)| {
                    let reason = unreachable_for_others(program, &manifest.container.working_dir)?;
                    Some((manifest.name.to_string(), reason))
                })
            };
            own.or_else(theirs).map(|(name, reason)| format!("{name}: {reason}"))
        };
        match (obstacle, wish) {
            (None, _) => Ok(Self::UserPerInstance),
            (Some(reason), InstanceUids::Require) => Err(EngineError::InstanceUids { reason }),
            (Some(reason), _) => Ok(Self::OneDomain { reason }),
        }
    }

    /// The user (and group) of the instance with this number; none: the engine's own.
    pub(crate) fn user(&self, number: u64) -> Option<u32> {
        let offset = u32::try_from(number % COUNT).expect("less than COUNT");
        (*self == Self::UserPerInstance).then_some(FIRST + offset)
    }

    /// Whether memory that was shared may be written again: where instances share one user, every function can read every
    /// other's memory anyway.
    pub(crate) fn reuse(&self) -> bool {
        matches!(self, Self::OneDomain { .. })
    }

    /// One sentence for log and status.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::UserPerInstance => {
                "each instance runs as a user of its own; memory that was shared is not written again".into()
            }
            Self::OneDomain { reason } => {
                format!("all functions are one trust domain, since instances share one user: {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(wish: InstanceUids, is_root: bool) -> Result<Trust, EngineError> {
        let shell = Path::new("/bin/sh");
        Trust::decide(wish, is_root, Path::new("/tmp/zipline-0"), &[], shell, shell)
    }

    #[test]
    fn root_with_reachable_programs_gets_users() {
        let trust = decide(InstanceUids::Auto, true).unwrap();
        assert_eq!(trust, Trust::UserPerInstance);
        assert_eq!((trust.user(0), trust.user(5)), (Some(61_000), Some(61_005)));
        assert!(!trust.reuse());
    }

    #[test]
    fn others_are_told_that_they_are_one_trust_domain() {
        let trust = decide(InstanceUids::Auto, false).unwrap();
        assert_eq!(trust.user(1), None);
        assert!(trust.sentence().contains("one trust domain"), "{}", trust.sentence());
        assert!(trust.reuse());
        assert!(decide(InstanceUids::Off, true).unwrap().user(1).is_none());
        let error = decide(InstanceUids::Require, false).unwrap_err();
        assert!(error.to_string().contains("does not run as root"), "{error}");
    }
}
