//! What one connection knows: requests that wait, references in advance, memory.

use std::collections::{HashMap, VecDeque};
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use zipline_protocol::{PayloadId, limits};

use super::mappings::Mappings;
use super::segments::{Outgoing, Segments};
use crate::reference::Life;
use crate::{Error, Payload, PutOptions, Result};

/// Kinds of options that references are kept in advance for; those of the kind used least recently go first.
const KINDS_MAX: usize = 8;

/// A reference that was issued so long ago is not used any more, nor does a put take one that is not waited for whose payload is to live
/// longer: both together are the longest life there is, for which alone keys are kept.
const ISSUED_LIFE: Duration = limits::TTL_MAX.checked_div(2).expect("two is not zero");

/// Where the last issue brought nothing, the next is asked for after so many puts.
const REFUSED_USES: usize = 64;

/// Failures of pre-issued puts that are remembered until somebody asks.
const FAILURES_MAX: usize = 64;

/// Pre-issued puts whose call site is remembered, should they fail.
const CALL_SITES_MAX: usize = 1024;

/// Requests that nobody waits for any more whose errors are told from those of pre-issued puts; a queue-proxy works for no more
/// at a time.
const UNHEARD_MAX: usize = zipline_protocol::sdk::OUTSTANDING_MAX;

/// An answer to a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Welcome,
    Segment(Outgoing),
    Put(String, Life),
    Issued,
    Got(usize, Payload),
    Ok,
    Refused(usize, Error),
}

/// Where the answers to a request are put for whoever waits for them.
#[derive(Debug)]
pub(super) struct Slot {
    replies: VecDeque<Reply>,
    waker: Option<Waker>,
    /// Answers that did not come yet.
    left: usize,
}

impl Slot {
    /// For a request with this many answers.
    pub(super) fn of(answers: usize) -> Self {
        Self { replies: VecDeque::new(), waker: None, left: answers }
    }

    /// Whether the queue-proxy still works for it.
    pub(super) fn is_open(&self) -> bool {
        self.left > 0
    }
}

/// A reference in advance.
pub(crate) type Issued = (PayloadId, Arc<str>);

#[derive(Debug)]
struct Kind {
    options: PutOptions,
    /// With the time when they came.
    unused: VecDeque<(Duration, Issued)>,
    /// Puts that wanted one.
    uses: usize,
    /// An issue for it is on its way.
    asked: bool,
    /// The last issue for it brought nothing.
    refused: bool,
}

impl Kind {
    fn new(options: &PutOptions) -> Self {
        let options = options.clone();
        Self { options, unused: VecDeque::new(), uses: 0, asked: false, refused: false }
    }

    fn take(&mut self, now: Duration) -> Option<Issued> {
        while let Some((since, issued)) = self.unused.pop_front() {
            if now.saturating_sub(since) < ISSUED_LIFE {
                return Some(issued);
            }
        }
        None
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    last_request: u32,
    pub(super) slots: HashMap<u32, Slot>,
    pub(super) segments: Segments,
    pub(super) mappings: Mappings,
    /// The kind used last stands last.
    kinds: Vec<Kind>,
    /// Which kind an issue asks for.
    issuing: HashMap<u32, PutOptions>,
    call_sites: VecDeque<(u32, &'static Location<'static>)>,
    failures: VecDeque<Error>,
    /// A pre-issued put has failed, and none that was waited for has been taken since.
    distrusts: bool,
    /// Requests whose answers nobody waits for.
    unheard: VecDeque<u32>,
    /// Handles that are to be said done.
    pub(super) done: Vec<u64>,
    /// A thread reads for all that wait.
    pub(super) leader: bool,
    pub(super) followers: usize,
    /// Somebody looks after idle memory.
    pub(super) tended: bool,
    pub(super) broken: Option<(crate::ErrorCode, String)>,
}

impl State {
    /// A number that no request which waits has.
    pub(super) fn next_request(&mut self) -> u32 {
        loop {
            self.last_request = self.last_request.wrapping_add(1);
            if !self.slots.contains_key(&self.last_request) && !self.issuing.contains_key(&self.last_request)
            {
                return self.last_request;
            }
        }
    }

    /// Takes an answer to a request, if there is one.
    pub(super) fn take(&mut self, request: u32) -> Option<Reply> {
        self.slots.get_mut(&request)?.replies.pop_front()
    }

    /// Wakes a task once there is an answer to the request.
    #[cfg(feature = "tokio")]
    pub(super) fn wakes(&mut self, request: u32, waker: &Waker) {
        if let Some(slot) = self.slots.get_mut(&request) {
            slot.waker = Some(waker.clone());
        }
    }

