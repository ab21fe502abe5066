//! Idle connections to holders.

use super::RetrieverConfig;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// One HTTP/1.1 connection to a holder. Its driver is a task that ends with it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Empty<Bytes>>,
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
}

impl Pool {
    pub(super) fn new(config: &RetrieverConfig) -> Self {
        Self {
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
                if since.elapsed() < self.timeout && !connection.sender.is_closed() {
                    return Some(connection);
                }
            }
            all.remove(&(*address, certificate));
        }
        None
    }

    /// Takes back a connection whose last answer was read to its end.
    pub(super) fn put(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        let Some(all) = idle.as_mut() else { return };
        if all.values().map(VecDeque::len).sum::<usize>() >= self.max {
            let timeout = self.timeout;
            all.retain(|_, idle| {
                idle.retain(|idle| idle.since.elapsed() < timeout && !idle.connection.sender.is_closed());
                !idle.is_empty()
            });
            if all.values().map(VecDeque::len).sum::<usize>() >= self.max {
                return;
            }
        }
        let idle = all.entry((connection.address, connection.certificate)).or_default();
        if idle.len() < self.max_per_address {
            idle.push_back(Idle { connection, since: Instant::now() });
        }
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
