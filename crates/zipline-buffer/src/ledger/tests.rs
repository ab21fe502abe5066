//! Properties of the ledger, against everything a store can do to it in any order.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;
use zipline_protocol::LeaseId;

use super::*;
use crate::error::AckError;

const BUDGET: u64 = 1 << 20;
const WINDOW: u64 = 256 << 10;
const SEGMENT: u64 = 64 << 10;
const LAPSE: Duration = Duration::from_secs(10);

fn ledger() -> Ledger {
    Ledger::new(Limits {
        budget_bytes: BUDGET,
        window_bytes: WINDOW,
        segment_bytes: SEGMENT,
        large_bytes: SEGMENT,
        max_payloads: 6,
        max_waiters: 4,
        leases_per_peer: 3,
        spent_remembered: 8,
        lease_lapse: LAPSE,
    })
}

fn id(n: u8) -> PayloadId {
    PayloadId::from_bytes([n; 16])
}

fn key(n: u8) -> LeaseKey {
    LeaseKey::Remote(LeaseId::from_bytes([n; 16]))
}

fn wish(n: u8, lease: u8, from: u64) -> LeaseWish {
    LeaseWish { payload: id(n), key: key(lease), peer: Some(Ipv4Addr::LOCALHOST.into()), from, to: None }
}

