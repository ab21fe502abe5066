//! Which instance of a function gets the next request, and who waits for one.
//!
//! A request takes a *slot*. Without a concurrency limit every instance has as many as are asked for; with one, as many
//! as the limit, so that a request waits here, where any instance can still take it, rather than in one queue-proxy.
//! Ready instances come before those that only listen, and among equals the one with the fewest requests in flight.
//! Requests that find no slot wait first come first served, up to a bound; beyond it they are refused.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::instance::Failure;

/// A request got no slot.
#[derive(Debug, Clone)]
pub(crate) enum HoldError {
    /// As many requests are held as may be.
    Full {
        /// The bound.
        held_max: usize,
    },
    /// Instances could not be brought up.
    Failed(Arc<Failure>),
    /// The engine is about to end.
    Closed,
}

/// The instances of one function that take requests.
#[derive(Debug)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    held_max: usize,
    /// Requests per instance; none: no limit.
    concurrency: Option<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    members: Vec<Member>,
    waiting: VecDeque<Waiting>,
    next_waiter: u64,
    closed: bool,
}

#[derive(Debug)]
struct Member {
    id: u64,
    address: SocketAddr,
    ready: bool,
    /// Takes no new requests; stays until those in flight have ended.
    retired: bool,
    in_flight: usize,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    avoid: Vec<u64>,
    reply: oneshot::Sender<Result<Slot, HoldError>>,
}

/// The right to one request in flight at one instance, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    pool: Option<Arc<Pool>>,
    member: u64,
    address: SocketAddr,
}

impl Slot {
    /// The instance.
    pub(crate) fn instance(&self) -> u64 {
        self.member
    }

    /// Where its queue-proxy takes requests.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(self.member);
        }
    }
}

impl Pool {
    /// `concurrency` 0 means no limit.
    pub(crate) fn new(concurrency: u32, held_max: usize) -> Arc<Self> {
        let concurrency = usize::try_from(concurrency).ok().filter(|limit| *limit > 0);
        Arc::new(Self { inner: Mutex::new(Inner::default()), held_max, concurrency })
    }

    /// Waits for a slot at an instance that is not in `avoid`.
    ///
    /// # Cancel safety
    /// Dropped, the request leaves the queue; a slot that was on its way to it goes to the next.
    pub(crate) async fn acquire(self: &Arc<Self>, avoid: &[u64]) -> Result<Slot, HoldError> {
        let (place, reply) = {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(HoldError::Closed);
            }
            // Nobody may overtake those who wait, unless what they wait for is something else.
            if let Some(slot) = self.pick(&mut inner, avoid) {
                return Ok(slot);
            }
            if inner.waiting.len() >= self.held_max {
                return Err(HoldError::Full { held_max: self.held_max });
            }
            let (reply, receiver) = oneshot::channel();
            let id = inner.next_waiter;
            inner.next_waiter += 1;
            inner.waiting.push_back(Waiting { id, avoid: avoid.to_vec(), reply });
            (Place { pool: self, id }, receiver)
        };
        let got = reply.await.unwrap_or(Err(HoldError::Closed));
        drop(place);
        got
    }

    /// A slot at the best instance, if one has room.
    fn pick(self: &Arc<Self>, inner: &mut Inner, avoid: &[u64]) -> Option<Slot> {
        let member = inner
            .members
            .iter_mut()
            .filter(|member| !member.retired && !avoid.contains(&member.id))
            .filter(|member| self.concurrency.is_none_or(|limit| member.in_flight < limit))
            .min_by_key(|member| (!member.ready, member.in_flight))?;
        member.in_flight += 1;
        Some(Slot { pool: Some(self.clone()), member: member.id, address: member.address })
    }

    /// Hands slots to those who wait, as far as there are any.
    fn dispatch(self: &Arc<Self>, inner: &mut Inner) {
        let mut index = 0;
        while index < inner.waiting.len() {
            let avoid = std::mem::take(&mut inner.waiting[index].avoid);
            let Some(slot) = self.pick(inner, &avoid) else {
                inner.waiting[index].avoid = avoid;
                index += 1;
                continue;
            };
            let Some(waiting) = inner.waiting.remove(index) else { break };
            if let Err(Ok(mut slot)) = waiting.reply.send(Ok(slot)) {
                // It has just gone. The slot is taken back here: its own way back would lock again.
                slot.pool = None;
                inner.release(slot.member);
            }
        }
    }

    fn give_back(self: &Arc<Self>, member: u64) {
        let mut inner = self.inner.lock();
        inner.release(member);
        self.dispatch(&mut inner);
    }

    /// An instance listens.
    pub(crate) fn add(self: &Arc<Self>, id: u64, address: SocketAddr) {
        let mut inner = self.inner.lock();
        inner.members.push(Member { id, address, ready: false, retired: false, in_flight: 0 });
        self.dispatch(&mut inner);
    }

    /// An instance became ready, or stopped being so.
    pub(crate) fn set_ready(&self, id: u64, ready: bool) {
        if let Some(member) = self.inner.lock().members.iter_mut().find(|member| member.id == id) {
            member.ready = ready;
        }
    }

    /// An instance takes no new requests any more.
    pub(crate) fn retire(&self, id: u64) {
        let mut inner = self.inner.lock();
        if let Some(member) = inner.members.iter_mut().find(|member| member.id == id) {
            member.retired = true;
        }
        inner.members.retain(|member| !member.retired || member.in_flight > 0);
    }

    /// Answers everyone who waits with a failure, unless some instance still takes requests.
    pub(crate) fn fail_waiting(&self, failure: &Arc<Failure>) {
        let mut inner = self.inner.lock();
        if inner.members.iter().any(|member| !member.retired) {
            return;
        }
        for waiting in inner.waiting.drain(..) {
            let _ = waiting.reply.send(Err(HoldError::Failed(failure.clone())));
        }
    }

    /// Refuses everyone from now on.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        for waiting in inner.waiting.drain(..) {
            let _ = waiting.reply.send(Err(HoldError::Closed));
        }
    }

    /// Requests that wait for a slot.
    pub(crate) fn held(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    /// Requests in flight at one instance.
    pub(crate) fn in_flight(&self, id: u64) -> usize {
        self.inner.lock().members.iter().find(|member| member.id == id).map_or(0, |member| member.in_flight)
    }
}

impl Inner {
    fn release(&mut self, id: u64) {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
            member.in_flight -= 1;
        }
        self.members.retain(|member| !member.retired || member.in_flight > 0);
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    pool: &'a Pool,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pool.inner.lock().waiting.retain(|waiting| waiting.id != self.id);
    }
}

#[cfg(test)]
mod tests;