    /// Hands an answer to whoever waits for it; gives it back if nobody does.
    pub(super) fn answer(&mut self, request: u32, reply: Reply) -> std::result::Result<(), Reply> {
        let Some(slot) = self.slots.get_mut(&request) else { return Err(reply) };
        slot.left = slot.left.saturating_sub(1);
        slot.replies.push_back(reply);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Everything that waits fails, now and later.
    pub(super) fn breaks(&mut self, code: crate::ErrorCode, message: &str) {
        self.broken.get_or_insert_with(|| (code, message.to_owned()));
        for slot in self.slots.values_mut() {
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match &self.broken {
            Some((code, message)) => Err(Error::new(*code, message)),
            None => Ok(()),
        }
    }

    /// A reference in advance for these options; and whether more of them should be asked for ([`Self::asks`]).
    pub(super) fn take_issued(
        &mut self,
        options: &PutOptions,
        low: usize,
        now: Duration,
    ) -> (Option<Issued>, bool) {
        let kind = self.kind(options);
        let taken = kind.take(now);
        (taken, kind.unused.len() <= low && !kind.asked)
    }

    /// The same for a put that does as well without: more are asked for only where they are likely to be used.
    pub(super) fn take_ready(
        &mut self,
        options: &PutOptions,
        low: usize,
        now: Duration,
    ) -> (Option<Issued>, bool) {
        if self.distrusts || options.ttl > ISSUED_LIFE {
            return (None, false);
        }
        let kind = self.kind(options);
        kind.uses += 1;
        let taken = kind.take(now);
        let worth = if kind.refused { kind.uses.is_multiple_of(REFUSED_USES) } else { kind.uses > 1 };
        (taken, worth && kind.unused.len() <= low && !kind.asked)
    }

    /// What is known of references for these options, which are the ones used last from now on.
    fn kind(&mut self, options: &PutOptions) -> &mut Kind {
        let at = self.kinds.iter().position(|kind| kind.options == *options);
        let kind = match at {
            Some(at) => self.kinds.remove(at),
            None => Kind::new(options),
        };
        if self.kinds.len() == KINDS_MAX {
            self.kinds.remove(0);
        }
        self.kinds.push(kind);
        self.kinds.last_mut().expect("one was pushed")
    }

    /// The number of the issue that is to be sent for these options; `None` if one is on its way.
    pub(super) fn asks(&mut self, options: &PutOptions) -> Option<u32> {
        let kind = self.kinds.iter_mut().find(|kind| kind.options == *options && !kind.asked)?;
        (kind.asked, kind.refused) = (true, false);
        let request = self.next_request();
        self.issuing.insert(request, options.clone());
        Some(request)
    }

    /// Whether the last issue for these options brought nothing.
    pub(super) fn is_refused(&self, options: &PutOptions) -> bool {
        self.kinds.iter().any(|kind| kind.options == *options && kind.refused)
    }

    /// References came for an issue; those of a kind that is not kept any more are lost.
    pub(super) fn issued(&mut self, request: u32, references: impl Iterator<Item = Issued>, now: Duration) {
        let Some(options) = self.issuing.remove(&request) else { return };
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.options == options) {
            let before = kind.unused.len();
            kind.unused.extend(references.map(|issued| (now, issued)));
            (kind.asked, kind.refused) = (false, kind.unused.len() == before);
        }
    }

    /// Whether an issue failed, which may be asked for again.
    pub(super) fn not_issued(&mut self, request: u32) -> bool {
        let Some(options) = self.issuing.remove(&request) else { return false };
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.options == options) {
            (kind.asked, kind.refused) = (false, true);
        }
        true
    }

    pub(super) fn put_ahead(&mut self, request: u32, call_site: &'static Location<'static>) {
        if self.call_sites.len() == CALL_SITES_MAX {
            self.call_sites.pop_front();
        }
        self.call_sites.push_back((request, call_site));
    }

    /// Nobody wants to know how this request ends.
    pub(super) fn unheard(&mut self, request: u32) {
        if self.unheard.len() == UNHEARD_MAX {
            self.unheard.pop_front();
        }
        self.unheard.push_back(request);
    }

    /// What nobody waits for failed: if it is a pre-issued put, that is remembered.
    pub(super) fn failed(&mut self, request: u32, error: Error) {
        if self.unheard.contains(&request) {
            return;
        }
        self.distrusts = true;
        let site = self.call_sites.iter().rev().find(|(put, _)| *put == request).map(|(_, site)| *site);
        if self.failures.len() < FAILURES_MAX {
            self.failures.push_back(error.put_at(site));
        }
    }

