//! Who of the receivers of one payload is sent it from here, and who retrieves it from another receiver.
//!
//! Receivers that offer to serve a copy form a tree below the holder. Of `n` of them the holder itself serves `1 + log2 n`, rounded
//! up; each further one is named a receiver that has a copy, or is being sent one, and fewer than [`limits::RELAY_FAN`] of its own:
//! first one that has all of it, then the nearest to the holder, of those the least busy. So bytes pass few hands, and there is never
//! a circle, as a relay is there before those it serves.
//!
//! | a receiver | event | what follows |
//! |---|---|---|
//! | – | its lease is asked for | it may be named as a relay, for as long as it shows life |
//! | being sent | shows life | the same, from now on |
//! | being sent | comes back from its relay | that one is not named any more |
//! | being sent | acknowledges | it may be named for a while less than it keeps its copy; its relay serves one fewer |
//! | any | cancels, or its time is over | it is forgotten |
//!
//! Nothing here decides whether a lease is granted or counted. Whoever is named a relay that is gone comes back and is served.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{LeaseId, PayloadId, limits};

/// Payloads with trees. Of further ones everybody is served from here.
const TREES_MAX: usize = 1024;
/// Receivers in one tree. Further ones are served from here.
const NODES_MAX: usize = 1024;
/// A receiver that is not heard of for so long is not named any more.
const HEARD_WITHIN: Duration = limits::PROGRESS_TIMEOUT;
/// A receiver that has a copy is named for so long; it keeps the copy a little longer.
const NAMED_WITHIN: Duration = limits::COPY_KEPT.saturating_sub(Duration::from_secs(1));

/// The trees of one port.
#[derive(Debug, Default)]
pub(super) struct Spread {
    trees: Mutex<HashMap<PayloadId, Tree>>,
}

/// The receivers of one payload that offer copies.
#[derive(Debug, Default)]
struct Tree {
    /// Receivers that ever asked, since the tree was empty.
    asked: u32,
    /// Those of them who were served from here.
    direct: u32,
    /// The oldest first.
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    lease: LeaseId,
    place: CopyPlace,
    /// Who sends it, if not the holder.
    relay: Option<LeaseId>,
    /// How many hands its bytes passed when it was named its place; 0: they are all there.
    distance: u32,
    /// To how many it sends.
    serves: usize,
    /// Somebody it was named to came back.
    failed: bool,
    until: Instant,
}

impl Spread {
    /// Notes that `lease` is asked for by a receiver that offers a copy at `offer`. Says where it is to retrieve from; `None`: from
    /// here. With `tls`, only from where it would be by TLS.
    pub(super) fn assign(
        &self,
        payload: &PayloadId,
        lease: LeaseId,
        offer: CopyPlace,
        tls: bool,
    ) -> Option<CopyPlace> {
        let now = Instant::now();
        let mut trees = self.trees.lock();
        if trees.len() >= TREES_MAX && !trees.contains_key(payload) {
            trees.retain(|_, tree| !tree.prune(now));
            if trees.len() >= TREES_MAX {
                return None;
            }
        }
        let tree = trees.entry(*payload).or_default();
        if tree.prune(now) {
            *tree = Tree::default();
        }
        if tree.nodes.len() >= NODES_MAX {
            return None;
        }
        tree.asked += 1;
        let from_here = 1 + tree.asked.next_power_of_two().trailing_zeros();
        let relay = if tree.direct < from_here { None } else { tree.pick(&offer, tls) };
        let relay = match relay {
            None => {
                tree.direct += 1;
                None
            }
            Some(relay) => {
                relay.serves += 1;
                Some(((relay.lease, relay.distance + 1), relay.place.clone()))
            }
        };
        let (relay, named) = relay.unzip();
        let (relay, distance) = relay.map_or((None, 1), |(relay, distance)| (Some(relay), distance));
        let until = now + HEARD_WITHIN;
        tree.nodes.push(Node { lease, place: offer, relay, distance, serves: 0, failed: false, until });
        named
    }

    /// The receiver of `lease` shows life.
    pub(super) fn lives(&self, payload: &PayloadId, lease: &LeaseId) {
        self.with(payload, |tree| {
            if let Some(node) = tree.node(lease) {
                node.until = node.until.max(Instant::now() + HEARD_WITHIN);
            }
        });
    }

    /// The receiver of `lease` has all of the payload.
    pub(super) fn done(&self, payload: &PayloadId, lease: &LeaseId) {
        self.with(payload, |tree| {
            let Some(node) = tree.node(lease) else { return };
            node.until = Instant::now() + NAMED_WITHIN;
            node.distance = 0;
            let relay = node.relay.take();
            tree.relieve(relay);
        });
    }

    /// The receiver of `lease` wants the bytes from here, whatever it was told before.
    pub(super) fn came_back(&self, payload: &PayloadId, lease: &LeaseId) {
        self.with(payload, |tree| {
            let relay = tree.node(lease).and_then(|node| {
                node.distance = 1;
                node.relay.take()
            });
            tree.relieve(relay);
            if let Some(relay) = relay.and_then(|relay| tree.node(&relay)) {
                relay.failed = true;
            }
        });
    }

    /// The lease was refused, or given up.
    pub(super) fn left(&self, payload: &PayloadId, lease: &LeaseId) {
        self.with(payload, |tree| {
            if let Some(at) = tree.nodes.iter().position(|node| node.lease == *lease) {
                let relay = tree.nodes.remove(at).relay;
                tree.relieve(relay);
            }
        });
    }

