//! A TCP relay that cuts, resets or stalls connections at a byte offset; it can be told otherwise while it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::owner::{Owner, Spawner};

/// What happens at the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both sides see an orderly end.
    Fin,
    /// Both sides see a reset.
    Reset,
    /// Nothing moves any more in this direction, and nothing is closed.
    Stall,
}

/// Which bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who connected.
    ToTarget,
    /// To who connected.
    FromTarget,
}

/// A fault at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    /// Which bytes count.
    pub direction: Direction,
    /// After how many bytes of one connection; of one that runs already, since the rule was set. It happens when the
    /// next byte arrives.
    pub after_bytes: u64,
    /// What later connections meet.
    pub then: Then,
}

/// What connections meet after the rule has struck once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing: they pass.
    Pass,
    /// The same, at the same offset of their own.
    Again,
    /// The same, before their first byte: the link is dead.
    Dead,
}

#[derive(Debug)]
struct Plan {
    target: SocketAddr,
    rule: Option<Rule>,
    /// Goes up with every change of the rule.
    generation: u64,
}

/// Bytes of one connection and direction under one rule.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    generation: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    struck: AtomicU64,
    passed_bytes: AtomicU64,
    connections: AtomicU64,
    /// What came from the target, if it is to be kept.
    recorded: Mutex<Option<Vec<u8>>>,
    changed: watch::Sender<()>,
}

impl Shared {
    /// Whether the rule strikes inside the next `length` bytes, and after how many of them.
    fn strike(&self, direction: Direction, count: &mut Count, length: usize) -> Option<(Fault, usize)> {
        let plan = self.plan.lock();
        if count.generation != plan.generation {
            *count = Count { generation: plan.generation, bytes: 0 };
        }
        let rule = plan.rule.filter(|rule| rule.direction == direction)?;
        let after_bytes = match (rule.then, self.struck.load(Ordering::Relaxed)) {
            (_, 0) | (Then::Again, _) => rule.after_bytes,
            (Then::Dead, _) => 0,
            (Then::Pass, _) => return None,
        };
        let room = usize::try_from(after_bytes.saturating_sub(count.bytes)).unwrap_or(usize::MAX);
        if room >= length {
            return None;
        }
        self.struck.fetch_add(1, Ordering::Relaxed);
        Some((rule.fault, room))
    }
}

/// A running relay; it ends, and its connections with it, when dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _owner: Owner,
}

impl Relay {
    /// Starts a relay that passes everything to `target`.
    ///
    /// # Errors
    /// No port.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, owner) = (listener.local_addr()?, Owner::default());
        let shared = Arc::new(Shared {
            plan: Mutex::new(Plan { target, rule: None, generation: 0 }),
            struck: AtomicU64::new(0),
            passed_bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            recorded: Mutex::new(None),
            changed: watch::Sender::new(()),
        });
        let (spawner, state) = (owner.spawner(), Arc::clone(&shared));
        owner.spawner().spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                state.connections.fetch_add(1, Ordering::Relaxed);
                let target = state.plan.lock().target;
                let (connections, state) = (spawner.clone(), Arc::clone(&state));
                spawner.spawn(async move {
                    if let Ok(server) = TcpStream::connect(target).await {
                        splice(client, server, &state, &connections);
                    }
                });
            }
        });
        Ok(Self { address, shared, _owner: owner })
    }

    /// Sends new connections elsewhere.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.plan.lock().target = target;
    }

    /// Applies a rule to connections from now on, running ones included; `None` lets everything pass.
    pub fn set_rule(&self, rule: Option<Rule>) {
        {
            let mut plan = self.shared.plan.lock();
            plan.rule = rule;
            plan.generation += 1;
            // Without a rule the count stays, for those who still ask about the one before.
            if rule.is_some() {
                self.shared.struck.store(0, Ordering::Relaxed);
            }
        }
        self.shared.changed.send_replace(());
    }

    /// Keeps all bytes that come from the target from now on: for payloads small enough to be kept.
    pub fn record(&self) {
        *self.shared.recorded.lock() = Some(Vec::new());
    }

    /// The bytes kept so far, in the order of their arrival, whatever connection they came on.
    #[must_use]
    pub fn recorded(&self) -> Vec<u8> {
        self.shared.recorded.lock().clone().unwrap_or_default()
    }

    /// How often the last rule struck.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Relaxed)
    }

    /// Bytes passed so far, both directions.
    #[must_use]
    pub fn passed_bytes(&self) -> u64 {
        self.shared.passed_bytes.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

fn splice(client: TcpStream, server: TcpStream, shared: &Arc<Shared>, spawner: &Spawner) {
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let end = Arc::new(watch::Sender::new(None));
    for (direction, from, to) in
        [(Direction::ToTarget, from_client, to_server), (Direction::FromTarget, from_server, to_client)]
    {
        let (shared, end) = (Arc::clone(shared), Arc::clone(&end));
        spawner.spawn(async move {
            let mut ended = end.subscribe();
            let fault = tokio::select! {
                fault = pump(direction, &from, to, &shared) => fault,
                fault = ended.wait_for(Option::is_some) => fault.map_or(None, |fault| *fault),
            };
            if let Some(fault) = fault {
                end.send_replace(Some(fault));
                if fault == Fault::Reset {
                    drop(SockRef::from(from.as_ref()).set_linger(Some(Duration::ZERO)));
                }
            }
        });
    }
}

/// Copies until the end or a fault. An orderly end passes on as half a close.
async fn pump(
    direction: Direction,
    from: &OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
) -> Option<Fault> {
    let (mut count, mut buffer) = (Count::default(), vec![0_u8; 64 * 1024]);
    loop {
        let ready = from.readable().await;
        let length = match ready.and_then(|()| from.try_read(&mut buffer)) {
            Ok(0) => {
                drop(to.shutdown().await);
                return None;
            }
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return Some(Fault::Reset),
        };
        if direction == Direction::FromTarget
            && let Some(recorded) = &mut *shared.recorded.lock()
        {
            recorded.extend_from_slice(&buffer[..length]);
        }
        let mut sent = 0;
        let mut changed = shared.changed.subscribe();
        if let Some((fault, room)) = shared.strike(direction, &mut count, length) {
            if to.write_all(&buffer[..room]).await.is_err() {
                return Some(Fault::Reset);
            }
            sent = room;
            if fault != Fault::Stall {
                return Some(fault);
            }
            // The stall lasts until the relay is told otherwise.
            if changed.changed().await.is_err() {
                return None;
            }
        }
        if to.write_all(&buffer[sent..length]).await.is_err() {
            return Some(Fault::Reset);
        }
        count.bytes += length as u64;
        shared.passed_bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
}
