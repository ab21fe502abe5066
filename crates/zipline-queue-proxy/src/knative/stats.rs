//! What the autoscaler scrapes, kept up to date.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use zipline_http::{Body, Handler};
use zipline_knative::contract::{
    METRICS_PATH, PROXY_ACTIVATOR, PROXY_REQUEST, REPORT_PERIOD, STAT_MEDIA_TYPE,
};
use zipline_knative::stat::{Event, Reporter};

use super::admin::not_found;

/// The numbers of this process. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Stats {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    reporter: Mutex<Reporter>,
    /// The last report, as it is sent.
    encoded: Mutex<Vec<u8>>,
}

impl Stats {
    pub(super) fn new(pod: &str) -> Self {
        let started = Instant::now();
        let reporter = Reporter::new(pod, REPORT_PERIOD, std::time::Duration::ZERO);
        let encoded = Mutex::new(reporter.before_first_report().encode());
        Self { inner: Arc::new(Inner { started, reporter: Mutex::new(reporter), encoded }) }
    }

    /// A request has arrived; it is in flight until what is returned is dropped.
    pub(super) fn arrived(&self, headers: &HeaderMap) -> Counted {
        let proxied = headers.get(PROXY_REQUEST).is_some_and(|value| value == PROXY_ACTIVATOR);
        self.inner.event(if proxied { Event::ProxiedIn } else { Event::In });
        Counted { inner: Arc::clone(&self.inner), proxied }
    }

    /// Makes reports for ever.
    pub(super) async fn run(self) {
        let mut ticks = interval_at(self.inner.started + REPORT_PERIOD, REPORT_PERIOD);
        // As Go's ticker: what was missed is not made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.inner.report();
        }
    }
}

impl Inner {
    fn event(&self, event: Event) {
        let mut reporter = self.reporter.lock();
        reporter.event(event, self.started.elapsed());
    }

    fn report(&self) {
        let stat = self.reporter.lock().report(self.started.elapsed());
        *self.encoded.lock() = stat.encode();
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Counted {
    inner: Arc<Inner>,
    proxied: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.inner.event(if self.proxied { Event::ProxiedOut } else { Event::Out });
    }
}

/// Answers scrapes. The accepted media types are not looked at: the autoscaler understands this one only.
impl Handler for Stats {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if request.uri().path() != METRICS_PATH {
            return not_found();
        }
        let mut response = Response::new(Body::full(self.inner.encoded.lock().clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(STAT_MEDIA_TYPE));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn scrape(stats: &Stats) -> Vec<u8> {
        let response = stats.handle(Request::get("/metrics").body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "application/protobuf");
        response.into_body().collect_up_to(400).await.unwrap().to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_replaces_the_one_before_and_requests_carry_over() {
        let stats = Stats::new("pod");
        let tasks = zipline_runtime::Tasks::new();
        let _running = tasks.spawn_owned("reports", stats.clone().run());
        let name = [&[0x0a, 3][..], b"pod"].concat();
        assert_eq!(scrape(&stats).await, name, "before the first report");
        let mut headers = HeaderMap::new();
        headers.insert(PROXY_REQUEST, HeaderValue::from_static("activator"));
        let request = stats.arrived(&headers);
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let one = [0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        let field = |tag: u8| [&[tag][..], &one].concat();
        let wanted = [name.clone(), field(0x11), field(0x19), field(0x21), field(0x29), field(0x31)].concat();
        assert_eq!(scrape(&stats).await, wanted);
        drop(request);
    }
}
