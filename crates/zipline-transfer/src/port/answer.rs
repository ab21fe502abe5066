//! What a data port answers: proof first, then the operation.

use super::Shared;
use super::head::{Proof, RequestHead};
use super::slots::Slot;
use crate::Copies;
use futures_util::FutureExt as _;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use tokio::time::timeout;
use zipline_buffer::{LeaseRequest, PayloadPhase, PayloadReader, Store};
use zipline_protocol::data::Operation;
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{ErrorCode, PROBLEM_MEDIA_TYPE, PayloadId, Problem, ReferenceKind, header};
use zipline_seal::ProvenRequest;

/// The answer to one request.
pub(super) enum Answer {
    /// Whole, head and body, but for the line that says whether the connection stays.
    Short { head: String, body: String },
    /// Bytes follow.
    Payload(Box<Granted>),
}

/// A lease that was granted.
pub(super) struct Granted {
    pub(super) head: String,
    pub(super) reader: PayloadReader,
    pub(super) proven: ProvenRequest,
    /// How many bytes are asked for, if that is known.
    pub(super) span: Option<u64>,
    /// There for large sends.
    pub(super) slot: Option<Slot>,
}

/// Answers one request. Dropped when the peer closes the connection meanwhile.
pub(super) async fn answer(shared: &Shared, peer: IpAddr, request: &RequestHead) -> Answer {
    let (operation, proven) = match prove(shared, request).await {
        Ok(proven) => proven,
        Err(refusal) => {
            shared.counters.unproven_requests.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, status = refusal.status, detail = refusal.detail, "unproven data request");
            return problem(refusal.status, refusal.code, refusal.detail, None);
        }
    };
    shared.counters.proven_requests.fetch_add(1, Ordering::Relaxed);
    let asked = proven.request();
    if asked.boot != shared.config.boot {
        return refuse(&proven, 421, ErrorCode::PayloadLost, "the payload belongs to another process");
    }
    let source = Source::of(shared, &asked.payload);
    let store = source.store;
    let done = match operation {
        Operation::Retrieve => return retrieve(shared, &source, peer, request, proven).await,
        Operation::Part => {
            let asked = lease_request(&proven, peer);
            return match store.part(asked) {
                // Its lease was waited for.
                Ok(reader) => {
                    let slot = is_large(shared, store, &asked).then(|| shared.slots.take_now(asked.lease));
                    granted(shared, &source, reader, proven, slot)
                }
                Err(error) => refuse(&proven, error.data_status(), error.code(), &error.to_string()),
            };
        }
        Operation::Share => {
            return refuse(&proven, 404, ErrorCode::NotFound, "memory is shared on the host's own socket");
        }
        Operation::Acknowledge => store.acknowledge(&asked.payload, &asked.lease).map(|delivered| {
            shared.spread.done(&asked.payload, &asked.lease);
            // Of a copy, the holder tells.
            let delivered = delivered.filter(|_| !source.is_copy);
            if let (Some(delivered), Some(told)) = (delivered, shared.on_delivered.get()) {
                told.0(delivered);
            }
        }),
        Operation::Cancel => {
            shared.spread.left(&asked.payload, &asked.lease);
            store.cancel(&asked.payload, &asked.lease)
        }
        Operation::Alive => store.alive(&asked.payload, &asked.lease, asked.from).map(|()| {
            shared.spread.lives(&asked.payload, &asked.lease);
        }),
    };
    match done {
        Ok(()) => {
            Answer::Short { head: start(204, Some(&proven.sign_reply(204, Some(0)))), body: String::new() }
        }
        Err(error) => refuse(&proven, error.data_status(), error.code(), &error.to_string()),
    }
}

/// Where a payload is read from.
struct Source<'a> {
    store: &'a Store,
    /// It is held elsewhere.
    is_copy: bool,
}

impl<'a> Source<'a> {
    fn of(shared: &'a Shared, payload: &PayloadId) -> Self {
        let copies = shared.copies.get().map(Copies::store);
        match copies.filter(|copies| copies.info(payload).is_some()) {
            Some(store) => Self { store, is_copy: true },
            None => Self { store: &shared.store, is_copy: false },
        }
    }
}