    /// A put that was waited for was taken.
    pub(super) fn taken(&mut self) {
        self.distrusts = false;
    }

    /// The first failure of a pre-issued put since this was asked last.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        let first = self.failures.pop_front();
        self.failures.clear();
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    fn references(count: u8) -> impl Iterator<Item = Issued> {
        (0..count).map(|n| (PayloadId::from_bytes([n; 16]), Arc::from("zl1.x")))
    }

    #[test]
    fn references_are_asked_for_once_and_a_refusal_is_remembered_until_the_next_time() {
        let (mut state, options) = (State::default(), PutOptions::new());
        assert!(matches!(state.take_issued(&options, 8, NOW), (None, true)));
        let first = state.asks(&options).unwrap();
        assert!(matches!(state.take_issued(&options, 8, NOW), (None, false)), "it is asked for already");
        assert_eq!((state.asks(&options), state.is_refused(&options)), (None, false));
        state.issued(first, references(10), NOW);
        assert!(matches!(state.take_issued(&options, 8, NOW), (Some(_), false)));
        assert!(matches!(state.take_issued(&options, 8, NOW), (Some(_), true)), "they run low");
        let second = state.asks(&options).unwrap();
        assert!(state.not_issued(second) && state.is_refused(&options));
        assert!(!state.not_issued(second), "it is none any more");
        let third = state.asks(&options).unwrap();
        assert!(!state.is_refused(&options));
        state.issued(third, std::iter::empty(), NOW);
        assert!(state.is_refused(&options), "nothing came");
    }
    #[test]
    fn puts_that_do_as_well_without_ask_for_references_once_they_come_again() {
        let (mut state, options) = (State::default(), PutOptions::new());
        let once = options.clone().content_type("text/x-once");
        assert!(matches!(state.take_ready(&options, 8, NOW), (None, false)));
        assert!(matches!(state.take_ready(&once, 8, NOW), (None, false)));
        assert!(matches!(state.take_ready(&options, 8, NOW), (None, true)));
        let issue = state.asks(&options).unwrap();
        state.issued(issue, references(10), NOW);
        assert!(matches!(state.take_ready(&options, 8, NOW), (Some(_), false)));
        let endless = options.clone().ttl(limits::TTL_MAX);
        for _ in 0..3 {
            assert!(matches!(state.take_ready(&endless, 8, NOW), (None, false)), "keys may not last so long");
        }
        // Nobody can issue just now.
        let issue = {
            state.take_ready(&once, 8, NOW);
            state.asks(&once).unwrap()
        };
        assert!(state.not_issued(issue));
        let asked = (0..2 * REFUSED_USES).filter(|_| state.take_ready(&once, 8, NOW).1).count();
        assert_eq!(asked, 2, "it is tried again, now and then");
    }

    #[test]
    fn references_grow_old() {
        let (mut state, options) = (State::default(), PutOptions::new());
        let issue = {
            state.take_issued(&options, 8, NOW);
            state.asks(&options).unwrap()
        };
        state.issued(issue, references(20), NOW);
        assert!(matches!(state.take_ready(&options, 8, NOW + ISSUED_LIFE / 2), (Some(_), _)));
        assert!(matches!(state.take_ready(&options, 8, NOW + ISSUED_LIFE), (None, true)));
        let issue = state.asks(&options).unwrap();
        state.issued(issue, references(1), NOW + ISSUED_LIFE);
        assert!(matches!(state.take_issued(&options, 8, NOW + ISSUED_LIFE), (Some(_), _)));
    }

    #[test]
    fn after_a_failure_puts_are_waited_for_until_one_was_taken() {
        let (mut state, options) = (State::default(), PutOptions::new());
        let issue = {
            state.take_issued(&options, 8, NOW);
            state.asks(&options).unwrap()
        };
        state.issued(issue, references(10), NOW);
        state.unheard(7);
        state.failed(7, Error::invalid("of a get that was given up"));
        assert!(state.take_failure().is_none());
        assert!(matches!(state.take_ready(&options, 8, NOW), (Some(_), _)));
        state.failed(8, Error::invalid("no memory"));
        assert!(matches!(state.take_ready(&options, 8, NOW), (None, false)));
        assert!(state.take_failure().is_some());
        assert!(matches!(state.take_ready(&options, 8, NOW), (None, false)));
        state.taken();
        assert!(matches!(state.take_ready(&options, 8, NOW), (Some(_), _)));
    }
}
