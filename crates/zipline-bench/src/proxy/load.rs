//! The load: some connections, one thread, each connection with one request under way; every latency is kept.

use std::net::SocketAddr;

use anyhow::Context as _;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

use super::wire::{Message, Protocol, Wire};
use crate::statistics::quantile;

/// Nothing comes for this long: something is broken.
const SILENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
const READ_BYTES: usize = 16 * 1024;

/// What one run measured.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Requests of the time measured; those under way count by the part of their body that was sent.
    pub(super) requests: f64,
    pub(super) seconds: f64,
    pub(super) median_seconds: f64,
    pub(super) p99_seconds: f64,
}

/// One request, answered.
///
/// # Errors
/// If it was not answered with 200.
pub(super) fn ask(address: SocketAddr, protocol: Protocol) -> anyhow::Result<()> {
    let mut load = Load::open(address, protocol, 1, 0)?;
    load.run(|completed| completed == 0)?;
    Ok(())
}

/// An open load. Its connections are closed when it is dropped.
pub(super) struct Load {
    reactor: rustix::fd::OwnedFd,
    message: Message,
    peers: Vec<Peer>,
    latencies: Vec<Duration>,
    buffer: Vec<u8>,
}

struct Peer {
    wire: Wire,
    since: Instant,
}

impl Load {
    pub(super) fn open(
        address: SocketAddr,
        protocol: Protocol,
        connections: usize,
        body: u64,
    ) -> anyhow::Result<Self> {
        let message = Message::new(protocol, address, body);
        let reactor = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut peers = Vec::with_capacity(connections);
        for place in 0..connections {
            let wire = Wire::open(address, protocol)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&reactor, &wire.stream, epoll::EventData::new_u64(place as u64), flags)?;
            peers.push(Peer { wire, since: Instant::now() });
        }
        for peer in &mut peers {
            peer.since = Instant::now();
            peer.wire.begin(&message)?;
        }
        Ok(Self { reactor, message, peers, latencies: Vec::new(), buffer: vec![0; READ_BYTES] })
    }

    /// Loads for `seconds` and measures.
    ///
    /// # Errors
    /// If anything but a complete answer of status 200 came to any request.
    pub(super) fn measure(&mut self, seconds: f64) -> anyhow::Result<Measured> {
        self.latencies.clear();
        let before = self.under_way();
        let started = Instant::now();
        let end = started + Duration::from_secs_f64(seconds);
        // One answer at least, however long it takes.
        self.run(|completed| completed == 0 || Instant::now() < end)?;
        let elapsed = started.elapsed().as_secs_f64();
        let requests = self.latencies.len() as f64 + self.under_way() - before;
        self.latencies.sort_unstable();
        let at = |percent| quantile(&self.latencies, percent).map_or(0.0, |latency| latency.as_secs_f64());
        Ok(Measured { requests, seconds: elapsed, median_seconds: at(50), p99_seconds: at(99) })
    }

    fn under_way(&self) -> f64 {
        let body = self.message.body.max(1) as f64;
        self.peers.iter().map(|peer| peer.wire.sent as f64 / body).sum()
    }

    /// Runs while `go_on`, which is asked with the number of answers after each round.
    fn run(&mut self, go_on: impl Fn(usize) -> bool) -> anyhow::Result<()> {
        let Self { reactor, message, peers, latencies, buffer } = self;
        let mut events = Vec::with_capacity(256);
        while go_on(latencies.len()) {
            events.clear();
            epoll::wait(&*reactor, spare_capacity(&mut events), Some(&SILENCE)).context("epoll")?;
            anyhow::ensure!(!events.is_empty(), "no answer within {} s", SILENCE.tv_sec);
            for event in &events {
                let place = usize::try_from({ event.data }.u64()).context("place")?;
                let peer = &mut peers[place];
                if peer.wire.read(message, buffer)? {
                    latencies.push(peer.since.elapsed());
                    peer.since = Instant::now();
                    peer.wire.begin(message)?;
                } else if { event.flags }.contains(epoll::EventFlags::OUT) {
                    peer.wire.write(message)?;
                }
            }
        }
        Ok(())
    }
}
