//! `docs/openapi.yaml` against what is answered: every documented answer is given once, and none that is not documented.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::future::poll_immediate;
use http::Request;
use tokio::net::TcpListener;
use zipline_buffer::{LeaseRequest, StoreConfig};
use zipline_http::{ServeLimits, handler_fn};
use zipline_protocol::{ReferenceKind, ReferenceText};
use zipline_runtime::Tasks;
use zipline_seal::{KeyringUpdate, new_lease_id};

use super::*;
use crate::server::tests::{TOKEN, shared, text};

type Answer = (String, String, u16);

/// Path, method and status of every answer in the document. Reads just the shape that the file has.
fn documented() -> BTreeSet<Answer> {
    let paths = OPENAPI.split("\npaths:\n").nth(1).unwrap().split("\ncomponents:\n").next().unwrap();
    let (mut path, mut method, mut answers) = (String::new(), String::new(), BTreeSet::new());
    for line in paths.lines() {
        let word = line.trim().trim_end_matches(':');
        match line.len() - line.trim_start().len() {
            2 => path = word.to_owned(),
            4 => method = word.to_uppercase(),
            8 => {
                if let Some(status) =
                    line.trim().strip_prefix('"').and_then(|rest| rest.get(..3)?.parse().ok())
                {
                    answers.insert((path.clone(), method.clone(), status));
                }
            }
            _ => {}
        }
    }
    answers
}

struct Asked {
    shared: Arc<Shared>,
    seen: BTreeSet<Answer>,
}

impl Asked {
    async fn new(variables: &[(&str, &str)]) -> Self {
        Self { shared: shared(variables).await, seen: BTreeSet::new() }
    }

    async fn ask(&mut self, method: &str, uri: &str, headers: &[(&str, &str)], body: Body) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri).body(body).unwrap();
        for (name, value) in [&[("host", "localhost"), ("zipline-token", TOKEN)], headers].concat() {
            request
                .headers_mut()
                .insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let path = match uri.split('?').next().unwrap() {
            invoked if invoked.starts_with("/v1/invoke/") => "/v1/invoke/{function}/{path}",
            path => path,
        };
        let response = serve(&self.shared, request).await;
        self.seen.insert((path.to_owned(), method.to_owned(), response.status().as_u16()));
        response
    }

    async fn put(&mut self, query: &str) -> String {
        let response = self.ask("POST", &format!("/v1/payloads{query}"), &[], Body::full("12345")).await;
        let answer: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        answer["reference"].as_str().unwrap().to_owned()
    }

    async fn of(&mut self, method: &str, reference: &str, more: &[(&str, &str)]) -> u16 {
        let headers = [&[("zipline-reference", reference)], more].concat();
        let response = self.ask(method, "/v1/payload", &headers, Body::empty()).await;
        let status = response.status().as_u16();
        text(response).await;
        status
    }

    /// An invoke whose body is a payload that was put.
    async fn send(&mut self, reference: &str) -> u16 {
        let headers = [("zipline-body", reference)];
        let response = self.ask("POST", "/v1/invoke/a.b/c", &headers, Body::empty()).await;
        response.status().as_u16()
    }
}

#[tokio::test]
async fn every_documented_answer_is_given_and_no_other() {
    let mut all = BTreeSet::new();
    for seen in [refusals().await, references().await, limits().await, invokes().await] {
        all.extend(seen);
    }
    let documented = documented();
    assert_eq!(documented.len(), 38, "the document is read: {documented:#?}");
    assert_eq!(all, documented);
}

/// Requests that are wrong in themselves.
async fn refusals() -> BTreeSet<Answer> {
    let mut asked = Asked::new(&[]).await;
    for (method, path) in [
        ("GET", "/openapi.yaml"),
        ("POST", "/v1/payloads"),
        ("GET", "/v1/payload"),
        ("DELETE", "/v1/payload"),
        ("POST", "/v1/invoke/a.b/c"),
    ] {
        asked.ask(method, path, &[("zipline-token", "wrong")], Body::empty()).await;
        asked.ask(method, path, &[("host", "evil.example")], Body::empty()).await;
    }
    asked.ask("GET", "/openapi.yaml", &[], Body::empty()).await;
    asked.seen
}