/// Takes or resumes a lease. A large payload waits its turn before, so that a lease that is there is sent at once.
async fn retrieve(
    shared: &Shared,
    source: &Source<'_>,
    peer: IpAddr,
    request: &RequestHead,
    proven: ProvenRequest,
) -> Answer {
    let (store, asked) = (source.store, lease_request(&proven, peer));
    // A lease that runs has had its turn, and its receiver would take more waiting for the holder's silence.
    let runs = store.alive(&asked.payload, &asked.lease, 0).is_ok();
    if runs {
        shared.spread.came_back(&asked.payload, &asked.lease);
    } else if let Some(offer) = offer(shared, source, request, &proven) {
        let tls = shared.config.certificate.is_some();
        if let Some(relay) = shared.spread.assign(&asked.payload, asked.lease, offer, tls) {
            return name_relay(shared, asked, &proven, &relay).await;
        }
    }
    let mut slot = None;
    if is_large(shared, store, &asked) {
        if runs {
            slot = Some(shared.slots.take_now(asked.lease));
        } else {
            match timeout(shared.config.send_wait, shared.slots.take(peer, asked.lease)).await {
                Ok(Ok(taken)) => slot = Some(taken),
                Ok(Err(_)) | Err(_) => {
                    shared.spread.left(&asked.payload, &asked.lease);
                    return busy(shared, &proven);
                }
            }
        }
    }
    let mut leasing = pin!(store.lease(asked));
    let leased = match (&mut leasing).now_or_never() {
        Some(leased) => leased,
        None => {
            // Whoever waits for a lease to end lets others be sent to.
            slot = None;
            leasing.await
        }
    };
    match leased {
        Ok(reader) => {
            // That lease was sent to until now: this one takes its place.
            let slot =
                slot.or_else(|| is_large(shared, store, &asked).then(|| shared.slots.take_now(asked.lease)));
            granted(shared, source, reader, proven, slot)
        }
        Err(error) => {
            shared.spread.left(&asked.payload, &asked.lease);
            refuse(&proven, error.data_status(), error.code(), &error.to_string())
        }
    }
}

/// Where the receiver would serve a copy, if it says so and the payload is one for many that is held here.
fn offer(
    shared: &Shared,
    source: &Source<'_>,
    request: &RequestHead,
    proven: &ProvenRequest,
) -> Option<CopyPlace> {
    let value = request.copy.as_deref().filter(|_| !source.is_copy && proven.request().from == 0)?;
    let info = source.store.info(&proven.request().payload)?;
    let is_large = info.length.is_some_and(|length| length >= shared.config.relay_min_bytes);
    if is_large && info.kind == ReferenceKind::Put { proven.verify_offer(value) } else { None }
}

/// Grants the lease, whose bytes are to be had from `relay`. It runs like one whose connection broke: the receiver may come back.
async fn name_relay(
    shared: &Shared,
    asked: LeaseRequest,
    proven: &ProvenRequest,
    relay: &CopyPlace,
) -> Answer {
    match shared.store.lease(asked).await {
        Ok(reader) => {
            drop(reader);
            shared.spread.lives(&asked.payload, &asked.lease);
            shared.counters.relayed.fetch_add(1, Ordering::Relaxed);
            let mut head = start(307, Some(&proven.sign_reply(307, Some(0))));
            field(&mut head, header::RELAY, &proven.sign_relay(relay));
            field(&mut head, "content-length", "0");
            Answer::Short { head, body: String::new() }
        }
        Err(error) => {
            shared.spread.left(&asked.payload, &asked.lease);
            refuse(proven, error.data_status(), error.code(), &error.to_string())
        }
    }
}

fn lease_request(proven: &ProvenRequest, peer: IpAddr) -> LeaseRequest {
    let asked = proven.request();
    LeaseRequest { payload: asked.payload, lease: asked.lease, peer, from: asked.from, to: asked.to }
}

/// Whether so much of the payload is there to be sent that it is a large send. One that still fills goes at its sender's pace.
fn is_large(shared: &Shared, store: &Store, asked: &LeaseRequest) -> bool {
    let Some(info) = store.info(&asked.payload) else { return false };
    let Some(length) = info.length.filter(|_| info.phase != PayloadPhase::Filling) else { return false };
    let end = asked.to.map_or(length, |to| to.min(length));
    end.saturating_sub(asked.from) >= shared.config.large_send_bytes
}

