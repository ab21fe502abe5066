//! Many payloads, got with a bounded number in flight and handed out as they arrive.
//!
//! References are asked for in parts. Half of what may be in flight is asked for anew as soon as as much has come, so that a slow
//! payload holds up nobody but itself, and small ones still share frames.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use zipline_protocol::sdk::GET_MAX;

use super::link::Link;
use super::state::{Reply, State};
use super::wait::Waiting;
use crate::blocking::unexpected;
use crate::clock::now;
use crate::{Error, ErrorCode, Payload, Reference, Result};

/// References in flight at most, unless a client was told otherwise.
pub(crate) const IN_FLIGHT: usize = GET_MAX;

/// What came for one reference: its place, and the payload or why not.
pub(crate) type Came = (usize, Result<Payload>);

/// References, and how far they were got.
#[derive(Debug)]
pub(crate) struct Many {
    references: Vec<Reference>,
    in_flight_max: usize,
    /// The first that was not asked for.
    next: usize,
    parts: VecDeque<Part>,
    /// References that nothing will come for, and why.
    failed: Failed,
}

/// References of one request.
#[derive(Debug)]
struct Part {
    waiting: Waiting,
    first: usize,
    /// A bit for each that did not come yet.
    open: u64,
    /// When the queue-proxy has answered for all of them, if it is there at all.
    until: Duration,
}

#[derive(Debug, Default)]
struct Failed {
    places: VecDeque<usize>,
    why: Option<Error>,
}

impl Many {
    pub(crate) fn new(references: &[Reference]) -> Self {
        let references = references.to_vec();
        let failed = Failed::default();
        Self { references, in_flight_max: IN_FLIGHT, next: 0, parts: VecDeque::new(), failed }
    }

    /// From now on at most so many are in flight; at least one is.
    pub(crate) fn limit(&mut self, in_flight: usize) {
        self.in_flight_max = in_flight.max(1);
    }

    /// The next reference, for those who get one at a time.
    pub(crate) fn following(&mut self) -> Option<(usize, &Reference)> {
        let place = self.next;
        self.next = (place + 1).min(self.references.len());
        self.references.get(place).map(|reference| (place, reference))
    }

    /// What is to be asked for now.
    pub(crate) fn due(&self) -> Option<Range<usize>> {
        let in_flight: usize = self.parts.iter().map(|part| part.open.count_ones() as usize).sum();
        let left = self.references.len() - self.next;
        if left == 0 || in_flight > self.in_flight_max / 2 {
            return None;
        }
        let count = left.min(self.in_flight_max - in_flight).min(GET_MAX);
        Some(self.next..self.next + count)
    }

    /// The connection of what is in flight.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.parts.front().map(|part| Arc::clone(&part.waiting.link))
    }

    /// Asks for what is due; the queue-proxy answers within `timeout`, and is waited for a little longer.
    pub(crate) fn ask(&mut self, link: &Link, due: Range<usize>, timeout: Duration, grace: Duration) {
        self.next = due.end;
        match link.get(&self.references[due.clone()], timeout) {
            Ok(waiting) => {
                let open = u64::MAX >> (GET_MAX - due.len());
                let until = now() + timeout + grace;
                self.parts.push_back(Part { waiting, first: due.start, open, until });
            }
            Err(error) => {
                self.failed.places.extend(due);
                self.breaks(error);
            }
        }
    }

    /// When to stop waiting for the next answer.
    pub(crate) fn until(&self) -> Duration {
        self.parts.iter().map(|part| part.until).min().unwrap_or_default()
    }

    /// The next answer that is there, with the part it is for.
    pub(super) fn take(&self, state: &mut State) -> Option<(usize, Reply)> {
        self.parts.iter().enumerate().find_map(|(at, part)| Some((at, state.take(part.waiting.request)?)))
    }

    /// Has a task woken by every answer.
    #[cfg(feature = "tokio")]
    pub(super) fn wakes(&self, state: &mut State, waker: &std::task::Waker) {
        self.parts.iter().for_each(|part| state.wakes(part.waiting.request, waker));
    }

    /// What an answer to the part `at` brings.
    pub(crate) fn came(&mut self, (at, reply): (usize, Reply)) -> Option<Came> {
        let part = self.parts.get_mut(at)?;
        let (index, came) = match reply {
            Reply::Got(index, payload) => (index, Ok(payload)),
            Reply::Refused(index, error) => (index, Err(error)),
            other => {
                self.breaks(unexpected(other));
                return None;
            }
        };
        let bit = u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or_default();
        if part.open & bit == 0 {
            let what = "the queue-proxy answered twice for one reference, or for one that was not asked for";
            self.breaks(Error::new(ErrorCode::UpstreamFailed, what));
            return None;
        }
        part.open &= !bit;
        let place = part.first + index;
        if part.open == 0 {
            self.parts.remove(at);
        }
        Some((place, came))
    }

    /// Nothing comes for what is in flight.
    pub(crate) fn breaks(&mut self, error: Error) {
        for part in std::mem::take(&mut self.parts) {
            let places = (0..GET_MAX).filter(|index| part.open & (1 << index) != 0);
            self.failed.places.extend(places.map(|index| part.first + index));
        }
        self.failed.why = Some(error);
    }

    /// Nothing comes for what is in flight, and nothing more is asked for.
    pub(crate) fn ends(&mut self, error: Error) {
        self.breaks(error);
        self.failed.places.extend(self.next..self.references.len());
        self.next = self.references.len();
    }

    /// One that nothing will come for.
    pub(crate) fn next_failed(&mut self) -> Option<Came> {
        let place = self.failed.places.pop_front()?;
        let why = self.failed.why.as_ref()?;
        Some((place, Err(why.again())))
    }

    /// Says where the payload was put.
    pub(crate) fn named(&self, (place, came): Came) -> Came {
        let call_site = self.references.get(place).and_then(Reference::call_site);
        (place, came.map_err(|error| error.put_at(call_site)))
    }
}

impl Link {
    /// Waits in this thread for what comes next of `many`.
    pub(crate) fn wait_for_many(
        &self,
        many: &Many,
        interrupted: Option<fn() -> bool>,
    ) -> Result<(usize, Reply)> {
        self.wait_for(many.until(), interrupted, |state| many.take(state))
    }

    /// Waits in a task for what comes next of `many`.
    ///
    /// # Cancel safety
    /// Yes: an answer is taken only when the future is ready.
    #[cfg(feature = "tokio")]
    pub(crate) async fn answer_for_many(&self, many: &Many) -> Result<(usize, Reply)> {
        let longest = many.until().saturating_sub(now());
        let take = |state: &mut State, waker: &std::task::Waker| {
            let taken = many.take(state);
            if taken.is_none() {
                many.wakes(state, waker);
            }
            taken
        };
        self.answer_for(longest, take).await
    }
}
