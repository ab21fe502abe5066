//! The limit of open files. Every connection is one, so the usual soft limit of 1,024 is soon reached.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most descriptors asked for: an unlimited hard limit would make programs that close every possible descriptor slow.
const OPEN_FILES_MAX: u64 = 1 << 20;

/// How many files this process may open; `u64::MAX` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// In force now.
    pub current: u64,
    /// Up to which an unprivileged process may raise it.
    pub maximum: u64,
}

/// The limits in force.
#[must_use]
pub fn open_files() -> OpenFiles {
    let limit = getrlimit(Resource::Nofile);
    OpenFiles { current: limit.current.unwrap_or(u64::MAX), maximum: limit.maximum.unwrap_or(u64::MAX) }
}

/// Raises the limit of open files as far as the hard limit (and 1,048,576) allows; never lowers it. Gives what is in force
/// now. Child processes inherit it.
///
/// # Errors
/// The system refused; the old limit stays.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES_MAX, |maximum| maximum.min(OPEN_FILES_MAX));
    match limit.current {
        Some(current) if current < wanted => {
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?;
            Ok(wanted)
        }
        current => Ok(current.unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        let before = open_files();
        let raised = raise_open_files().unwrap();
        assert!(raised >= before.current);
        assert!(raised >= before.maximum.min(OPEN_FILES_MAX));
        assert_eq!(open_files(), OpenFiles { current: raised, maximum: before.maximum });
        assert_eq!(raise_open_files().unwrap(), raised);
    }
}
