//! What workers do, and what they check about every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use http::Method;
use tokio::time::{Instant, timeout};
use zipline_testkit::client::{Call, Exchange, Protocol, Reply};
use zipline_testkit::pattern;

use crate::dice::Dice;
use crate::journal::Sent;
use crate::node::{Doors, Node};
use crate::options::Options;
use crate::report::{Outcome, Tally};
use crate::sdk::{self, Functions};
use crate::trouble::Weather;
use crate::world::World;

/// Longest time of any operation: more than all of the product's own limits together, so that whatever takes longer hangs.
const LONGEST: Duration = Duration::from_secs(150);
/// Life of what is put: short, so that what nobody got is gone by the time of the last checks.
const TTL: Duration = Duration::from_secs(30);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// What one operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Invoke; the payload is the request.
    Request,
    /// Invoke; the payload is the response.
    Response,
    /// The same as the first through the forward proxy.
    Proxied,
    /// Put, and as many gets as it allows, by several nodes; then one too many.
    PutGet,
    /// The same by the SDK, in place or copied in, and looked at again later.
    Sdk,
    /// Put and release; then a get.
    Release,
    /// A sender or receiver that goes away in the middle.
    GiveUp,
}

impl Kind {
    /// All kinds with their names in reports.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Request, "request"),
        (Self::Response, "response"),
        (Self::Proxied, "proxied"),
        (Self::PutGet, "put-get"),
        (Self::Sdk, "sdk"),
        (Self::Release, "release"),
        (Self::GiveUp, "give-up"),
    ];

    fn any(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..20 => Self::Request,
            20..35 => Self::Response,
            35..45 => Self::Proxied,
            45..65 => Self::PutGet,
            65..85 => Self::Sdk,
            85..90 => Self::Release,
            _ => Self::GiveUp,
        }
    }
}

/// One worker: one operation after another until `until`.
#[derive(Debug)]
pub struct Worker {
    /// Where it works.
    pub world: Arc<World>,
    /// Its random numbers.
    pub dice: Dice,
    /// What was sent.
    pub sent: Arc<Sent>,
    /// What came of it.
    pub tally: Arc<Tally>,
    /// What may go wrong at the moment.
    pub weather: Arc<Weather>,
    /// Sizes.
    pub options: Arc<Options>,
    /// What it has as a function with the SDK.
    pub functions: Functions,
}

/// Why an operation did not succeed.
#[derive(Debug)]
enum Bad {
    /// With an error, which is allowed in a storm.
    Failed(String),
    /// In a way that is never allowed.
    Wrong(String),
}