fn busy(shared: &Shared, proven: &ProvenRequest) -> Answer {
    shared.counters.refused_sends.fetch_add(1, Ordering::Relaxed);
    let detail = format!(
        "{} large payloads are being sent from here, which is the most at a time, and {} requests wait: ask again",
        shared.slots.running(),
        shared.slots.waiting()
    );
    refuse(proven, 429, ErrorCode::BufferFull, &detail)
}

struct Refusal {
    status: u16,
    code: ErrorCode,
    detail: &'static str,
}

impl Refusal {
    const fn new(status: u16, code: ErrorCode, detail: &'static str) -> Self {
        Self { status, code, detail }
    }
}

async fn prove(shared: &Shared, request: &RequestHead) -> Result<(Operation, ProvenRequest), Refusal> {
    let invalid = |status, detail| Refusal::new(status, ErrorCode::RequestInvalid, detail);
    let operation = Operation::ALL.into_iter().find(|operation| operation.path() == request.target);
    let operation = operation.ok_or(Refusal::new(404, ErrorCode::NotFound, "no such operation"))?;
    if request.method != "POST" {
        return Err(invalid(405, "operations are POST"));
    }
    if request.has_body {
        return Err(invalid(400, "operations have no body"));
    }
    let malformed = Refusal::new(400, ErrorCode::ReferenceInvalid, "malformed proof");
    let proof = match &request.proof {
        Proof::Missing => {
            return Err(Refusal::new(403, ErrorCode::ReferenceForbidden, "no proof of the tenant's key"));
        }
        Proof::Malformed => return Err(malformed),
        Proof::Value(proof) => proof,
    };
    match shared.keyring.verify_request_waiting(operation, proof).await {
        Ok(proven) => Ok((operation, proven)),
        Err(error) if error.code() == ErrorCode::ReferenceInvalid => Err(malformed),
        Err(error) => Err(Refusal::new(403, error.code(), "wrong proof of the tenant's key")),
    }
}

fn granted(
    shared: &Shared,
    source: &Source<'_>,
    reader: PayloadReader,
    proven: ProvenRequest,
    slot: Option<Slot>,
) -> Answer {
    shared.counters.sends.fetch_add(1, Ordering::Relaxed);
    shared.counters.copy_sends.fetch_add(u64::from(source.is_copy), Ordering::Relaxed);
    let (from, to) = (proven.request().from, proven.request().to);
    let length = reader.payload_length();
    let named = length.map_or_else(|| "*".to_owned(), |length| length.to_string());
    let mut head = start(200, Some(&proven.sign_reply(200, length)));
    field(&mut head, header::LENGTH, &named);
    field(&mut head, "content-type", "application/octet-stream");
    // Only a chunked body has room for the final record.
    field(&mut head, "transfer-encoding", "chunked");
    field(&mut head, "trailer", "zipline-final, zipline-trailers");
    let span = length.map(|length| to.map_or(length, |to| to.min(length)).saturating_sub(from));
    Answer::Payload(Box::new(Granted { head, reader, proven, span, slot }))
}

fn refuse(proven: &ProvenRequest, status: u16, code: ErrorCode, detail: &str) -> Answer {
    problem(status, code, detail, Some(&proven.sign_reply(status, Some(0))))
}

/// A refusal as a problem document.
pub(super) fn problem(status: u16, code: ErrorCode, detail: &str, proof: Option<&str>) -> Answer {
    let body = Problem::new(code, status, detail).to_json();
    let mut head = start(status, proof);
    field(&mut head, "content-type", PROBLEM_MEDIA_TYPE);
    field(&mut head, "content-length", &body.len().to_string());
    field(&mut head, header::ERROR, code.as_str());
    Answer::Short { head, body }
}

fn start(status: u16, proof: Option<&str>) -> String {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default());
    if let Some(proof) = proof {
        field(&mut head, header::AUTH_REPLY, proof);
    }
    head
}

/// Codes, numbers and base64url are header values; nothing of the peer's is ever written here.
fn field(head: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        head.push_str(part);
    }
}
