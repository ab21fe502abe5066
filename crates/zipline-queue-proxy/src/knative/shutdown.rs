//! The end of a queue-proxy in a Knative pod.
//!
//! | phase | ends |
//! |---|---|
//! | quiet | after [`super::drain`]'s period without a new request; probes fail, everything is served |
//! | finishing | no request runs whose connection ends after it; new connections are not accepted |
//! | detached | no h2c stream or upgraded connection is left, or after [`HIJACK_DRAIN`] |
//! | keeping | what is held here was retrieved, or the pod's grace ends |
//!
//! The function's local API and the data port serve until the last one is over. The pod's grace is the revision's time
//! limit, as Knative sets it; kubelet kills what goes on after it.
//!
//! # Source
//! knative/serving `pkg/queue/sharedmain/main.go`, `pkg/http/handler/hijack.go`; keeping is Zipline's own.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use zipline_knative::contract::{HIJACK_DRAIN, HIJACK_POLL};
use zipline_runtime::Tasks;

use super::drain::Drainer;
use super::passage::InFlight;
use crate::state::{Phase, Shared};

/// Between two looks at requests that run.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What is left of the pod's grace for the very end.
const SPARE: Duration = Duration::from_secs(1);

/// Goes through the phases.
pub(super) async fn run(shared: &Shared, drainer: &Drainer, requests: &Tasks, in_flight: &InFlight) {
    tracing::info!("Received TERM signal, attempting to gracefully shutdown servers.");
    let grace = shared.config.request_timeout;
    let grace_ends = Instant::now() + grace.saturating_sub(SPARE);
    shared.lifecycle.advance(Phase::Draining);
    shared.store.drain(grace);
    drainer.drain().await;

    tracing::info!("no more requests came, finishing those that run");
    requests.cancel();
    while in_flight.ordinary() > 0 {
        sleep(LOOK_EVERY).await;
    }
    let detached = timeout(HIJACK_DRAIN, async {
        while in_flight.hijacked() > 0 {
            sleep(HIJACK_POLL).await;
        }
    });
    if detached.await.is_err() {
        let left = in_flight.hijacked();
        tracing::warn!(left, "upgraded connections and streams did not end in time");
    }
    shared.lifecycle.advance(Phase::Keeping);
    if timeout_at(grace_ends, shared.store.drained()).await.is_err() {
        let left = shared.store.snapshot().payload_count;
        tracing::warn!(payloads = left, "payloads were not retrieved within the grace");
    }
    // Whoever still waits for memory is refused now, while there is time to tell it.
    shared.store.drain(Duration::ZERO);
    shared.store.drained().await;
    shared.lifecycle.advance(Phase::Closed);
}