impl From<anyhow::Error> for Bad {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<sdk::Bad> for Bad {
    fn from(bad: sdk::Bad) -> Self {
        match bad {
            sdk::Bad::Refused(code, why) => Self::Failed(format!("sdk {code}: {why}")),
            sdk::Bad::Unable(error) => error.into(),
            sdk::Bad::Altered(what) => Self::Wrong(what),
        }
    }
}

type Done = Result<u64, Bad>;

impl Worker {
    /// Works until `until`.
    pub async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            let kind = Kind::any(&mut self.dice);
            self.one(kind).await;
        }
        if let Err(bad) = self.functions.still_the_same().await {
            self.tally.violation(format!("{bad:?}"));
        }
    }

    /// One operation of this kind, checked and told.
    pub async fn one(&mut self, kind: Kind) {
        let (begun, tally, weather) = (Instant::now(), Arc::clone(&self.tally), Arc::clone(&self.weather));
        let outcome = match timeout(LONGEST, self.operate(kind)).await {
            Ok(Ok(bytes)) => Outcome::Done(bytes),
            Ok(Err(Bad::Failed(why))) if weather.was_settled_since(begun) && !is_memory(&why) => {
                Outcome::Wrong(format!("failed in settled calm: {why}"))
            }
            Ok(Err(Bad::Failed(why))) => Outcome::Failed(why),
            Ok(Err(Bad::Wrong(why))) => Outcome::Wrong(why),
            Err(_) => Outcome::Wrong(format!("no end after {} s", LONGEST.as_secs())),
        };
        tally.add(kind, begun.elapsed(), outcome);
    }

    async fn operate(&mut self, kind: Kind) -> Done {
        let nodes = self.world.nodes.len();
        let (from, to) = (self.dice.index(nodes), self.dice.index(nodes));
        let size = self.dice.size(self.options.least_bytes, self.options.most_bytes);
        match kind {
            Kind::Request => self.request(from, to, size, false).await,
            Kind::Proxied => self.request(from, to, size, true).await,
            Kind::Response => self.response(from, to, size).await,
            Kind::PutGet => self.put_get(from, size).await,
            Kind::Sdk => self.sdk(from, size).await,
            Kind::Release => self.release(from, to, size).await,
            Kind::GiveUp => self.give_up(from, to, size).await,
        }
    }

    async fn request(&mut self, from: usize, to: usize, size: u64, proxied: bool) -> Done {
        let world = Arc::clone(&self.world);
        let (from, to) = (&world.nodes[from], &world.nodes[to]);
        let (seed, known) = (self.dice.next(), self.dice.percent(80));
        let sha256 = digest(seed, size).await?;
        let id = self.sending(size, &sha256);
        let call = self.invoking(from, to, "/digest", proxied).header("x-request-id", &id);
        let reply = self.exchange(from, call.pattern(seed, size, known)).await?;
        succeeded(&reply)?;
        let json = reply.json().map_err(|error| Bad::Wrong(format!("{error:#}")))?;
        if json["length"] != size || json["sha256"] != sha256 {
            return Err(Bad::Wrong(format!("{id}: {size} bytes {sha256} sent, the function saw {json}")));
        }
        Ok(size)
    }

    async fn response(&mut self, from: usize, to: usize, size: u64) -> Done {
        let world = Arc::clone(&self.world);
        let (from, to) = (&world.nodes[from], &world.nodes[to]);
        let (seed, known) = (self.dice.next(), u8::from(self.dice.percent(80)));
        let sha256 = digest(seed, size).await?;
        let id = self.sending(4, &pattern::sha256_of(b"make"));
        let path = format!("/make?seed={seed}&bytes={size}&known={known}");
        let call = self.invoking(from, to, &path, false).header("x-request-id", &id);
        let reply = self.exchange(from, call.bytes("make")).await?;
        whole(&reply, size, &sha256)?;
        Ok(size)
    }

    async fn put_get(&mut self, holder: usize, size: u64) -> Done {
        let world = Arc::clone(&self.world);
        let (seed, retrievals) = (self.dice.next(), self.dice.between(1, 3));
        let sha256 = digest(seed, size).await?;
        let reference = self.put(&world.nodes[holder], seed, size, retrievals).await?;
        let (mut delivered, mut failure) = (0, None);
        for _ in 0..retrievals {
            let getter = &world.nodes[self.dice.index(world.nodes.len())];
            match self.get(getter, &reference).await {
                Ok(reply) => {
                    whole(&reply, size, &sha256)?;
                    delivered += 1;
                }
                Err(Bad::Failed(why)) => failure = Some(why),
                Err(wrong) => return Err(wrong),
            }
        }
        if let Some(failure) = failure {
            return Err(Bad::Failed(failure));
        }
        let begun = Instant::now();
        let getter = &world.nodes[self.dice.index(world.nodes.len())];
        match self.get(getter, &reference).await {
            // An acknowledgement may be lost in a storm, and allows one delivery more; never in calm.
            Ok(_) if self.weather.was_settled_since(begun) => {
                return Err(Bad::Wrong(format!(
                    "delivered {} times, {retrievals} were allowed",
                    delivered + 1
                )));
            }
            Ok(reply) => whole(&reply, size, &sha256)?,
            Err(Bad::Failed(_)) => {}
            Err(wrong) => return Err(wrong),
        }
        Ok(size * delivered)
    }

    async fn sdk(&mut self, holder: usize, size: u64) -> Done {
        let world = Arc::clone(&self.world);
        let (seed, retrievals) = (self.dice.next(), self.dice.between(1, 2));
        let sha256 = digest(seed, size).await?;
        let getters: Vec<&Node> =
            (0..retrievals).map(|_| &world.nodes[self.dice.index(world.nodes.len())]).collect();
        let content = sdk::Content { seed, size, sha256: &sha256, ttl: TTL };
        self.functions.put_get(&mut self.dice, &world.nodes[holder], &getters, content).await?;
        Ok(size * retrievals)
    }

    async fn release(&mut self, holder: usize, getter: usize, size: u64) -> Done {
        let world = Arc::clone(&self.world);
        let (holder, getter) = (&world.nodes[holder], &world.nodes[getter]);
        let seed = self.dice.next();
        let reference = self.put(holder, seed, size, 2).await?;
        let call = self.local(holder, Method::DELETE, "/v1/payload").header("zipline-reference", &reference);
        let reply = self.exchange(holder, call).await?;
        if reply.status != 204 {
            return Err(Bad::Failed(refusal(&reply)));
        }
        match self.get(getter, &reference).await {
            Ok(_) => Err(Bad::Wrong("delivered after its release was confirmed".to_owned())),
            Err(Bad::Failed(_)) => Ok(size),
            Err(wrong) => Err(wrong),
        }
    }

    /// Goes away in the middle of a put or of a get.
    async fn give_up(&mut self, holder: usize, getter: usize, size: u64) -> Done {
        let world = Arc::clone(&self.world);
        let (holder, getter) = (&world.nodes[holder], &world.nodes[getter]);
        let seed = self.dice.next();
        if self.dice.percent(50) {
            let path = format!("/v1/payloads?ttl={}s", TTL.as_secs());
            let call = self.local(holder, Method::POST, path).pattern(seed, size, false);
            // Whatever has been sent by then; a put that is through is forgotten and expires.
            let patience = self.dice.time(Duration::ZERO, Duration::from_millis(200));
            drop(timeout(patience, self.exchange(holder, call)).await);
            return Ok(0);
        }
        let reference = self.put(holder, seed, size, 1).await?;
        let call = self.local(getter, Method::GET, "/v1/payload").header("zipline-reference", &reference);
        let mut exchange = self.open(getter, call).await?;
        for _ in 0..self.dice.below(8) {
            if exchange.next().await?.is_none() {
                break;
            }
        }
        Ok(0)
    }

    async fn put(&mut self, holder: &Node, seed: u64, size: u64, retrievals: u64) -> Result<String, Bad> {
        let path = format!("/v1/payloads?retrievals={retrievals}&ttl={}s", TTL.as_secs());
        let known = self.dice.percent(80);
        let call = self.local(holder, Method::POST, path).pattern(seed, size, known);
        let reply = self.exchange(holder, call).await?;
        if reply.status != 201 {
            return Err(Bad::Failed(refusal(&reply)));
        }
        Ok(reply.header("zipline-reference").to_owned())
    }

    /// A payload as the answer of a get; what is no whole 200 is a failure.
    async fn get(&mut self, getter: &Node, reference: &str) -> Result<Reply, Bad> {
        let call = self.local(getter, Method::GET, "/v1/payload").header("zipline-reference", reference);
        let reply = self.exchange(getter, call).await?;
        succeeded(&reply)?;
        Ok(reply)
    }

    /// Remembers a request that is about to be sent.
    fn sending(&self, size: u64, sha256: &str) -> String {
        let id = format!("{}-{}", self.world.name, NEXT.fetch_add(1, Ordering::Relaxed));
        self.sent.add(id.clone(), (size, sha256.to_owned()));
        id
    }

    fn invoking(&mut self, from: &Node, to: &Node, path: &str, proxied: bool) -> Call {
        if !proxied {
            return self.local(from, Method::POST, format!("/v1/invoke/{}{path}", to.name));
        }
        let host = format!("{}.svc.cluster.local", to.name);
        let secret = format!("zipline:{}", from.doors().token);
        let basic = base64::engine::general_purpose::STANDARD.encode(secret);
        Call::new(Protocol::Http1, Method::POST, format!("http://{host}{path}"))
            .host(host)
            .header("proxy-authorization", format!("Basic {basic}"))
    }

    fn local(&mut self, node: &Node, method: Method, path: impl Into<String>) -> Call {
        let protocol = Protocol::ALL[usize::from(self.dice.percent(25))];
        Call::new(protocol, method, path).header("zipline-token", node.doors().token)
    }

    async fn exchange(&mut self, node: &Node, call: Call) -> Result<Reply> {
        let exchange = self.open(node, call).await?;
        node.site.run(exchange.read()).await
    }

    async fn open(&mut self, node: &Node, call: Call) -> Result<Exchange> {
        let Doors { api, socket, .. } = node.doors();
        let by_socket = self.dice.percent(30);
        let opening = async move {
            if by_socket && call.uri.starts_with('/') {
                return call.open_unix(&socket).await;
            }
            call.open(api).await
        };
        node.site.run(opening).await?
    }
}

