//! Instances: a queue-proxy process and a function process each.
//!
//! An instance is *starting* until its queue-proxy listens, then *listening* (it takes requests and holds them) until its
//! function is ready, then *ready*; *draining* once it is retired or one of its processes failed; *ended* when both are
//! gone. It never goes back: what restarts is another instance, with other ports.

mod backoff;
mod channel;
mod environment;
mod folder;
mod guest;
mod launch;
mod program;
mod run;
mod users;
mod wind_down;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zipline_protocol::ErrorCode;

use crate::logs::InstanceLog;

pub(crate) use backoff::BackOff;
pub use guest::GuestAccess;
pub(crate) use guest::start as start_guest;
pub(crate) use program::find as find_program;
pub(crate) use run::{Ended, run};
pub(crate) use users::Trust;

/// Why an instance did not come up or went down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    /// Names the function and where to look.
    pub(crate) message: String,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Its queue-proxy does not listen yet.
    Starting,
    /// It takes requests; its function is not ready.
    Listening,
    /// Its function answers its readiness probe.
    Ready,
    /// It takes no new requests.
    Draining,
    /// Both processes are gone.
    Ended,
}

/// Addresses of a queue-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Requests to the function; none for guests.
    pub inbound: Option<SocketAddr>,
    /// Local API and forward proxy.
    pub api: SocketAddr,
    /// Data port.
    pub data: SocketAddr,
    /// Health, metrics, status.
    pub admin: SocketAddr,
}

/// One running copy of a function, or a guest's queue-proxy.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Unique over the life of the engine.
    pub(crate) number: u64,
    /// `<revision>-<number>`.
    pub(crate) name: String,
    pub(crate) user: Option<u32>,
    pub(crate) log: Arc<InstanceLog>,
    pub(crate) folder: PathBuf,
    pub(crate) started: Instant,
    facts: Mutex<Facts>,
}

/// What changes over the life of an instance.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) state: InstanceState,
    pub(crate) ready_since: Option<Instant>,
    pub(crate) addresses: Option<Addresses>,
    pub(crate) function_port: Option<u16>,
    pub(crate) queue_proxy_pid: Option<i32>,
    pub(crate) function_pid: Option<i32>,
    pub(crate) failure: Option<Arc<Failure>>,
}

impl Instance {
    pub(crate) fn new(
        number: u64,
        name: String,
        user: Option<u32>,
        log: Arc<InstanceLog>,
        folder: PathBuf,
    ) -> Self {
        let facts = Facts {
            state: InstanceState::Starting,
            ready_since: None,
            addresses: None,
            function_port: None,
            queue_proxy_pid: None,
            function_pid: None,
            failure: None,
        };
        Self { number, name, user, log, folder, started: Instant::now(), facts: Mutex::new(facts) }
    }

    pub(crate) fn facts(&self) -> Facts {
        self.facts.lock().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock());
    }

    /// Moves on; an earlier state than the present one changes nothing, but for a ready function that stops being so.
    pub(crate) fn advance(&self, state: InstanceState) {
        let mut facts = self.facts.lock();
        match (facts.state, state) {
            (InstanceState::Ready, InstanceState::Listening) => facts.ready_since = None,
            (now, next) if next < now => return,
            (_, InstanceState::Ready) => facts.ready_since = Some(Instant::now()),
            _ => {}
        }
        facts.state = state;
    }
}
