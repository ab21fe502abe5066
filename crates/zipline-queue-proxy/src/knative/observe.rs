//! What happens to one request, for whoever keeps records of it: metrics, spans, the request log.
//!
//! An [`Observer`] is asked once per request, probes included. What it gives back hears the events of that request in
//! this order: `admitted` (not if the breaker refused), `calling`, `answered`, `responded` (not if the client left
//! before), `ended` (always, once); `received` when the request's body is over, `transferred` when Zipline had a say.
//! Of a probe that is answered here only `ended` is told. Nothing here may block: events are told from the connection's
//! own task.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use zipline_http::Body;

use crate::telemetry::{CallFailure, TransferNote};

/// Where and how a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The direct peer, an IPv4 address as such.
    pub peer: Option<IpAddr>,
    /// Its port.
    pub peer_port: u16,
    /// Whether it came over TLS.
    pub tls: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The status that went out; `None` if the client left before there was one.
    pub status: Option<StatusCode>,
    /// Bytes of the response's body that went out.
    pub response_bytes: u64,
    /// From the arrival of the request's head to the end of the response.
    pub elapsed: Duration,
    /// Whether the response ended as its sender wanted: false for what broke off.
    pub whole: bool,
}

/// Is asked about every request.
pub trait Observer: Send + Sync + fmt::Debug + 'static {
    /// A request has arrived. It may be changed before anything else sees it, e.g. to hand a trace on.
    ///
    /// `None`: nobody wants to hear of this one.
    fn begin(&self, request: &mut Request<Body>, arrival: Arrival) -> Option<Box<dyn Observed>>;
}

/// Hears what becomes of one request.
pub trait Observed: Send + fmt::Debug + 'static {
    /// The breaker let it in after `waited`; `in_flight` requests are now in it, waiting ones included. Without a limit
    /// it is not told.
    fn admitted(&mut self, waited: Duration, in_flight: usize) {
        let _ = (waited, in_flight);
    }

    /// The request goes to the function now.
    fn calling(&mut self) {}

    /// The function's response has begun, or there is none.
    fn answered(&mut self, answer: Result<StatusCode, CallFailure>) {
        let _ = answer;
    }

    /// The request's body has passed to the function, or what of it did.
    fn received(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// A payload moved for the request, or might have.
    fn transferred(&mut self, note: TransferNote) {
        let _ = note;
    }

    /// The head of the response goes out.
    fn responded(&mut self, status: StatusCode, headers: &HeaderMap) {
        let _ = (status, headers);
    }

    /// The exchange is over; an upgraded connection is over when both sides are closed.
    fn ended(self: Box<Self>, ended: Ended);
}