    fn with(&self, payload: &PayloadId, change: impl FnOnce(&mut Tree)) {
        if let Some(tree) = self.trees.lock().get_mut(payload) {
            change(tree);
        }
    }
}

impl Tree {
    fn node(&mut self, lease: &LeaseId) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.lease == *lease)
    }

    /// Whoever may be named to a receiver at `offer`.
    fn pick(&mut self, offer: &CopyPlace, tls: bool) -> Option<&mut Node> {
        let may = |node: &&mut Node| {
            let is_another = node.place.boot != offer.boot;
            is_another
                && !node.failed
                && node.serves < limits::RELAY_FAN
                && (!tls || node.place.certificate.is_some())
        };
        // Of several that are alike, the first one.
        self.nodes.iter_mut().filter(may).min_by_key(|node| (node.distance, node.serves))
    }

    /// `relay` serves one fewer.
    fn relieve(&mut self, relay: Option<LeaseId>) {
        if let Some(relay) = relay.and_then(|relay| self.node(&relay)) {
            relay.serves = relay.serves.saturating_sub(1);
        }
    }

    /// Forgets those whose time is over. True if nobody is left.
    fn prune(&mut self, now: Instant) -> bool {
        while let Some(at) = self.nodes.iter().position(|node| node.until <= now) {
            let relay = self.nodes.remove(at).relay;
            self.relieve(relay);
        }
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zipline_protocol::BootId;

    const PAYLOAD: PayloadId = PayloadId::from_bytes([1; 16]);

    fn lease(n: u8) -> LeaseId {
        LeaseId::from_bytes([n; 16])
    }

    fn place(n: u8) -> CopyPlace {
        let addresses = vec![([10, 0, 0, n], 8031).into()];
        CopyPlace { boot: BootId::from_bytes([n; 16]), addresses, certificate: None }
    }

    /// Whom the `n`th receiver is named; 0 is the holder.
    fn assign(spread: &Spread, n: u8) -> u8 {
        let named = spread.assign(&PAYLOAD, lease(n), place(n), false);
        named.map_or(0, |place| place.boot.as_bytes()[0])
    }

    #[tokio::test(start_paused = true)]
    async fn the_holders_work_grows_like_the_logarithm() {
        let spread = Spread::default();
        let named: Vec<u8> = (1..=16).map(|n| assign(&spread, n)).collect();
        assert_eq!(named, [0, 0, 0, 1, 0, 2, 3, 5, 0, 9, 1, 2, 3, 5, 9, 4]);
        for n in 17..=200 {
            assign(&spread, n);
        }
        let trees = spread.trees.lock();
        let tree = &trees[&PAYLOAD];
        assert_eq!(tree.direct, 9);
        assert!(tree.nodes.iter().all(|node| node.serves <= limits::RELAY_FAN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_failed_somebody_is_not_named_again() {
        let spread = Spread::default();
        assert_eq!([1, 2, 3, 4].map(|n| assign(&spread, n)), [0, 0, 0, 1]);
        spread.came_back(&PAYLOAD, &lease(4));
        spread.left(&PAYLOAD, &lease(2));
        assert_eq!([5, 6, 7].map(|n| assign(&spread, n)), [0, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn receivers_are_named_while_they_are_heard_of_and_a_while_after() {
        let spread = Spread::default();
        for n in 1..=3 {
            assign(&spread, n);
        }
        tokio::time::advance(HEARD_WITHIN - Duration::from_millis(1)).await;
        spread.lives(&PAYLOAD, &lease(2));
        spread.done(&PAYLOAD, &lease(3));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([4, 5, 6, 7].map(|n| assign(&spread, n)), [3, 0, 3, 2]);
        tokio::time::advance(NAMED_WITHIN).await;
        assert_eq!([8, 9].map(|n| assign(&spread, n)), [0, 0], "nobody is left, so it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_acknowledged_is_no_load_any_more_and_named_first() {
        let spread = Spread::default();
        assert_eq!([1, 2, 3, 4].map(|n| assign(&spread, n)), [0, 0, 0, 1]);
        spread.done(&PAYLOAD, &lease(4));
        assert_eq!([5, 6, 7, 8].map(|n| assign(&spread, n)), [0, 4, 4, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_is_another_process_and_speaks_tls_where_the_holder_does() {
        let spread = Spread::default();
        for n in 1..=3 {
            assign(&spread, n);
        }
        assert_eq!(spread.assign(&PAYLOAD, lease(4), place(1), false), Some(place(2)));
        assert_eq!(spread.assign(&PAYLOAD, lease(5), place(5), true), None);
        let secure = CopyPlace { certificate: Some([0; 32]), ..place(6) };
        assert_eq!(spread.assign(&PAYLOAD, lease(6), secure.clone(), true), None, "nobody else does");
        assert_eq!(spread.assign(&PAYLOAD, lease(7), place(7), true), Some(secure));
    }

    #[tokio::test(start_paused = true)]
    async fn trees_are_bounded() {
        let spread = Spread::default();
        let payload = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            PayloadId::from_bytes(id)
        };
        for n in 0..=TREES_MAX {
            spread.assign(&payload(n), lease(1), place(1), false);
        }
        assert_eq!(spread.trees.lock().len(), TREES_MAX);
        tokio::time::advance(HEARD_WITHIN).await;
        spread.assign(&payload(TREES_MAX), lease(1), place(1), false);
        assert_eq!(spread.trees.lock().len(), 1, "those without receivers make room");
    }
}
