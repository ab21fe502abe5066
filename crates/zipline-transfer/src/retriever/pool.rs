//! Idle connections to holders.

use super::RetrieverConfig;
use super::wire::Wire;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use zipline_buffer::Recycler;

/// One HTTP/1.1 connection to a holder.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) address: SocketAddr,
    /// Digest of the certificate that the holder has shown; `None`: plain.
    pub(super) certificate: Option<[u8; 32]>,
}

/// What a connection must have in common with a reference to be used for it.
type Door = (SocketAddr, Option<[u8; 32]>);

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// Idle connections by address and certificate, the last used one first. When full, a returned connection is closed.
#[derive(Debug)]
pub(super) struct Pool {
    /// `None` once closed.
    idle: Mutex<Option<HashMap<Door, VecDeque<Idle>>>>,
    max_per_address: usize,
    max: usize,
    timeout: Duration,
    /// Buffers that answers are read into.
    recycler: Recycler,
    /// A connection came to an empty pool.
    filled: Notify,
}

impl Pool {
    pub(super) fn new(config: &RetrieverConfig) -> Self {
        Self {
            recycler: Recycler::new(config.buffer_bytes, config.max_warm_buffers),
            filled: Notify::new(),
            idle: Mutex::new(Some(HashMap::new())),
            max_per_address: config.max_idle_per_address,
            max: config.max_idle,
            timeout: config.idle_timeout,
        }
    }

    /// A connection to any of `addresses` that looks alive and has shown `certificate`.
    pub(super) fn take(&self, addresses: &[SocketAddr], certificate: Option<[u8; 32]>) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let all = idle.as_mut()?;
        for address in addresses {
            let Some(idle) = all.get_mut(&(*address, certificate)) else { continue };
            while let Some(Idle { connection, since }) = idle.pop_back() {
                if since.elapsed() < self.timeout && connection.wire.is_quiet() {
                    return Some(connection);
                }
            }
            all.remove(&(*address, certificate));
        }
        None
    }

    /// Takes back a connection whose last answer was read to its end; one that cannot be used again is closed.
    pub(super) fn put(&self, connection: Connection) {
        if !connection.wire.is_reusable() {
            return;
        }
        let mut idle = self.idle.lock();
        let Some(all) = idle.as_mut() else { return };
        if all.values().map(VecDeque::len).sum::<usize>() >= self.max {
            self.prune(all);
            if all.values().map(VecDeque::len).sum::<usize>() >= self.max {
                return;
            }
        }
        let idle = all.entry((connection.address, connection.certificate)).or_default();
        if idle.len() < self.max_per_address {
            idle.push_back(Idle { connection, since: Instant::now() });
            self.filled.notify_one();
        }
    }

    /// Drops what nobody will use again.
    fn prune(&self, all: &mut HashMap<Door, VecDeque<Idle>>) {
        all.retain(|_, idle| {
            idle.retain(|idle| idle.since.elapsed() < self.timeout && idle.connection.wire.is_quiet());
            !idle.is_empty()
        });
    }

    /// Closes idle connections and frees warm buffers whose time is over. Never resolves; sleeps while there are none.
    pub(super) async fn run_expiry(&self) {
        loop {
            let Some(at) = self.expires_at() else {
                self.filled.notified().await;
                continue;
            };
            sleep_until(at).await;
            self.recycler.cool();
            if let Some(all) = self.idle.lock().as_mut() {
                self.prune(all);
            }
        }
    }

    /// When there is something to close or free. A connection that the holder closes first is closed no later.
    fn expires_at(&self) -> Option<Instant> {
        let connections = {
            let idle = self.idle.lock();
            idle.iter().flat_map(HashMap::values).flatten().map(|idle| idle.since + self.timeout).min()
        };
        connections.into_iter().chain(self.recycler.cools_at()).min()
    }

    /// Buffers that answers are read into.
    pub(super) fn recycler(&self) -> &Recycler {
        &self.recycler
    }

    /// Closes the idle connections and keeps none from now on.
    pub(super) fn close(&self) {
        let idle = self.idle.lock().take();
        drop(idle);
    }

    /// Idle connections in all.
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().as_ref().map_or(0, |all| all.values().map(VecDeque::len).sum())
    }
}