fn admission(n: u8, length: Option<u64>, retrievals: Retrievals, windowed: bool) -> Admission {
    Admission {
        id: id(n),
        kind: ReferenceKind::Put,
        length,
        retrievals,
        ttl: Some(Duration::from_secs(40)),
        linger: Duration::ZERO,
        windowed,
        adopted: false,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Begin { length: Option<u64>, windowed: bool, retrievals: u32, may_wait: bool },
    Write { which: usize },
    Finish { which: usize },
    End { which: usize },
    CancelBegin { which: usize },
    DropBlock { which: usize },
    Lease { which: usize, lease: u8 },
    Progress { which: usize },
    Detach { which: usize },
    Acknowledge { which: usize, lease: u8 },
    Cancel { which: usize, lease: u8 },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..32_usize;
    let lease = 0..5_u8;
    prop_oneof![
        3 => (proptest::option::of(0..2 * BUDGET), any::<bool>(), 0..4_u32, any::<bool>()).prop_map(
            |(length, windowed, retrievals, may_wait)| Step::Begin { length, windowed, retrievals, may_wait }
        ),
        12 => which.clone().prop_map(|which| Step::Write { which }),
        1 => which.clone().prop_map(|which| Step::Finish { which }),
        1 => which.clone().prop_map(|which| Step::End { which }),
        1 => which.clone().prop_map(|which| Step::CancelBegin { which }),
        6 => which.clone().prop_map(|which| Step::DropBlock { which }),
        3 => (which.clone(), lease.clone()).prop_map(|(which, lease)| Step::Lease { which, lease }),
        6 => which.clone().prop_map(|which| Step::Progress { which }),
        1 => which.clone().prop_map(|which| Step::Detach { which }),
        2 => (which.clone(), lease.clone()).prop_map(|(which, lease)| Step::Acknowledge { which, lease }),
        1 => (which, lease).prop_map(|(which, lease)| Step::Cancel { which, lease }),
        1 => (0..15_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

struct Held {
    serial: Serial,
    written: u64,
    blocks: Vec<(u64, u64)>,
    waits: bool,
}

/// What a store would know.
struct World {
    ledger: Ledger,
    now: Duration,
    next_id: u8,
    held: BTreeMap<u8, Held>,
    /// Blocks that are no longer their payload's and still referenced.
    loose: Vec<(u8, Serial, u64)>,
    begins: BTreeMap<Ticket, u8>,
    growths: BTreeMap<Ticket, u8>,
    grants: Vec<Grant>,
    waiting: BTreeSet<Ticket>,
    /// The last waiter for memory that was served.
    served: Option<Ticket>,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: ledger(),
            now: Duration::ZERO,
            next_id: 0,
            held: BTreeMap::new(),
            loose: Vec::new(),
            begins: BTreeMap::new(),
            growths: BTreeMap::new(),
            grants: Vec::new(),
            waiting: BTreeSet::new(),
            served: None,
        }
    }

    fn accept(&mut self, n: u8, serial: Serial) {
        self.held.insert(n, Held { serial, written: 0, blocks: Vec::new(), waits: false });
    }

    fn hear(&mut self) {
        for effect in self.ledger.take_effects() {
            match effect {
                Effect::Accepted(ticket, serial) => {
                    let n = self.begins.remove(&ticket).unwrap();
                    self.in_turn(ticket);
                    self.accept(n, serial.unwrap());
                }
                Effect::Grown(ticket) => {
                    let n = self.growths.remove(&ticket).unwrap();
                    if let Some(held) = self.held.get_mut(&n) {
                        held.waits = false;
                    }
                    if self.ledger.payloads.contains_key(&id(n)) {
                        self.in_turn(ticket);
                    }
                }
                Effect::Leased(ticket, outcome) => {
                    assert!(self.waiting.remove(&ticket));
                    self.grants.extend(outcome.ok());
                }
                Effect::Gone(gone, _) => {
                    let n = gone.as_bytes()[0];
                    let held = self.held.remove(&n).unwrap();
                    self.loose.extend(held.blocks.iter().map(|(_, bytes)| (n, held.serial, *bytes)));
                }
                _ => {}
            }
        }
    }

    fn in_turn(&mut self, ticket: Ticket) {
        assert!(self.served.is_none_or(|earlier| earlier < ticket), "served out of turn");
        self.served = Some(ticket);
    }

    fn pick(&self, which: usize) -> Option<u8> {
        self.held.keys().nth(which % self.held.len().max(1)).copied()
    }

    fn run(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Begin { length, windowed, retrievals, may_wait } => {
                let n = self.next_id;
                self.next_id = self.next_id.wrapping_add(1);
                let retrievals =
                    if retrievals == 0 { Retrievals::Unlimited } else { Retrievals::Limited(retrievals) };
                let linger = Duration::from_secs(if retrievals == Retrievals::Limited(1) { 5 } else { 0 });
                let admission = Admission { linger, ..admission(n, length, retrievals, windowed) };
                match self.ledger.begin(now, admission, may_wait) {
                    Ok(Begun::Accepted(serial)) => self.accept(n, serial),
                    Ok(Begun::Waits(ticket)) => drop(self.begins.insert(ticket, n)),
                    Err(BeginError::TooLarge { length, .. }) => assert!(!windowed && length > BUDGET),
                    Err(BeginError::BufferFull { .. }) => {
                        assert!(!may_wait || self.ledger.memory_waiters() == 4);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Write { which } => self.write(which),
            Step::Finish { which } => {
                if let Some(n) = self.pick(which).filter(|n| !self.held[n].waits) {
                    assert!(self.ledger.finish(now, &id(n), self.held[&n].serial));
                }
            }
            Step::End { which } => {
                if let Some(n) = self.pick(which) {
                    assert!(self.ledger.end(now, &id(n), self.held[&n].serial, Gone::Released));
                }
            }
            Step::CancelBegin { which } => {
                let ticket = self.begins.keys().nth(which % self.begins.len().max(1)).copied();
                if let Some(ticket) = ticket {
                    self.begins.remove(&ticket);
                    assert!(self.ledger.cancel_begin(now, ticket));
                }
            }
            Step::DropBlock { which } => {
                if !self.loose.is_empty() {
                    let (n, serial, bytes) = self.loose.swap_remove(which % self.loose.len());
                    self.ledger.block_dropped(now, &id(n), serial, bytes);
                }
            }
            Step::Lease { which, lease } => {
                let Some(n) = self.pick(which) else { return };
                match self.ledger.lease(now, wish(n, lease, 0)) {
                    Ok(Leased::Granted(grant)) => self.grants.push(grant),
                    Ok(Leased::Waits(ticket)) => assert!(self.waiting.insert(ticket)),
                    Err(_) => {}
                }
            }
            Step::Progress { which } => {
                if !self.grants.is_empty() {
                    let grant = self.grants[which % self.grants.len()];
                    let written = self.held.get(&grant.payload.as_bytes()[0]).map_or(0, |held| held.written);
                    let _over = self.ledger.progress(now, &grant, written);
                }
            }
            Step::Detach { which } => {
                if !self.grants.is_empty() {
                    let grant = self.grants.swap_remove(which % self.grants.len());
                    self.ledger.detach(now, &grant);
                }
            }
            Step::Acknowledge { which, lease } => {
                if let Some(n) = self.pick(which) {
                    let _unknown = self.ledger.acknowledge(now, &id(n), key(lease));
                }
            }
            Step::Cancel { which, lease } => {
                if let Some(n) = self.pick(which) {
                    assert_eq!(self.ledger.cancel_lease(now, &id(n), key(lease)), Ok(()));
                }
            }
            Step::Wait { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.ledger.expire(self.now);
            }
        }
    }

    fn write(&mut self, which: usize) {
        let Some(n) = self.pick(which) else { return };
        let held = self.held.get_mut(&n).unwrap();
        let payload = &self.ledger.payloads[&id(n)];
        let done = payload.phase != PayloadPhase::Filling || payload.length == Some(held.written);
        if held.waits || done {
            return;
        }
        match self.ledger.room(&id(n), held.serial).unwrap() {
            Room::Block(bytes) => {
                assert!(bytes > 0 && bytes <= SEGMENT);
                held.written += bytes;
                held.blocks.push((held.written, bytes));
                assert!(self.ledger.advance(&id(n), held.serial, held.written));
            }
            Room::Evict(start) => {
                let serial = held.serial;
                let (left, kept) = held.blocks.iter().partition(|(end, _)| *end <= start);
                held.blocks = kept;
                let left: Vec<(u64, u64)> = left;
                assert!(!left.is_empty());
                self.loose.extend(left.iter().map(|(_, bytes)| (n, serial, *bytes)));
            }
            Room::Full => {}
            Room::TooLarge => assert!(self.ledger.payloads[&id(n)].length.is_none()),
            Room::Grow(bytes) => {
                if let Some(ticket) = self.ledger.queue_growth(&id(n), held.serial, bytes) {
                    held.waits = true;
                    self.growths.insert(ticket, n);
                }
            }
        }
    }

    fn check(&self) {
        let live: u64 = self.held.values().flat_map(|held| &held.blocks).map(|(_, bytes)| bytes).sum();
        let loose: u64 = self.loose.iter().map(|(_, _, bytes)| bytes).sum();
        let reserved: u64 = self.ledger.payloads.values().map(|payload| payload.memory.charged().0).sum();
        assert_eq!(self.ledger.charged_bytes(), live + loose + reserved);
        assert!(self.ledger.peak_bytes() <= BUDGET);
        assert!(self.ledger.payload_count() <= 6 && self.ledger.memory_waiters() <= 4);
        assert_eq!(
            self.held.len(),
            self.ledger.payload_count(),
            "accepted payloads stay until they are gone"
        );
        assert_eq!(self.waiting.len(), self.ledger.lease_waiters());
        assert_eq!(self.begins.len() + self.growths.len(), self.ledger.memory_waiters());
        let running: usize = self.ledger.payloads.values().map(|payload| payload.leases.running()).sum();
        assert_eq!(running, self.ledger.running_leases());
        assert!(self.ledger.peers.values().sum::<usize>() == running && running <= 3);
        let expiries = self.ledger.payloads.values().filter(|payload| payload.expires.is_some()).count();
        let lingering =
            self.ledger.payloads.values().filter(|payload| payload.lingers_until.is_some()).count();
        assert_eq!(self.ledger.timers.len(), running + expiries + lingering);
        for (n, held) in &self.held {
            let payload = &self.ledger.payloads[&id(*n)];
            let first = held.blocks.first().map_or(held.written, |(end, bytes)| end - bytes);
            assert_eq!(payload.memory.start(), first);
            // Somebody waits for a retrieval only while all that are left are taken.
            let all_taken = payload.free_retrievals() == 0 && !payload.used_up();
            assert!(all_taken || !payload.leases.anyone_waits());
            assert!(
                payload.phase != PayloadPhase::Spent
                    || payload.lingers(self.now)
                    || payload.leases.running() > 0
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_books_are_right(steps in vec(step(), 1..200)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.hear();
            world.check();
        }
        // After everything ends and every slice is dropped, nothing is left.
        loop {
            let held = world.held.iter().next().map(|(n, held)| (*n, held.serial));
            if let Some((n, serial, bytes)) = world.loose.pop() {
                world.ledger.block_dropped(world.now, &id(n), serial, bytes);
            } else if let Some((n, serial)) = held {
                world.ledger.end(world.now, &id(n), serial, Gone::Released);
            } else {
                break;
            }
            world.hear();
            world.check();
        }
        prop_assert_eq!(world.ledger.charged_bytes(), 0);
        prop_assert_eq!(world.ledger.memory_waiters() + world.ledger.lease_waiters(), 0);
        prop_assert!(world.ledger.peers.is_empty() && world.ledger.peer_queues.is_empty());
        prop_assert_eq!(world.ledger.next_deadline(), None);
    }
}

/// Section 6.4 written down a second time, as plainly as possible.
struct Table {
    budget: u32,
    linger: Duration,
    leases: BTreeMap<u8, (Row, bool)>,
    acknowledged: u32,
    /// Its linger ends then.
    spent: Option<Duration>,
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Running(Duration),
    Lapsed,
    Acknowledged,
}

impl Table {
    fn new(budget: u32, linger: Duration) -> Self {
        Self { budget, linger, leases: BTreeMap::new(), acknowledged: 0, spent: None, gone: false }
    }

    fn taking(&self) -> u32 {
        let takes = |(row, counted): &&(Row, bool)| matches!(row, Row::Running(_)) && !counted;
        u32::try_from(self.leases.values().filter(takes).count()).unwrap()
    }

    fn retrieve(&mut self, now: Duration, lease: u8) -> Result<bool, LeaseError> {
        let (row, counted) = self.leases.get(&lease).copied().unwrap_or((Row::Lapsed, false));
        let resumes = matches!(row, Row::Running(_));
        let again = row == Row::Acknowledged;
        if self.gone || (!resumes && self.spent.is_some_and(|until| until <= now)) {
            return Err(LeaseError::Exhausted);
        }
        if !resumes && !again && self.spent.is_none() && self.acknowledged + self.taking() >= self.budget {
            return Ok(false);
        }
        self.leases.insert(lease, (Row::Running(now), counted));
        Ok(true)
    }

    fn acknowledge(&mut self, now: Duration, lease: u8) -> Result<(), AckError> {
        if self.gone {
            return Ok(());
        }
        let (row, counted) = self.leases.get_mut(&lease).ok_or(AckError::NotFound)?;
        *row = Row::Acknowledged;
        self.acknowledged += u32::from(!std::mem::replace(counted, true));
        self.settle(now);
        Ok(())
    }

    fn cancel(&mut self, now: Duration, lease: u8) {
        if let Some((row, counted)) = self.leases.get_mut(&lease) {
            if *counted {
                *row = Row::Acknowledged;
            } else {
                self.leases.remove(&lease);
            }
        }
        self.settle(now);
    }

    fn pass(&mut self, now: Duration) {
        for (row, counted) in self.leases.values_mut() {
            if matches!(row, Row::Running(since) if *since + LAPSE <= now) {
                *row = if *counted { Row::Acknowledged } else { Row::Lapsed };
            }
        }
        self.settle(now);
    }

    fn settle(&mut self, now: Duration) {
        if self.acknowledged >= self.budget {
            let until = *self.spent.get_or_insert(now + self.linger);
            let running = self.leases.values().any(|(row, _)| matches!(row, Row::Running(_)));
            self.gone |= until <= now && !running;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn leases_follow_the_table(
        budget in 1..3_u32,
        linger in prop_oneof![Just(0), 1..25_u64],
        events in vec((0..4_u8, 0..3_u8, 0..7_u64), 1..60),
    ) {
        let linger = Duration::from_secs(linger);
        let mut ledger = ledger();
        let mut table = Table::new(budget, linger);
        let mut now = Duration::ZERO;
        let admission = admission(1, Some(0), Retrievals::Limited(budget), false);
        let admission = Admission { ttl: None, linger, ..admission };
        let Ok(Begun::Accepted(serial)) = ledger.begin(now, admission, false) else { unreachable!() };
        prop_assert!(ledger.finish(now, &id(1), serial));
        for (event, lease, seconds) in events {
            match event {
                0 => match ledger.lease(now, wish(1, lease, 0)) {
                    Ok(Leased::Granted(_)) => prop_assert_eq!(table.retrieve(now, lease), Ok(true)),
                    Ok(Leased::Waits(ticket)) => {
                        prop_assert_eq!(table.retrieve(now, lease), Ok(false));
                        prop_assert_eq!(ledger.cancel_lease_wait(ticket), Some(LeaseError::Exhausted));
                    }
                    Err(error) => prop_assert_eq!(table.retrieve(now, lease), Err(error)),
                },
                1 => {
                    let expected = table.acknowledge(now, lease);
                    prop_assert_eq!(ledger.acknowledge(now, &id(1), key(lease)), expected);
                }
                2 => {
                    table.cancel(now, lease);
                    prop_assert_eq!(ledger.cancel_lease(now, &id(1), key(lease)), Ok(()));
                }
                _ => {
                    now += Duration::from_secs(seconds);
                    table.pass(now);
                    ledger.expire(now);
                }
            }
            prop_assert_eq!(ledger.payload_count() == 0, table.gone);
        }
    }
}

#[test]
fn a_lingering_payload_is_retrieved_again_without_being_counted() {
    let mut ledger = ledger();
    let at = Duration::from_secs;
    let admission = Admission { linger: at(30), ..admission(1, Some(0), Retrievals::Limited(1), false) };
    let Ok(Begun::Accepted(serial)) = ledger.begin(at(0), admission, false) else { unreachable!() };
    ledger.finish(at(0), &id(1), serial);
    ledger.lease(at(0), wish(1, 1, 0)).unwrap();
    let Ok(Leased::Waits(waiting)) = ledger.lease(at(0), wish(1, 2, 0)) else { unreachable!() };
    ledger.acknowledge(at(0), &id(1), key(1)).unwrap();
    let granted = |effect| matches!(effect, Effect::Leased(ticket, Ok(_)) if ticket == waiting);
    assert!(
        ledger.take_effects().into_iter().any(granted),
        "one that waited is served like one that comes now"
    );
    ledger.acknowledge(at(0), &id(1), key(2)).unwrap();
    for again in [1, 3] {
        assert!(matches!(ledger.lease(at(25), wish(1, again, 0)), Ok(Leased::Granted(_))));
    }
    assert_eq!(ledger.info(at(25), &id(1)).unwrap().retrievals_left, Some(0));
    ledger.acknowledge(at(25), &id(1), key(1)).unwrap();
    // The linger is over: what runs may end, nothing new begins.
    ledger.expire(at(30));
    assert_eq!(ledger.lease(at(30), wish(1, 4, 0)), Err(LeaseError::Exhausted));
    assert_eq!(ledger.lease(at(30), wish(1, 1, 0)), Err(LeaseError::Exhausted));
    assert!(matches!(ledger.lease(at(30), wish(1, 3, 0)), Ok(Leased::Granted(_))));
    ledger.acknowledge(at(31), &id(1), key(3)).unwrap();
    assert_eq!(ledger.payload_count(), 0);
    assert_eq!(ledger.lease(at(31), wish(1, 3, 0)), Err(LeaseError::Exhausted));
    assert_eq!(ledger.next_deadline(), None);
}

#[test]
fn waiting_retrievals_are_served_in_order() {
    let mut ledger = ledger();
    let admission = admission(1, Some(0), Retrievals::Limited(1), false);
    let Ok(Begun::Accepted(serial)) = ledger.begin(Duration::ZERO, admission, false) else { unreachable!() };
    ledger.finish(Duration::ZERO, &id(1), serial);
    ledger.lease(Duration::ZERO, wish(1, 1, 0)).unwrap();
    let mut wait = |lease| match ledger.lease(Duration::ZERO, wish(1, lease, 0)) {
        Ok(Leased::Waits(ticket)) => ticket,
        other => panic!("{other:?}"),
    };
    let (second, third) = (wait(2), wait(3));
    ledger.take_effects();
    ledger.cancel_lease(Duration::ZERO, &id(1), key(1)).unwrap();
    let served = |ledger: &mut Ledger| {
        let effects = ledger.take_effects();
        effects.into_iter().find_map(|effect| match effect {
            Effect::Leased(ticket, outcome) => Some((ticket, outcome.is_ok())),
            _ => None,
        })
    };
    assert_eq!(served(&mut ledger), Some((second, true)));
    ledger.acknowledge(Duration::ZERO, &id(1), key(2)).unwrap();
    assert_eq!(served(&mut ledger), Some((third, false)));
}