/// A digest takes long enough for a thread of its own.
async fn digest(seed: u64, size: u64) -> Result<String> {
    tokio::task::spawn_blocking(move || pattern::sha256(seed, size)).await.context("digest")
}

fn refusal(reply: &Reply) -> String {
    let code = reply.code();
    let end = reply.broken.as_deref().unwrap_or_default();
    let text = if code.is_empty() { reply.text() } else { String::new() };
    format!("{} {code}{end}{}", reply.status.as_u16(), text.lines().next().unwrap_or_default())
}

/// Whether it says that there was no memory at the moment, which mixed sizes may bring about in any weather.
fn is_memory(why: &str) -> bool {
    why.starts_with("507 buffer-full") || why.starts_with("sdk buffer-full")
}

fn succeeded(reply: &Reply) -> Result<(), Bad> {
    if reply.status == 200 && reply.broken.is_none() {
        return Ok(());
    }
    Err(Bad::Failed(refusal(reply)))
}

/// That a successful answer has exactly these bytes.
fn whole(reply: &Reply, size: u64, sha256: &str) -> Result<(), Bad> {
    succeeded(reply)?;
    if reply.length == size && reply.sha256 == sha256 {
        return Ok(());
    }
    let (length, other) = (reply.length, &reply.sha256);
    Err(Bad::Wrong(format!(
        "{size} bytes {sha256} in place of which {length} bytes {other} ended as if complete"
    )))
}

/// Checks that everything works again, once between every two nodes.
///
/// # Errors
/// What does not.
pub async fn all_serve(worker: &mut Worker) -> Result<()> {
    let nodes = worker.world.nodes.len();
    for from in 0..nodes {
        for to in 0..nodes {
            let size = worker.dice.size(worker.options.least_bytes, worker.options.most_bytes.min(4_000_000));
            for done in [
                worker.request(from, to, size, false).await,
                worker.request(from, to, size, true).await,
                worker.response(from, to, size).await,
                worker.put_get(from, size).await,
                worker.sdk(from, size).await,
            ] {
                if let Err(bad) = done {
                    bail!("{} to {}: {bad:?}", worker.world.nodes[from].name, worker.world.nodes[to].name);
                }
            }
        }
    }
    Ok(())
}
