//! How many connections each address has.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The open connections of every peer. Holds an entry only for addresses that have one, so it is bounded by them.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

/// The place of one connection; frees it when dropped.
#[derive(Debug)]
pub(super) struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    pub(super) fn new(max: usize) -> Self {
        Self { open: Arc::default(), max }
    }

    /// A place for a connection of `peer`, unless it has too many.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Place> {
        let mut open = self.open.lock();
        let count = open.entry(peer).or_default();
        if *count >= self.max {
            if *count == 0 {
                open.remove(&peer);
            }
            return None;
        }
        *count += 1;
        Some(Place { peers: self.clone(), peer })
    }

    /// Connections in all.
    pub(super) fn open(&self) -> u64 {
        self.open.lock().values().sum::<usize>() as u64
    }
}

impl Place {
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}
