//! What one connection knows: requests that wait, references in advance, memory.

use std::collections::{HashMap, VecDeque};
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;

use zipline_protocol::PayloadId;

use super::mappings::Mappings;
use super::segments::{Outgoing, Segments};
use crate::{Error, Payload, PutOptions, Result};

/// Kinds of options that references are kept in advance for; those of the kind used least recently go first.
const KINDS_MAX: usize = 8;

/// Failures of pre-issued puts that are remembered until somebody asks.
const FAILURES_MAX: usize = 64;

/// Pre-issued puts whose call site is remembered, should they fail.
const CALL_SITES_MAX: usize = 1024;

/// An answer to a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Welcome,
    Segment(Outgoing),
    Put(String),
    Issued,
    Got(usize, Payload),
    Ok,
    Refused(usize, Error),
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) replies: VecDeque<Reply>,
    pub(super) waker: Option<Waker>,
}

#[derive(Debug)]
struct Kind {
    options: PutOptions,
    unused: VecDeque<(PayloadId, Arc<str>)>,
    /// An issue for it is on its way.
    asked: bool,
    /// The last issue for it brought nothing.
    refused: bool,
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

    /// Hands an answer to whoever waits for it; gives it back if nobody does.
    pub(super) fn answer(&mut self, request: u32, reply: Reply) -> std::result::Result<(), Reply> {
        let Some(slot) = self.slots.get_mut(&request) else { return Err(reply) };
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
    ) -> (Option<(PayloadId, Arc<str>)>, bool) {
        let at = self.kinds.iter().position(|kind| kind.options == *options);
        let mut kind = match at {
            Some(at) => self.kinds.remove(at),
            None => Kind { options: options.clone(), unused: VecDeque::new(), asked: false, refused: false },
        };
        let taken = kind.unused.pop_front();
        let ask = kind.unused.len() <= low && !kind.asked;
        if self.kinds.len() == KINDS_MAX {
            self.kinds.remove(0);
        }
        self.kinds.push(kind);
        (taken, ask)
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
    pub(super) fn issued(&mut self, request: u32, references: impl Iterator<Item = (PayloadId, Arc<str>)>) {
        let Some(options) = self.issuing.remove(&request) else { return };
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.options == options) {
            let before = kind.unused.len();
            kind.unused.extend(references);
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

    /// A pre-issued put failed.
    pub(super) fn failed(&mut self, request: u32, error: Error) {
        let site = self.call_sites.iter().rev().find(|(put, _)| *put == request).map(|(_, site)| *site);
        if self.failures.len() < FAILURES_MAX {
            self.failures.push_back(error.put_at(site));
        }
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

    #[test]
    fn references_are_asked_for_once_and_a_refusal_is_remembered_until_the_next_time() {
        let (mut state, options) = (State::default(), PutOptions::new());
        assert!(matches!(state.take_issued(&options, 8), (None, true)));
        let first = state.asks(&options).unwrap();
        assert!(matches!(state.take_issued(&options, 8), (None, false)), "it is asked for already");
        assert_eq!((state.asks(&options), state.is_refused(&options)), (None, false));
        let references = (0..10).map(|n| (PayloadId::from_bytes([n; 16]), Arc::from("zl1.x")));
        state.issued(first, references);
        assert!(matches!(state.take_issued(&options, 8), (Some(_), false)));
        assert!(matches!(state.take_issued(&options, 8), (Some(_), true)), "they run low");
        let second = state.asks(&options).unwrap();
        assert!(state.not_issued(second) && state.is_refused(&options));
        assert!(!state.not_issued(second), "it is none any more");
        let third = state.asks(&options).unwrap();
        assert!(!state.is_refused(&options));
        state.issued(third, std::iter::empty());
        assert!(state.is_refused(&options), "nothing came");
    }
}
