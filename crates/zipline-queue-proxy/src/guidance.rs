//! What somebody else decides for this process while it runs: the mode, and the zone it is in.
//!
//! Standalone nobody does, and the settings hold. On Kubernetes the controller does ([`crate::keys::controller`]): until it
//! has answered, the mode is off and everything goes inline.

use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;
use zipline_protocol::{Mode, limits};

/// What was last heard. Clones are the same.
#[derive(Clone, Debug)]
pub struct Guidance {
    heard: Arc<RwLock<Heard>>,
}

#[derive(Debug)]
struct Heard {
    mode: Mode,
    zone: Arc<str>,
    report: Option<Report>,
}

/// How it stands with the controller, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `waiting` until the first answer, then `ok`, or `failing` while answers fail.
    pub state: &'static str,
    /// The mode it says; the settings can only lower it.
    pub mode: &'static str,
    /// Why the last question failed; empty if it did not.
    pub error: String,
    /// Serial numbers of the keys, ascending.
    pub keys: Vec<u32>,
}

impl Guidance {
    /// Nobody guides this process: its settings hold.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Mode::On, None)
    }

    /// The controller will; until then nothing is deferred and nothing opened.
    #[must_use]
    pub fn awaited() -> Self {
        let report =
            Report { state: "waiting", mode: Mode::Off.as_str(), error: String::new(), keys: Vec::new() };
        Self::new(Mode::Off, Some(report))
    }

    fn new(mode: Mode, report: Option<Report>) -> Self {
        Self { heard: Arc::new(RwLock::new(Heard { mode, zone: "".into(), report })) }
    }

    /// The highest mode that is allowed now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.heard.read().mode
    }

    /// The zone of this process; empty if it is not known.
    #[must_use]
    pub fn zone(&self) -> Arc<str> {
        Arc::clone(&self.heard.read().zone)
    }

    /// How it stands with the controller; `None` if there is none.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        self.heard.read().report.clone()
    }

    /// Takes a mode; `true` if it is another one than before.
    pub(crate) fn set_mode(&self, mode: Mode) -> bool {
        let mut heard = self.heard.write();
        if let Some(report) = &mut heard.report {
            report.mode = mode.as_str();
        }
        std::mem::replace(&mut heard.mode, mode) != mode
    }

    /// Takes a zone. One that does not fit into a reference is as good as none.
    pub(crate) fn set_zone(&self, zone: &str) {
        let zone = if zone.len() <= limits::ZONE_MAX { zone } else { "" };
        self.heard.write().zone = zone.into();
    }

    /// Notes that the controller gave these keys.
    pub(crate) fn succeeded(&self, keys: Vec<u32>) {
        if let Some(report) = &mut self.heard.write().report {
            report.state = "ok";
            report.error.clear();
            report.keys = keys;
        }
    }

    /// Notes that the controller could not be asked, or refused.
    pub(crate) fn failed(&self, error: String) {
        if let Some(report) = &mut self.heard.write().report {
            report.state = if report.keys.is_empty() { "waiting" } else { "failing" };
            report.error = error;
        }
    }
}
