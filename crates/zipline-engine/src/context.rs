//! What every part of one engine shares.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use zipline_protocol::FunctionName;
use zipline_runtime::Tasks;

use crate::config::EngineConfig;
use crate::instance::{Instance, Trust};
use crate::keys::Keys;
use crate::logs::Logs;
use crate::state::{Register, StateDir};

/// Shared by gateway, functions, instances and control socket.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: EngineConfig,
    pub(crate) state: StateDir,
    pub(crate) register: Register,
    pub(crate) logs: Logs,
    pub(crate) keys: Keys,
    pub(crate) trust: Trust,
    /// Where functions reach the gateway.
    pub(crate) gateway: SocketAddr,
    /// Functions that open references.
    pub(crate) receivers: Vec<FunctionName>,
    pub(crate) tasks: Tasks,
    /// Readers of output; they end with the processes that write it.
    pub(crate) log_tasks: Tasks,
    pub(crate) numbers: AtomicU64,
    pub(crate) counts: Counts,
    pub(crate) guests: Mutex<Vec<Guest>>,
}

/// A queue-proxy of a process that is no function.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    /// `guest.<namespace>`.
    pub(crate) function: String,
    pub(crate) instance: Arc<Instance>,
}

/// What happened over the life of an engine.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) started: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) killed: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Context {
    /// The number of the next instance, from 1.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// An address that a listener bound to `listen` is reached at from this machine.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
