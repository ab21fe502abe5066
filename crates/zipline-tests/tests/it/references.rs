//! References that must not be taken: at both doors that take any.

use anyhow::{Result, ensure};
use http::Method;
use zipline_protocol::{BootId, ReferenceKind};
use zipline_testkit::client::{Protocol, Reply};
use zipline_testkit::queue_proxy::{QueueProxy, TENANT, keyring};
use zipline_tests::check;
use zipline_tests::pair::{Pair, RECEIVER, fresh_id};

use crate::deferred::{deferred_request, get, open, put, record, ring};

/// The receiver asks for the payload inline and its function has not run.
fn resend_inline(pair: &Pair, id: &str, reply: &Reply, what: &str) -> Result<()> {
    ensure!(reply.status == 400, "{what}: {} {}", reply.status, reply.text());
    ensure!(reply.code() == "resend-inline", "{what}: {:?} {}", reply.headers, reply.text());
    ensure!(reply.header("zipline-opened").is_empty(), "{what}: proof of opening what was not opened");
    let runs = pair.function.runs.of(id);
    ensure!(runs.is_empty(), "{what}: the function ran: {runs:?}");
    ensure!(!check::shows_reference(&reply.text()), "{what}: the error shows the reference");
    Ok(())
}

fn flipped(reference: &str, at: usize) -> String {
    let mut bytes = reference.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_and_bit_flipped_ones_are_invalid() -> Result<()> {
    let pair = Pair::start().await?;
    let reference = put(&pair, "", 3, 10_000).await?;
    let mut bad: Vec<String> = [0, 1, 4, 10, reference.len() / 2, reference.len() - 1]
        .iter()
        .map(|length| reference[..*length].to_owned())
        .collect();
    // Characters 4 to 15 hold the key id: another one there is another tenant or an unknown key, tested below.
    bad.extend((0..4).chain(16..reference.len()).map(|at| flipped(&reference, at)));
    bad.push(format!("{reference}A"));
    bad.push("A".repeat(1025));
    for text in &bad {
        let reply = get(&pair, text).send(pair.receiver.api()).await?;
        // An empty header is no reference at all.
        let code = if text.is_empty() { reply.code().to_owned() } else { "reference-invalid".to_owned() };
        check::problem(&reply, 400, &code)?;
        if !text.is_empty() {
            let (id, reply) = deferred_request(&pair, text, Protocol::Http1).await?;
            resend_inline(&pair, &id, &reply, text)?;
        }
    }
    // The true one is still there, since none of these spent anything.
    check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 10_000)?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_deferred_request_does_not_reach_the_function() -> Result<()> {
    let pair = Pair::start().await?;
    for protocol in Protocol::ALL {
        let (id, reply) = deferred_request(&pair, "", protocol).await?;
        ensure!(reply.status == 400, "{} {}", reply.status, reply.text());
        ensure!(pair.function.runs.of(&id).is_empty(), "the function ran");
        let (id, reply) = deferred_request(&pair, &"A".repeat(2 << 20), protocol).await?;
        ensure!(reply.status == 400, "{} {}", reply.status, reply.text());
        ensure!(pair.function.runs.of(&id).is_empty(), "the function ran");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_another_tenant_they_are_forbidden() -> Result<()> {
    let pair = Pair::start().await?;
    for kind in [ReferenceKind::Put, ReferenceKind::Request] {
        // Sealed by the other tenant's own key, though the secret is the same.
        let sealed = ring("stranger", &[1])?.seal_reference(&record(kind, "stranger", pair.sender.data()))?;
        let reply = get(&pair, sealed.as_str()).send(pair.receiver.api()).await?;
        check::problem(&reply, 403, "reference-forbidden")?;
        let (id, reply) = deferred_request(&pair, sealed.as_str(), Protocol::Http1).await?;
        resend_inline(&pair, &id, &reply, "other tenant")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_unknown_key_they_are_invalid() -> Result<()> {
    let pair = Pair::start().await?;
    let sealed =
        ring(TENANT, &[9])?.seal_reference(&record(ReferenceKind::Put, TENANT, pair.sender.data()))?;
    check::problem(&get(&pair, sealed.as_str()).send(pair.receiver.api()).await?, 400, "reference-invalid")?;
    let sealed =
        ring(TENANT, &[9])?.seal_reference(&record(ReferenceKind::Request, TENANT, pair.sender.data()))?;
    let (id, reply) = deferred_request(&pair, sealed.as_str(), Protocol::Http1).await?;
    resend_inline(&pair, &id, &reply, "unknown key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_comes_within_the_wait_opens() -> Result<()> {
    let pair = Pair::start_with(|config| config.receiver.keyring = None).await?;
    let reference = put(&pair, "", 3, 10_000).await?;
    let (reply, installed) = tokio::join!(
        get(&pair, &reference).send(pair.receiver.api()),
        pair.receiver.install(keyring(TENANT, &[1], Some(1))),
    );
    installed?;
    check::answered(&reply?, 3, 10_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_another_kind_they_are_invalid() -> Result<()> {
    let pair = Pair::start().await?;
    let ours = ring(TENANT, &[1])?;
    for kind in [ReferenceKind::Request, ReferenceKind::Response] {
        let sealed = ours.seal_reference(&record(kind, TENANT, pair.sender.data()))?;
        let reply = get(&pair, sealed.as_str()).send(pair.receiver.api()).await?;
        check::problem(&reply, 400, "reference-invalid")?;
    }
    for kind in [ReferenceKind::Put, ReferenceKind::Response] {
        let sealed = ours.seal_reference(&record(kind, TENANT, pair.sender.data()))?;
        let (id, reply) = deferred_request(&pair, sealed.as_str(), Protocol::H2c).await?;
        resend_inline(&pair, &id, &reply, kind.as_str())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_another_boot_or_holder_they_are_lost() -> Result<()> {
    let pair = Pair::start().await?;
    let reference = put(&pair, "", 3, 10_000).await?;
    let ours = ring(TENANT, &[1])?;
    let mut other_boot = open(&reference, ReferenceKind::Put)?;
    other_boot.boot = BootId::from_bytes([9; 16]);
    let mut unheld = open(&reference, ReferenceKind::Put)?;
    unheld.payload = zipline_protocol::PayloadId::from_bytes([9; 16]);
    for mut record in [other_boot, unheld] {
        let sealed = ours.seal_reference(&record)?;
        let reply = get(&pair, sealed.as_str()).send(pair.receiver.api()).await?;
        check::problem(&reply, 424, "payload-lost")?;
        record.kind = ReferenceKind::Request;
        let sealed = ours.seal_reference(&record)?;
        let (id, reply) = deferred_request(&pair, sealed.as_str(), Protocol::Http1).await?;
        resend_inline(&pair, &id, &reply, "other boot or payload")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_with_other_keys_gives_nothing() -> Result<()> {
    let pair = Pair::start().await?;
    let reference = put(&pair, "?retrievals=5", 3, 10_000).await?;
    pair.sender.install(keyring(TENANT, &[7], Some(7))).await?;
    // The holder may take a moment to read its new keys; meanwhile the old ones are right.
    let reply = zipline_testkit::wait::until("the holder to forget its keys", || async {
        let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
        Ok((reply.status != 200).then_some(reply))
    })
    .await?;
    ensure!(
        matches!(reply.code(), "reference-forbidden" | "payload-lost"),
        "{} {}",
        reply.status,
        reply.text()
    );
    let mut request = open(&reference, ReferenceKind::Put)?;
    request.kind = ReferenceKind::Request;
    let sealed = ring(TENANT, &[1])?.seal_reference(&request)?;
    let (id, reply) = deferred_request(&pair, sealed.as_str(), Protocol::Http1).await?;
    resend_inline(&pair, &id, &reply, "holder with other keys")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_spent_and_released_ones_say_so() -> Result<()> {
    let pair = Pair::start().await?;
    let expiring = put(&pair, "?ttl=300ms", 3, 10_000).await?;
    let spent = put(&pair, "", 4, 10_000).await?;
    let released = put(&pair, "", 5, 10_000).await?;
    check::answered(&get(&pair, &spent).send(pair.receiver.api()).await?, 4, 10_000)?;
    let call = pair.sender.local(Protocol::Http1, Method::DELETE, "/v1/payload");
    let reply = call.header("zipline-reference", &released).send(pair.sender.api()).await?;
    ensure!(reply.status == 204, "{} {}", reply.status, reply.text());
    pair.hold_nothing().await?;
    for (reference, status, code) in [
        (&expiring, 410, "reference-expired"),
        (&spent, 409, "retrievals-exhausted"),
        (&released, 424, "payload-lost"),
    ] {
        check::problem(&get(&pair, reference).send(pair.receiver.api()).await?, status, code)?;
        let own = pair
            .sender
            .local(Protocol::Http1, Method::GET, "/v1/payload")
            .header("zipline-reference", reference);
        check::problem(&own.send(pair.sender.api()).await?, status, code)?;
    }
    Ok(())
}

/// A put reference that some function read in a JSON body cannot be made a request, whoever tries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_reference_cannot_be_injected_as_a_request() -> Result<()> {
    let pair = Pair::start().await?;
    let reference = put(&pair, "", 3, 10_000).await?;
    for protocol in Protocol::ALL {
        let (id, reply) = deferred_request(&pair, &reference, protocol).await?;
        resend_inline(&pair, &id, &reply, "injected")?;
        // Through its own queue-proxy a function cannot send such a message at all.
        for path in
            [format!("/v1/invoke/{RECEIVER}/sha256"), format!("http://{RECEIVER}.svc.cluster.local/sha256")]
        {
            let id = fresh_id();
            let basic = base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("zipline:{}", pair.sender.token),
            );
            let host = if path.starts_with('/') { "localhost" } else { "receiver.default.svc.cluster.local" };
            let call = pair.sender.local(protocol, Method::POST, path).host(host);
            let call = call
                .header("proxy-authorization", format!("Basic {basic}"))
                .header("content-type", "application/vnd.zipline.reference")
                .header("x-request-id", &id);
            let reply = call.bytes(reference.clone()).send(pair.sender.api()).await?;
            ensure!(reply.status == 400, "{} {}", reply.status, reply.text());
            ensure!(reply.code() == "request-invalid", "{:?}", reply.headers);
            ensure!(pair.function.runs.of(&id).is_empty(), "the function ran");
        }
    }
    // As data it passes, being only data.
    let (id, call) = pair.invoke(Protocol::Http1, "/echo");
    let reply = call.bytes(format!("{{\"frame\":\"{reference}\"}}")).send(pair.sender.api()).await?;
    check::succeeded(&reply)?;
    ensure!(reply.text().contains(&reference), "{}", reply.text());
    check::ran_once(&pair.function.runs, &id)?;
    check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 10_000)?;
    pair.hold_nothing().await
}

/// Nothing that a queue-proxy says of itself shows a reference or a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_logs_nor_status_nor_metrics_show_them() -> Result<()> {
    let pair = Pair::start_with(|config| {
        for side in [&mut config.sender, &mut config.receiver] {
            side.variables.push(("ZIPLINE_LOG".to_owned(), "trace".to_owned()));
        }
    })
    .await?;
    let reference = put(&pair, "?retrievals=2", 3, 10_000).await?;
    check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 10_000)?;
    get(&pair, &flipped(&reference, 40)).send(pair.receiver.api()).await?;
    let (_, call) = pair.invoke(Protocol::Http1, "/size?bytes=300000&seed=2");
    check::answered(&call.pattern(1, 300_000, true).send(pair.sender.api()).await?, 2, 300_000)?;
    for side in [&pair.sender, &pair.receiver] {
        let said = [side.process.log(), side.metrics().await?, admin(side, "/status").await?].concat();
        ensure!(!check::shows_reference(&said), "a reference shows");
        ensure!(!said.contains(&side.token), "the token shows");
        let key = keyring(TENANT, &[1], None).keys.remove(0).secret;
        ensure!(!said.contains(&key), "a key shows");
    }
    Ok(())
}

async fn admin(side: &QueueProxy, path: &str) -> Result<String> {
    let call = zipline_testkit::client::Call::new(Protocol::Http1, Method::GET, path);
    Ok(call.send(side.admin()).await?.text())
}
