//! What every request goes through, outermost first.
//!
//! 1. An upgrade to h2c takes the connection; what it carries comes back here, request by request.
//! 2. Probes are answered here. Anything else restarts the quiet period of a drain.
//! 3. Records: in flight, and whoever observes ([`super::observe`]).
//! 4. The three time limits, from here to the end of the response.
//! 5. The autoscaler's numbers and the original host; kubelet's old probes pass by these and by the breaker.
//! 6. The breaker, the function, its response: as without Knative ([`crate::inbound`]), deferred ones included.
//!
//! # Source
//! knative/serving `pkg/queue/sharedmain/handlers.go`, `pkg/queue/handler.go`, `pkg/http/proxy.go`.

use std::any::Any;
use std::sync::Arc;

use http::header::{CONNECTION, EXPECT, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::time::{Instant, timeout_at};
use zipline_http::{Body, Handler, PeerAddr, ServeLimits, hop};
use zipline_knative::contract::{KUBE_PROBE_AGENT, KUBELET_PROBE, NAMESPACE, ORIGINAL_HOST, REVISION};
use zipline_runtime::Tasks;

use super::answer;
use super::drain::Drainer;
use super::h2c;
use super::observe::{Arrival, Ended, Observed, Observer};
use super::passage::{InFlight, Passage, Telling};
use super::probing::Prober;
use super::stats::Stats;
use super::timeouts::{Clock, Timeouts};
use super::upload::Upload;
use crate::inbound::{self, Terms, health};
use crate::state::Shared;

/// What all connections of the serving ports share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) drainer: Arc<Drainer>,
    pub(super) prober: Prober,
    pub(super) stats: Stats,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) timeouts: Timeouts,
    pub(super) full_duplex: bool,
    pub(super) observer: Option<Arc<dyn Observer>>,
    /// The owner of connections to the serving ports.
    pub(super) requests: Tasks,
    /// Their limits.
    pub(super) limits: ServeLimits,
}

/// The handler of one serving port. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) core: Arc<Core>,
    /// Whether its connections come over TLS.
    pub(super) tls: bool,
}

impl Handler for Chain {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if h2c::is_upgrade(&request) {
            return h2c::upgrade(self, request).await;
        }
        let mut request = request;
        if health::is_probe(request.headers()) {
            let begun = Instant::now();
            let observed = self.core.observe(&mut request, self.tls);
            let draining = self.core.drainer.is_draining();
            let response =
                health::answer(draining, request.headers(), async || self.core.prober.is_ready().await).await;
            if let Some(observed) = observed {
                observed.ended(Ended {
                    status: Some(response.status()),
                    response_bytes: response.body().exact_length().unwrap_or(0),
                    elapsed: begun.elapsed(),
                    whole: true,
                });
            }
            return response;
        }
        self.core.drainer.touch();
        Box::pin(self.core.serve(request, self.tls)).await
    }
}

impl Core {
    /// Asks whoever observes about a request that has just come.
    fn observe(&self, request: &mut Request<Body>, tls: bool) -> Option<Box<dyn Observed>> {
        let observer = self.observer.as_ref()?;
        let arrival = arrival(request, tls);
        observer.begin(request, arrival)
    }

    async fn serve(&self, mut request: Request<Body>, tls: bool) -> Response<Body> {
        let clock = Clock::start(self.timeouts, Instant::now());
        let observed = self.observe(&mut request, tls);
        let http2 = request.version() == Version::HTTP_2;
        let passage = Passage::begin(&self.in_flight, http2 && !tls, clock.begun(), observed);
        let head = *request.method() == Method::HEAD;
        let limited = !is_kubelet_probe(request.headers());
        if limited {
            passage.count(self.stats.arrived(request.headers()));
        }
        prepare(&mut request, limited);
        let mut upload = None;
        if !http2 && !self.full_duplex {
            let expects = hop::has_token(request.headers(), &EXPECT, "100-continue");
            request = request.map(|body| {
                let (body, watched) = Upload::watch(body, expects);
                upload = watched;
                body
            });
        }
        let keep: Arc<dyn Any + Send + Sync> = Arc::clone(&passage) as _;
        let mut terms = Terms::knative(clock.absolute(), limited, keep);
        if self.observer.is_some() {
            terms.witness = Telling::of(&passage);
        }
        // On the heap: it is large and would be copied otherwise.
        let work = Box::pin(inbound::serve(&self.shared, request, terms));
        let response = match timeout_at(clock.due(), work).await {
            Ok(response) => response,
            Err(_) => {
                tracing::warn!("a request got no response within its time limit");
                let response = answer::timed_out();
                return answer::finish(response, head, clock, passage).await;
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            passage.responded(response.status(), response.headers());
            return response;
        }
        let mut response = response;
        if let Some(upload) = upload
            && !upload.settle(clock.due()).await
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer::finish(response, head, clock, passage).await
    }
}

fn arrival(request: &Request<Body>, tls: bool) -> Arrival {
    let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0);
    Arrival {
        peer: peer.map(|peer| peer.ip().to_canonical()),
        peer_port: peer.map_or(0, |peer| peer.port()),
        tls,
    }
}

/// The deprecated mark of kubelet's probes, which the drainer does not know.
fn is_kubelet_probe(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    agent.starts_with(KUBE_PROBE_AGENT.as_bytes())
        || headers.get(&KUBELET_PROBE).is_some_and(|value| !value.is_empty())
}

/// What of the request is for Knative and not for the function.
fn prepare(request: &mut Request<Body>, restore_host: bool) {
    let headers = request.headers_mut();
    headers.remove(&REVISION);
    headers.remove(&NAMESPACE);
    let original = headers.get(&ORIGINAL_HOST).filter(|host| restore_host && !host.is_empty()).cloned();
    if let Some(host) = original {
        headers.remove(&ORIGINAL_HOST);
        headers.insert(HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn knatives_own_headers_go_and_the_original_host_comes_back() {
        let all = [
            ("host", "10.0.0.1:8012"),
            ("k-original-host", "a.b.svc"),
            ("knative-serving-revision", "r"),
            ("knative-serving-namespace", "n"),
            ("knative-serving-tag", "t"),
        ];
        let mut restored = request(&all);
        prepare(&mut restored, true);
        assert_eq!(
            restored.headers(),
            request(&[("host", "a.b.svc"), ("knative-serving-tag", "t")]).headers()
        );
        let mut kept = request(&all[..2]);
        prepare(&mut kept, false);
        assert_eq!(kept.headers(), request(&all[..2]).headers());
        let mut empty = request(&[("host", "a"), ("k-original-host", "")]);
        prepare(&mut empty, true);
        assert_eq!(empty.headers()["host"], "a");
    }

    #[test]
    fn kubelets_old_probes_are_known() {
        assert!(is_kubelet_probe(request(&[("k-kubelet-probe", "1")]).headers()));
        assert!(!is_kubelet_probe(request(&[("k-kubelet-probe", "")]).headers()));
        assert!(is_kubelet_probe(request(&[("user-agent", "kube-probe/1.3")]).headers()));
    }
}
