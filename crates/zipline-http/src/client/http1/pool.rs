//! Idle connections by target, the most recently used last, and the task that watches them.
//!
//! | what happens to an idle connection | what follows |
//! |---|---|
//! | a request takes it | it is looked at again, and used |
//! | its peer closes it, or speaks unasked | the task closes it |
//! | it is idle for too long, or one too many | the task, or whoever puts the next, closes it |
//! | the client goes, or closes its idle connections | it is closed, and the task ends |

use super::connection::Connection;
use crate::client::Inner;
use crate::client::socket::Queue;
use crate::client::target::HostPort;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Looks at idle connections per idle timeout, so that they are closed at most a quarter late.
pub(in crate::client) const IDLE_CHECKS: u32 = 4;
/// Targets without an idle connection that keep their place in the pool: making it anew for each request costs more.
const EMPTY_TARGETS: usize = 64;

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Wakes the task that watches, by name: the same one for all connections, and nobody else.
#[derive(Default)]
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

/// Idle connections by target, the most recently used last.
pub(in crate::client) struct Pool {
    kept: Mutex<Kept>,
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Default)]
struct Kept {
    idle: HashMap<HostPort, VecDeque<Idle>>,
    watched: bool,
}

impl Default for Pool {
    fn default() -> Self {
        let bell = Arc::<Bell>::default();
        Self { kept: Mutex::default(), waker: Waker::from(Arc::clone(&bell)), bell }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.bell.0.notify_one();
    }
}

impl Pool {
    pub(in crate::client) fn close_idle(&self) {
        let idle = std::mem::take(&mut self.kept.lock().idle);
        drop(idle);
        self.bell.0.notify_one();
    }

    /// Whether there was one.
    pub(in crate::client) fn close_longest_idle(&self) -> bool {
        let longest = {
            let idle = &mut self.kept.lock().idle;
            let addr = idle
                .iter()
                .filter_map(|(addr, idle)| idle.front().map(|idle| (idle.since, addr)))
                .min_by_key(|(since, _)| *since)
                .map(|(_, addr)| addr.clone());
            addr.and_then(|addr| idle.get_mut(&addr).and_then(VecDeque::pop_front))
        };
        longest.is_some()
    }

    /// An idle connection whose peer has not closed it, as far as this host knows; for a request that can be sent again, as
    /// far as its reactor knows.
    pub(super) fn take(&self, addr: &HostPort, again: bool, idle_timeout: Duration) -> Option<Connection> {
        while let Some(Idle { connection, since }) = self.pop(addr) {
            let queue = if again { connection.queue_as_told() } else { connection.queue() };
            if since.elapsed() < idle_timeout && queue == Queue::Empty {
                return Some(connection);
            }
        }
        None
    }

    fn pop(&self, addr: &HostPort) -> Option<Idle> {
        let idle = &mut self.kept.lock().idle;
        let of_target = idle.get_mut(addr)?;
        let last = of_target.pop_back();
        if of_target.is_empty() && idle.len() > EMPTY_TARGETS {
            idle.remove(addr);
        }
        last
    }

    /// Closes what is too old, gone or speaks unasked; whether there is anything left to watch.
    fn look(&self, idle_timeout: Duration) -> bool {
        let mut waker = Context::from_waker(&self.waker);
        let mut kept = self.kept.lock();
        let mut any = false;
        kept.idle.retain(|_, of_target| {
            of_target.retain(|idle| idle.since.elapsed() < idle_timeout && idle.connection.watch(&mut waker));
            any |= !of_target.is_empty();
            !of_target.is_empty()
        });
        kept.watched = any;
        any
    }
}

/// Keeps a connection for the next request to `addr`, unless its peer has gone.
pub(super) fn put(inner: &Arc<Inner>, addr: &HostPort, connection: Connection) {
    let pool = &inner.http1;
    if !connection.watch(&mut Context::from_waker(&pool.waker)) {
        return;
    }
    let idle = Idle { connection, since: Instant::now() };
    let mut kept = pool.kept.lock();
    let of_target = match kept.idle.get_mut(addr) {
        Some(of_target) => of_target,
        None => kept.idle.entry(addr.clone()).or_default(),
    };
    of_target.push_back(idle);
    let surplus = (of_target.len() > inner.config.max_idle_per_host).then(|| of_target.pop_front());
    let watched = std::mem::replace(&mut kept.watched, true);
    drop(kept);
    drop(surplus);
    if !watched {
        let (bell, idle_timeout) = (Arc::clone(&pool.bell), inner.config.idle_timeout);
        let watching = watch(bell, Arc::downgrade(inner), idle_timeout);
        drop(inner.tasks.spawn("http/1.1 idle connections", watching));
    }
}

/// Closes idle connections in time, until there are none.
async fn watch(bell: Arc<Bell>, inner: Weak<Inner>, idle_timeout: Duration) {
    loop {
        // Woken or not, it is time to look.
        let _ = timeout(idle_timeout / IDLE_CHECKS, bell.0.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        if !inner.http1.look(idle_timeout) {
            return;
        }
    }
}