/// References in every state.
async fn references() -> BTreeSet<Answer> {
    let mut asked = Asked::new(&[]).await;
    let reference = asked.put("").await;
    assert_eq!(asked.of("GET", &reference, &[("range", "bytes=1-2")]).await, 206);
    assert_eq!(asked.of("GET", &reference, &[("range", "bytes=5-")]).await, 416);
    assert_eq!(asked.of("GET", &reference, &[]).await, 200);
    assert_eq!(asked.of("GET", &reference, &[]).await, 409);
    assert_eq!(asked.send(&reference).await, 409);
    let reference = asked.put("").await;
    assert_eq!(asked.of("DELETE", &reference, &[]).await, 204);
    assert_eq!(asked.of("DELETE", &reference, &[]).await, 424);
    assert_eq!(asked.of("GET", &reference, &[]).await, 424);
    assert_eq!(asked.send(&reference).await, 424);
    assert_eq!(asked.of("GET", "zl1.AAAA", &[]).await, 400);
    assert_eq!(asked.send("zl1.AAAA").await, 400);

    let theirs = Asked::new(&[("SERVING_NAMESPACE", "other")]).await.put("").await;
    assert_eq!(asked.of("GET", &theirs, &[]).await, 403);
    assert_eq!(asked.send(&theirs).await, 403);
    assert_eq!(asked.of("DELETE", &theirs, &[]).await, 403);

    tokio::time::pause();
    let reference = asked.put("?ttl=2s").await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(asked.of("GET", &reference, &[]).await, 410);
    assert_eq!(asked.send(&reference).await, 410);
    assert_eq!(asked.of("DELETE", &reference, &[]).await, 410);
    tokio::time::resume();
    asked.seen
}

/// What a busy, slow, draining or keyless queue-proxy answers.
async fn limits() -> BTreeSet<Answer> {
    let mut asked = Asked::new(&[("ZIPLINE_BUDGET_BYTES", "1MiB")]).await;
    let large = |length| Body::full(vec![0; length]);
    assert_eq!(asked.ask("POST", "/v1/payloads", &[], large((1 << 20) + 1)).await.status(), 413);
    let all_of_it = asked.ask("POST", "/v1/payloads?retrievals=2", &[], large(1 << 20)).await;
    assert_eq!(asked.ask("POST", "/v1/payloads?wait=0s", &[], large(1)).await.status(), 507);
    let reference = all_of_it.headers()["zipline-reference"].to_str().unwrap().to_owned();

    // Both retrievals are taken, and as many wait for them as may. On a busy machine that alone takes longer than the first
    // of them may wait.
    tokio::time::pause();
    let text = ReferenceText::parse(&reference).unwrap();
    let payload = asked.shared.keyring.open_reference(&text, ReferenceKind::Put).unwrap().payload;
    let store = asked.shared.store.clone();
    let lease = || {
        let peer = IpAddr::from(Ipv4Addr::new(127, 0, 0, 9));
        store.lease(LeaseRequest { payload, lease: new_lease_id(), peer, from: 0, to: None })
    };
    let taken = (lease().await.unwrap(), lease().await.unwrap());
    let mut waiting = Vec::new();
    for _ in 0..StoreConfig::with_budget(1 << 20).max_waiters {
        let mut one = Box::pin(lease());
        assert!(poll_immediate(&mut one).await.is_none());
        waiting.push(one);
    }
    assert_eq!(asked.of("GET", &reference, &[]).await, 507);
    assert_eq!(asked.send(&reference).await, 507);
    drop((taken, waiting));
    asked.shared.store.release(&payload).unwrap();

    let (_sender, stalled) = Body::channel(1);
    assert_eq!(asked.ask("POST", "/v1/payloads", &[], stalled).await.status(), 504);
    tokio::time::resume();

    let reference = asked.put("").await;
    asked.shared.store.drain(Duration::ZERO);
    assert_eq!(asked.of("GET", &reference, &[]).await, 503);
    assert_eq!(asked.send(&reference).await, 503);
    assert_eq!(asked.ask("POST", "/v1/payloads", &[], large(1)).await.status(), 503);
    asked.shared.keyring.install(KeyringUpdate::default()).unwrap();
    assert_eq!(asked.ask("POST", "/v1/payloads", &[], large(1)).await.status(), 502);
    asked.seen
}

async fn invokes() -> BTreeSet<Answer> {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = listener.local_addr().unwrap().to_string();
    let handler = handler_fn(|_: Request<Body>| async { Response::new(Body::full("answer")) });
    drop(
        tasks.spawn("gateway", zipline_http::serve(listener, handler, ServeLimits::default(), tasks.clone())),
    );
    let mut asked = Asked::new(&[("ZIPLINE_GATEWAY", &gateway)]).await;
    let answer = asked.ask("POST", "/v1/invoke/recog.vid/a/b?c=d", &[], Body::full("12345")).await;
    assert_eq!(text(answer).await, "answer");
    let mut alone = Asked::new(&[("ZIPLINE_GATEWAY", "127.0.0.1:1")]).await;
    assert_eq!(alone.ask("POST", "/v1/invoke/recog.vid/", &[], Body::empty()).await.status(), 502);
    asked.seen.extend(alone.seen);
    asked.seen
}
