//! The description of the local API against what the queue-proxy does: every status that it names is brought about, and
//! none comes that it does not name.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use http::Method;
use http_body::Frame;
use zipline_protocol::ReferenceKind;
use zipline_testkit::client::{Call, Protocol, Reply};
use zipline_testkit::queue_proxy::{QueueProxy, QueueProxyConfig, TENANT};
use zipline_testkit::{binaries, body, pattern, wait};
use zipline_tests::check;
use zipline_tests::pair::{Pair, RECEIVER};

use crate::deferred::{put, record, ring};
use crate::holder::{Answer, FakeHolder};

/// `METHOD /path status`
type Seen = BTreeSet<String>;

/// Reads the statuses out of the document, which keeps to one way of indenting.
fn described(document: &str) -> Result<Seen> {
    let (mut path, mut method, mut all) = ("", "", Seen::new());
    let paths = document.split("\npaths:\n").nth(1).context("no paths")?;
    for line in paths.lines().take_while(|line| line.starts_with(' ')) {
        let indent = line.len() - line.trim_start().len();
        let key = line.trim().split(':').next().unwrap_or_default().trim_matches('"');
        match indent {
            2 => path = key,
            4 => method = key,
            8 if key.len() == 3 && key.bytes().all(|byte| byte.is_ascii_digit()) => {
                all.insert(format!("{} {path} {key}", method.to_uppercase()));
            }
            _ => {}
        }
    }
    ensure!(all.len() > 30, "hardly anything is described: {all:?}");
    Ok(all)
}

struct Exercise {
    pair: Pair,
    seen: Seen,
}

const INVOKE: &str = "/v1/invoke/{function}/{path}";
const PUT: &str = "/v1/payloads";
const PAYLOAD: &str = "/v1/payload";
const DOCUMENT: &str = "/openapi.yaml";

impl Exercise {
    /// Notes an answer, and checks that errors are problems with this code.
    fn note(&mut self, method: &Method, path: &str, reply: &Reply, status: u16, code: &str) -> Result<()> {
        let what = format!("{method} {path} {status}");
        if code.is_empty() {
            ensure!(reply.status == status, "{what}: {} {}", reply.status, reply.text());
        } else {
            check::problem(reply, status, code).with_context(|| what.clone())?;
        }
        self.seen.insert(what);
        Ok(())
    }

    async fn payload(&mut self, method: Method, reference: &str, status: u16, code: &str) -> Result<()> {
        let side = &self.pair.sender;
        let call =
            side.local(Protocol::Http1, method.clone(), PAYLOAD).header("zipline-reference", reference);
        let reply = call.send(side.api()).await?;
        self.note(&method, PAYLOAD, &reply, status, code)
    }

    async fn putting(&mut self, query: &str, length: u64, status: u16, code: &str) -> Result<Reply> {
        let side = &self.pair.sender;
        let call = side.local(Protocol::Http1, Method::POST, format!("{PUT}{query}"));
        let reply = call.pattern(1, length, true).send(side.api()).await?;
        self.note(&Method::POST, PUT, &reply, status, code)?;
        Ok(reply)
    }

    async fn invokes(&mut self) -> Result<()> {
        let at = self.pair.sender.api();
        for (name, path, status, code) in
            [(RECEIVER, "/sha256", 200, ""), ("no function", "/x", 400, "request-invalid")]
        {
            let name = name.replace(' ', "_");
            let call = self.pair.sender.invoke(Protocol::Http1, Method::POST, &name, path);
            let reply = call.pattern(1, 1000, true).send(at).await?;
            self.note(&Method::POST, INVOKE, &reply, status, code)?;
        }
        let side = lonely(&self.pair).await?;
        let call = side.invoke(Protocol::Http1, Method::POST, RECEIVER, "/sha256");
        let reply = call.pattern(1, 1000, true).send(side.api()).await?;
        self.note(&Method::POST, INVOKE, &reply, 502, "upstream-failed")?;
        // Without keys nothing can be put.
        let call = side.local(Protocol::Http1, Method::POST, PUT);
        let reply = call.pattern(1, 1000, true).send(side.api()).await?;
        self.note(&Method::POST, PUT, &reply, 502, "upstream-failed")
    }

