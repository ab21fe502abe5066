//! A holder made by hand: it has the tenant's keys and answers every retrieve as a test wants.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zipline_protocol::data::{FinalRecord, Operation};
use zipline_protocol::{Record, ReferenceKind};
use zipline_seal::{Keyring, ProvenRequest};
use zipline_testkit::client::Protocol;
use zipline_testkit::owner::Owner;
use zipline_testkit::queue_proxy::TENANT;
use zipline_tests::check;
use zipline_tests::pair::Pair;

use crate::deferred::{deferred_request, get, record, ring};

/// What it answers to a retrieve.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What is announced in `Zipline-Length`; errors say 0.
    pub(crate) length: u64,
    pub(crate) content: Vec<u8>,
    /// The final record; none: the body ends without.
    pub(crate) last: Option<FinalRecord>,
    /// Whether proofs are made with the tenant's key.
    pub(crate) proven: bool,
}

impl Answer {
    /// An error with its proof.
    pub(crate) fn error(status: u16) -> Self {
        Self { status, length: 0, content: Vec::new(), last: None, proven: true }
    }

    fn whole(content: &[u8]) -> Self {
        let length = content.len() as u64;
        let last = FinalRecord { length, digest: None, trailers: Vec::new() };
        Self { status: 200, length, content: content.to_vec(), last: Some(last), proven: true }
    }
}

/// A running holder; it ends when dropped.
pub(crate) struct FakeHolder {
    pub(crate) address: SocketAddr,
    _owner: Owner,
}

impl FakeHolder {
    pub(crate) async fn start(answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, owner) = (listener.local_addr()?, Owner::default());
        let spawner = owner.spawner();
        owner.spawner().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                spawner.spawn(async move { drop(serve(stream, &answer).await) });
            }
        });
        Ok(Self { address, _owner: owner })
    }

    /// A reference of `kind` to a payload of `length` bytes that this holder is said to have.
    pub(crate) fn reference(&self, kind: ReferenceKind, length: u64) -> Result<String> {
        let record = Record { length: Some(length), ..record(kind, TENANT, self.address) };
        Ok(ring(TENANT, &[1])?.seal_reference(&record)?.as_str().to_owned())
    }
}

async fn serve(mut stream: TcpStream, answer: &Answer) -> Result<()> {
    let ours = ring(TENANT, &[1])?;
    let mut read = Vec::new();
    loop {
        while !read.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        let end = read.windows(4).position(|window| window == b"\r\n\r\n").context("a head")? + 4;
        let head = String::from_utf8(read.drain(..end).collect())?;
        let (request, operation) = prove(&ours, &head)?;
        if operation == Operation::Retrieve {
            stream.write_all(&reply(&request, answer)).await?;
            if answer.last.is_none() && answer.status == 200 {
                return Ok(());
            }
        } else {
            let proof = request.sign_reply(204, Some(0));
            let head = format!("HTTP/1.1 204 No Content\r\nZipline-Auth-Reply: {proof}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
    }
}

fn prove(ours: &Keyring, head: &str) -> Result<(ProvenRequest, Operation)> {
    let path = head.split(' ').nth(1).context("a path")?;
    let operation =
        Operation::ALL.into_iter().find(|operation| operation.path() == path).context("an operation")?;
    let line = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("zipline-auth:"))
        .context("a proof")?;
    let (_, value) = line.split_once(':').context("a value")?;
    Ok((ours.verify_request(operation, value.trim())?, operation))
}

fn reply(request: &ProvenRequest, answer: &Answer) -> Vec<u8> {
    let mut proof = request.sign_reply(answer.status, Some(answer.length));
    if !answer.proven {
        proof = "A".repeat(proof.len());
    }
    let mut out = format!("HTTP/1.1 {} Said\r\nZipline-Auth-Reply: {proof}\r\n", answer.status);
    if answer.status != 200 {
        let code = match answer.status {
            403 => "reference-forbidden",
            409 => "retrievals-exhausted",
            410 => "reference-expired",
            503 => "draining",
            507 => "buffer-full",
            _ => "payload-lost",
        };
        out.push_str(&format!("Zipline-Error: {code}\r\nContent-Length: 0\r\n\r\n"));
        return out.into_bytes();
    }
    out.push_str(&format!("Zipline-Length: {}\r\nTransfer-Encoding: chunked\r\n", answer.length));
    out.push_str("Trailer: Zipline-Final, Zipline-Trailers\r\n\r\n");
    let mut out = out.into_bytes();
    if !answer.content.is_empty() {
        out.extend(format!("{:x}\r\n", answer.content.len()).into_bytes());
        out.extend_from_slice(&answer.content);
        out.extend(b"\r\n");
    }
    if let Some(last) = &answer.last {
        let (value, _) = request.sign_final(last);
        out.extend(format!("0\r\nZipline-Final: {value}\r\n\r\n").into_bytes());
    } else {
        out.extend(b"0\r\n\r\n");
    }
    out
}

/// The fake is one that a receiver takes, so that what is refused below is refused for its own reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_one_is_believed() -> Result<()> {
    let pair = Pair::start().await?;
    let content = vec![7; 150_000];
    let holder = FakeHolder::start(Answer::whole(&content)).await?;
    let reference = holder.reference(ReferenceKind::Put, 150_000)?;
    let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
    ensure!(
        reply.status == 200 && reply.broken.is_none() && reply.bytes == content,
        "{} {}",
        reply.status,
        reply.text()
    );
    let reference = holder.reference(ReferenceKind::Request, 150_000)?;
    let (id, reply) = deferred_request(&pair, &reference, Protocol::Http1).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    ensure!(!reply.header("zipline-opened").is_empty(), "no proof: {:?}", reply.headers);
    ensure!(reply.header("zipline-version") == "1", "no version: {:?}", reply.headers);
    check::ran_once(&pair.function.runs, &id)?;
    Ok(())
}

