//! The admin port: kubelet asks here, before it ends a user container, for the end of the drain.
//!
//! It also asks when only that container is restarted, so a drain that no signal to this process follows within
//! [`DRAIN_UNDO`] is undone.
//!
//! # Source
//! knative/serving `pkg/queue/sharedmain/handlers.go`.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use zipline_http::{Body, Handler, text_response};
use zipline_knative::contract::{DRAIN_PATH, DRAIN_UNDO};
use zipline_knative::replies::NOT_FOUND;
use zipline_runtime::Tasks;

use super::drain::Drainer;

/// Answers on the admin port.
#[derive(Debug, Clone)]
pub(super) struct DrainPort {
    pub(super) drainer: Arc<Drainer>,
    /// Cancelled by the signal to end.
    pub(super) ending: CancellationToken,
    /// Owns what undoes a drain, which must happen even if kubelet stops waiting.
    pub(super) tasks: Tasks,
}

impl Handler for DrainPort {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if request.uri().path() != DRAIN_PATH {
            return not_found();
        }
        tracing::info!("a user container waits for the end of the drain");
        let (drainer, ending) = (Arc::clone(&self.drainer), self.ending.clone());
        drop(self.tasks.spawn("undo drain", async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = sleep(DRAIN_UNDO) => drainer.reset(),
            }
        }));
        // As a task, so that the end of the drain is noticed even if nobody else waits for it.
        let drainer = Arc::clone(&self.drainer);
        // It ends early only with the process.
        let _ = self.tasks.spawn("drain", async move { drainer.drain().await }).await;
        Response::new(Body::empty())
    }
}

/// What Go's servers say to unknown paths.
pub(super) fn not_found() -> Response<Body> {
    text_response(StatusCode::NOT_FOUND, NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::Instant;

    fn port() -> DrainPort {
        DrainPort {
            drainer: Arc::new(Drainer::new(Duration::from_secs(30))),
            ending: CancellationToken::new(),
            tasks: Tasks::new(),
        }
    }

    fn ask(path: &str) -> Request<Body> {
        Request::put(path).body(Body::empty()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_signal_it_answers_after_a_second_and_probes_recover() {
        let port = port();
        let begun = Instant::now();
        let response = port.handle(ask("/wait-for-drain")).await;
        assert_eq!((response.status().as_u16(), begun.elapsed()), (200, Duration::from_secs(1)));
        assert!(!port.drainer.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_signal_it_answers_after_the_quiet_period() {
        let port = port();
        let begun = Instant::now();
        port.ending.cancel();
        let response = port.handle(ask("/wait-for-drain")).await;
        assert_eq!((response.status().as_u16(), begun.elapsed()), (200, Duration::from_secs(30)));
        assert!(port.drainer.is_draining());
    }

    #[tokio::test]
    async fn only_the_exact_path_is_known() {
        for path in ["/", "/wait-for-drain/", "/healthz"] {
            let response = port().handle(ask(path)).await;
            assert_eq!(response.status(), 404);
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        }
    }
}
