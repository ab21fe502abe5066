//! One request on its way through the chain: what has to happen at its end, however it ends.
//!
//! It is shared by the handler, the response's body and, after an upgrade, the two joined connections. The last of them
//! to let go ends it.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::observe::{Ended, Observed};
use super::stats::Counted;
use crate::inbound::{Witness, Witnessed};
use crate::telemetry::{CallFailure, TransferNote};

/// Requests in flight, for the end of the process.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// Those whose connection ends after them.
    ordinary: AtomicUsize,
    /// Those over h2c and upgraded ones, which Go's servers do not wait for when they shut down.
    hijacked: AtomicUsize,
}

impl InFlight {
    /// Requests whose servers wait for them.
    pub(super) fn ordinary(&self) -> usize {
        self.ordinary.load(Ordering::Relaxed)
    }

    /// All others.
    pub(super) fn hijacked(&self) -> usize {
        self.hijacked.load(Ordering::Relaxed)
    }
}

/// The record of one request.
#[derive(Debug)]
pub(super) struct Passage {
    in_flight: Arc<InFlight>,
    hijacked: AtomicBool,
    begun: Instant,
    observed: Mutex<Option<Box<dyn Observed>>>,
    status: AtomicU16,
    bytes: AtomicU64,
    whole: AtomicBool,
    /// In the autoscaler's numbers until the end.
    counted: Mutex<Option<Counted>>,
}

impl Passage {
    pub(super) fn begin(
        in_flight: &Arc<InFlight>,
        hijacked: bool,
        begun: Instant,
        observed: Option<Box<dyn Observed>>,
    ) -> Arc<Self> {
        let of = if hijacked { &in_flight.hijacked } else { &in_flight.ordinary };
        of.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            in_flight: Arc::clone(in_flight),
            hijacked: AtomicBool::new(hijacked),
            begun,
            observed: Mutex::new(observed),
            status: AtomicU16::new(0),
            bytes: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            counted: Mutex::new(None),
        })
    }

    /// Keeps the request in the autoscaler's numbers.
    pub(super) fn count(&self, counted: Counted) {
        *self.counted.lock() = Some(counted);
    }

    /// Tells the observer, if there is one.
    pub(super) fn tell(&self, event: impl FnOnce(&mut dyn Observed)) {
        if let Some(observed) = &mut *self.observed.lock() {
            event(&mut **observed);
        }
    }

    /// The head of the response goes out.
    pub(super) fn responded(&self, status: StatusCode, headers: &HeaderMap) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
        if status == StatusCode::SWITCHING_PROTOCOLS && !self.hijacked.swap(true, Ordering::Relaxed) {
            self.in_flight.hijacked.fetch_add(1, Ordering::Relaxed);
            self.in_flight.ordinary.fetch_sub(1, Ordering::Relaxed);
        }
        self.tell(|observed| observed.responded(status, headers));
    }

    /// Bytes of the response's body went out.
    pub(super) fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The response ended as a whole.
    pub(super) fn completed(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }
}

/// Tells a request's observer what happens beyond the chain; it does not keep the request.
pub(super) struct Telling(Weak<Passage>);

impl Telling {
    /// One for `passage`, if anybody observes it.
    pub(super) fn of(passage: &Arc<Passage>) -> Witnessed {
        let observed = passage.observed.lock().is_some();
        observed.then(|| Arc::new(Self(Arc::downgrade(passage))) as _)
    }

    fn tell(&self, event: impl FnOnce(&mut dyn Observed)) {
        if let Some(passage) = self.0.upgrade() {
            passage.tell(event);
        }
    }
}

impl Witness for Telling {
    fn admitted(&self, waited: Duration, in_flight: usize) {
        self.tell(|observed| observed.admitted(waited, in_flight));
    }

    fn calling(&self) {
        self.tell(|observed| observed.calling());
    }

    fn answered(&self, answer: Result<StatusCode, CallFailure>) {
        self.tell(|observed| observed.answered(answer));
    }

    fn received(&self, bytes: u64) {
        self.tell(|observed| observed.received(bytes));
    }

    fn transferred(&self, note: TransferNote) {
        self.tell(|observed| observed.transferred(note));
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        drop(self.counted.get_mut().take());
        let of = if *self.hijacked.get_mut() { &self.in_flight.hijacked } else { &self.in_flight.ordinary };
        of.fetch_sub(1, Ordering::Relaxed);
        if let Some(observed) = self.observed.get_mut().take() {
            observed.ended(Ended {
                status: StatusCode::from_u16(*self.status.get_mut()).ok(),
                response_bytes: *self.bytes.get_mut(),
                elapsed: self.begun.elapsed(),
                whole: *self.whole.get_mut(),
            });
        }
    }
}