/// A digest that comes only in the end counts as well, for payloads short enough to carry one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_digest_in_the_end_is_seen() -> Result<()> {
    let pair = Pair::start().await?;
    let mut answer = Answer::whole(&[7; 60_000]);
    answer.last = Some(FinalRecord { length: 60_000, digest: Some([1; 32]), trailers: Vec::new() });
    let holder = FakeHolder::start(answer).await?;
    let reference = holder.reference(ReferenceKind::Put, 60_000)?;
    let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
    check::problem(&reply, 424, "payload-lost")?;
    let reference = holder.reference(ReferenceKind::Request, 60_000)?;
    let (id, reply) = deferred_request(&pair, &reference, Protocol::Http1).await?;
    ensure!(reply.code() == "resend-inline", "{} {}", reply.status, reply.text());
    ensure!(pair.function.runs.of(&id).is_empty(), "the function ran");
    pair.hold_nothing().await
}

/// Holders that lie: whatever they say, no function and no caller sees a wrong payload end as if complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liars_are_not_believed() -> Result<()> {
    let pair = Pair::start().await?;
    let content = vec![7; 150_000];
    let honest = Answer::whole(&content);
    let last = |change: fn(&mut FinalRecord)| {
        let mut last = FinalRecord { length: 150_000, digest: None, trailers: Vec::new() };
        change(&mut last);
        Some(last)
    };
    for (what, answer) in [
        ("no proof", Answer { proven: false, ..honest.clone() }),
        ("no final record", Answer { last: None, ..honest.clone() }),
        ("a shorter body", Answer { content: content[1..].to_vec(), ..honest.clone() }),
        ("a longer body", Answer { content: [&content[..], b"x"].concat(), ..honest.clone() }),
        ("another length in the end", Answer { last: last(|last| last.length = 150_001), ..honest.clone() }),
        ("another length than the reference", Answer::whole(&content[1..])),
        ("nothing", Answer { content: Vec::new(), ..honest.clone() }),
    ] {
        let holder = FakeHolder::start(answer).await?;
        let reference = holder.reference(ReferenceKind::Put, 150_000)?;
        let call = get(&pair, &reference).send(pair.receiver.api());
        let reply = tokio::time::timeout(std::time::Duration::from_secs(30), call).await;
        let reply = reply.with_context(|| format!("{what}: hangs"))?.with_context(|| what)?;
        let complete = reply.status == 200 && reply.broken.is_none();
        ensure!(!complete, "{what}: a get ended as if complete");
        if reply.status != 200 {
            check::problem(&reply, 424, "payload-lost").with_context(|| what)?;
        }
        let reference = holder.reference(ReferenceKind::Request, 150_000)?;
        let (id, reply) = deferred_request(&pair, &reference, Protocol::Http1).await?;
        ensure!(matches!(reply.status.as_u16(), 400 | 502), "{what}: {} {}", reply.status, reply.text());
        ensure!(matches!(reply.code(), "resend-inline" | "payload-lost"), "{what}: {:?}", reply.headers);
        if !pair.function.runs.of(&id).is_empty() {
            let run = check::body_ended(&pair.function.runs, &id).await?;
            ensure!(run.end == zipline_testkit::function::BodyEnd::Aborted, "{what}: {run:?}");
        }
    }
    pair.hold_nothing().await
}
