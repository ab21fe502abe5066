//! Telemetry as the observer of every request of a pod.

use std::time::Duration;

use http::{Request, StatusCode};
use zipline_http::Body;

use super::{CallFailure, Recording, Telemetry, TransferNote};
use crate::knative::observe::{Arrival, Ended, Observed, Observer};

impl Observer for Telemetry {
    fn begin(&self, request: &mut Request<Body>, arrival: Arrival) -> Option<Box<dyn Observed>> {
        let peer = arrival.peer.map(|address| (address, arrival.peer_port));
        let recording = self.request(request, peer, arrival.tls)?;
        Some(Box::new(recording))
    }
}

impl Observed for Recording {
    fn admitted(&mut self, waited: Duration, in_flight: usize) {
        Recording::admitted(self, Some((waited, in_flight)));
    }

    fn calling(&mut self) {
        Recording::calling(self);
    }

    fn answered(&mut self, answer: Result<StatusCode, CallFailure>) {
        Recording::answered(self, answer);
    }

    fn received(&mut self, bytes: u64) {
        Recording::received(self, bytes);
    }

    fn transferred(&mut self, note: TransferNote) {
        Recording::transferred(self, note);
    }

    fn ended(self: Box<Self>, ended: Ended) {
        Recording::ended(*self, ended.status, ended.response_bytes);
    }
}