    /// An invoke whose body is a payload that was put.
    async fn sending(&mut self, reference: &str, status: u16, code: &str) -> Result<()> {
        let call = self.pair.sender.invoke(Protocol::Http1, Method::POST, RECEIVER, "/sha256");
        let reply = call.header("zipline-body", reference).send(self.pair.sender.api()).await?;
        self.note(&Method::POST, INVOKE, &reply, status, code)
    }

    async fn without_token(&mut self) -> Result<()> {
        for (method, path, described) in [
            (Method::POST, "/v1/invoke/receiver.default/x", INVOKE),
            (Method::POST, PUT, PUT),
            (Method::GET, PAYLOAD, PAYLOAD),
            (Method::DELETE, PAYLOAD, PAYLOAD),
            (Method::GET, DOCUMENT, DOCUMENT),
        ] {
            let reply = Call::new(Protocol::Http1, method.clone(), path).send(self.pair.sender.api()).await?;
            self.note(&method, described, &reply, 401, "token-missing")?;
        }
        Ok(())
    }

    async fn document(&mut self) -> Result<()> {
        let side = &self.pair.sender;
        let reply = side.local(Protocol::Http1, Method::GET, DOCUMENT).send(side.api()).await?;
        let elsewhere =
            side.local(Protocol::Http1, Method::GET, DOCUMENT).host("evil.example").send(side.api()).await?;
        ensure!(reply.header("content-type") == "application/yaml", "{:?}", reply.headers);
        let served = String::from_utf8(reply.bytes.clone())?;
        ensure!(
            served == fs::read_to_string(binaries::workspace().join("docs/openapi.yaml"))?,
            "another document"
        );
        self.note(&Method::GET, DOCUMENT, &reply, 200, "")?;
        self.note(&Method::GET, DOCUMENT, &elsewhere, 400, "request-invalid")
    }

    async fn puts(&mut self) -> Result<()> {
        self.putting("?ttl=never", 10, 400, "request-invalid").await?;
        let reply = self.putting("", 1000, 201, "").await?;
        let document = reply.json()?;
        for field in ["reference", "expires_at", "ttl_seconds", "bounded_by", "retrievals", "length"] {
            ensure!(document.get(field).is_some(), "no {field}: {document}");
        }
        self.payload(Method::DELETE, reply.header("zipline-reference"), 204, "").await?;
        self.putting("", 64 << 20, 413, "payload-too-large").await?;
        let held = put(&self.pair, "", 1, 4 << 20).await?;
        self.putting("?wait=0s", 1 << 20, 507, "buffer-full").await?;
        self.payload(Method::DELETE, &held, 204, "").await
    }

    async fn references(&mut self) -> Result<()> {
        let length = 1000;
        let reference = put(&self.pair, "?retrievals=2", 1, length).await?;
        let side = &self.pair.sender;
        let ranged = |range: &str| {
            let call =
                side.local(Protocol::Http1, Method::GET, PAYLOAD).header("zipline-reference", &reference);
            call.header("range", range).send(side.api())
        };
        let (some, none) = (ranged("bytes=5-9").await?, ranged("bytes=1000-").await?);
        ensure!(some.header("content-range") == "bytes 5-9/1000", "{:?}", some.headers);
        self.note(&Method::GET, PAYLOAD, &some, 206, "")?;
        self.note(&Method::GET, PAYLOAD, &none, 416, "range-invalid")?;
        self.payload(Method::GET, &reference, 200, "").await?;
        self.payload(Method::GET, &reference, 200, "").await?;
        let expiring = put(&self.pair, "?ttl=1ms", 1, length).await?;
        self.pair.sender.holds_nothing().await?;
        let released = put(&self.pair, "", 1, length).await?;
        self.payload(Method::DELETE, &released, 204, "").await?;
        let foreign = ring("stranger", &[1])?;
        let foreign =
            foreign.seal_reference(&record(ReferenceKind::Put, "stranger", self.pair.sender.data()))?;
        for (bad, status, code) in [
            ("zl1.AAAA", 400, "reference-invalid"),
            (foreign.as_str(), 403, "reference-forbidden"),
            (&expiring, 410, "reference-expired"),
            (&released, 424, "payload-lost"),
        ] {
            for method in [Method::GET, Method::DELETE] {
                self.payload(method, bad, status, code).await?;
            }
            self.sending(bad, status, code).await?;
        }
        self.payload(Method::GET, &reference, 409, "retrievals-exhausted").await?;
        self.sending(&reference, 409, "retrievals-exhausted").await?;
        // Of what is spent there is nothing left to release, which is what was wanted.
        self.payload(Method::DELETE, &reference, 204, "").await?;
        for (status, code) in [(503, "draining"), (507, "buffer-full")] {
            let holder = FakeHolder::start(Answer::error(status)).await?;
            let reference = holder.reference(ReferenceKind::Put, length)?;
            self.payload(Method::GET, &reference, status, code).await?;
            self.sending(&reference, status, code).await?;
        }
        Ok(())
    }

