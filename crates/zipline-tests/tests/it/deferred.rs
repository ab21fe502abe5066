//! Deferred messages made and taken by hand, as the wire document describes them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use zipline_protocol::{BootId, PayloadId, Record, ReferenceKind, ReferenceText, Retrievals};
use zipline_seal::{Keyring, KeyringUpdate};
use zipline_testkit::client::{Call, Protocol, Reply};
use zipline_testkit::queue_proxy::{TENANT, keyring};
use zipline_tests::pair::{Pair, fresh_id};

/// A keyring with the test keys of these serials, sealing with the first.
pub(crate) fn ring(tenant: &str, serials: &[u32]) -> Result<Keyring> {
    let ring = Keyring::new(tenant);
    let message = keyring(tenant, serials, serials.first().copied());
    ring.install(KeyringUpdate::try_from(&message).context("secrets")?).context("install")?;
    Ok(ring)
}

/// A record that names a payload which nobody holds.
pub(crate) fn record(kind: ReferenceKind, tenant: &str, holder: SocketAddr) -> Record {
    Record {
        kind,
        payload: PayloadId::from_bytes([7; 16]),
        boot: BootId::from_bytes([8; 16]),
        addresses: vec![holder],
        length: Some(1_000_000),
        expiry_unix_ms: None,
        retrievals: Retrievals::Limited(1),
        digest: None,
        binding: None,
        certificate: None,
        zone: String::new(),
        tenant: tenant.to_owned(),
        content_type: None,
    }
}

/// Puts `length` bytes of the pattern `seed` at the sender and answers with the reference.
pub(crate) async fn put(pair: &Pair, query: &str, seed: u64, length: u64) -> Result<String> {
    let path = format!("/v1/payloads{query}");
    let call = pair.sender.local(Protocol::Http1, Method::POST, path).header("content-type", "text/x-put");
    let reply = call.pattern(seed, length, true).send(pair.sender.api()).await?;
    anyhow::ensure!(reply.status == 201, "{} {}", reply.status, reply.text());
    let document = reply.json()?;
    let reference = document["reference"].as_str().context("no reference")?;
    anyhow::ensure!(reply.header("zipline-reference") == reference, "the header names another reference");
    Ok(reference.to_owned())
}

/// What is sealed in a reference of the test keys.
pub(crate) fn open(reference: &str, kind: ReferenceKind) -> Result<Record> {
    let text = ReferenceText::parse(reference).context("text")?;
    ring(TENANT, &[1, 2, 3])?.open_reference(&text, kind).context("open")
}

/// Sends `reference` to the receiver's inbound side as a deferred request, as a sender's queue-proxy would.
pub(crate) async fn deferred_request(
    pair: &Pair,
    reference: &str,
    protocol: Protocol,
) -> Result<(String, Reply)> {
    let id = fresh_id();
    let call = Call::new(protocol, Method::POST, "/sha256")
        .header("x-request-id", &id)
        .header("content-type", "application/vnd.zipline.reference")
        .header("user-agent", "Knative-Activator-Probe zipline/1")
        .host("receiver.default.svc.cluster.local")
        .bytes(reference.to_owned());
    let sent = tokio::time::timeout(Duration::from_secs(30), call.send(pair.receiver.inbound()));
    Ok((id, sent.await.context("no answer")??))
}

/// Asks the local API of the receiver for the payload of a reference.
pub(crate) fn get(pair: &Pair, reference: &str) -> Call {
    let call = pair.receiver.local(Protocol::Http1, Method::GET, "/v1/payload");
    call.header("zipline-reference", reference)
}