    /// Last of all: a put that waits for memory when the grace of a drain ends.
    async fn drained(&mut self) -> Result<()> {
        put(&self.pair, "", 1, 4 << 20).await?;
        let side = &self.pair.sender;
        let call = side.local(Protocol::Http1, Method::POST, format!("{PUT}?wait=60s"));
        let waiting = call.pattern(1, 1 << 20, true).send(side.api());
        let drain = async {
            wait::until("the put to wait", || async {
                let metrics = side.metrics().await?;
                let waits = metrics.lines().any(|line| line.contains("wait") && line.ends_with(" 1"));
                Ok(waits.then_some(()))
            })
            .await?;
            side.drain(1).await
        };
        let (refused, drained) = tokio::join!(waiting, drain);
        drained?;
        self.note(&Method::POST, PUT, &refused?, 503, "draining")
    }
}

/// A queue-proxy that reaches no gateway and has no keys.
async fn lonely(pair: &Pair) -> Result<QueueProxy> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut config = QueueProxyConfig::new("lonely.default", pair.sender_function.address, nowhere);
    config.keyring = None;
    QueueProxy::start_ready(config).await
}

/// A put whose body stops is given up after a minute.
async fn stalled_put(pair: &Pair) -> Result<Reply> {
    let (sender, content) = body::channel();
    sender.send(Ok(Frame::data(pattern::bytes(1, 0, 500)))).await.ok().context("not read")?;
    let call = pair.sender.local(Protocol::Http1, Method::POST, PUT);
    let reply = call.header("content-length", "1000").body(content).send(pair.sender.api()).await?;
    drop(sender);
    Ok(reply)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_and_status_is_as_described() -> Result<()> {
    let document = fs::read_to_string(binaries::workspace().join("docs/openapi.yaml"))?;
    let described = described(&document)?;
    let stalling = Pair::start().await?;
    let pair = Pair::start_with(|config| {
        config.sender.budget_bytes = 4 << 20;
    })
    .await?;
    ensure!(pair.sender.status().await?.namespace == TENANT, "another tenant");
    let mut exercise = Exercise { pair, seen: Seen::new() };
    let exercised = async {
        exercise.document().await?;
        exercise.without_token().await?;
        exercise.invokes().await?;
        exercise.puts().await?;
        exercise.references().await?;
        exercise.drained().await
    };
    let (stalled, exercised) = tokio::join!(stalled_put(&stalling), exercised);
    exercised?;
    exercise.note(&Method::POST, PUT, &stalled?, 504, "deadline-exceeded")?;
    let missing: Vec<_> = described.difference(&exercise.seen).collect();
    let surplus: Vec<_> = exercise.seen.difference(&described).collect();
    ensure!(missing.is_empty(), "described, but it cannot be brought about: {missing:#?}");
    ensure!(surplus.is_empty(), "it comes about, but is not described: {surplus:#?}");
    Ok(())
}
