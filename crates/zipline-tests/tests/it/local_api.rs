//! The local API: what a function may ask of its own queue-proxy, and what it is told when it may not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use zipline_testkit::client::{Call, Protocol, Reply};
use zipline_testkit::queue_proxy::QueueProxy;
use zipline_testkit::{body, pattern, wait};
use zipline_tests::check;
use zipline_tests::pair::Pair;

use crate::deferred::{get, put};

fn own_get(side: &QueueProxy, reference: &str) -> Call {
    side.local(Protocol::Http1, Method::GET, "/v1/payload").header("zipline-reference", reference)
}

fn delete(side: &QueueProxy, reference: &str) -> Call {
    side.local(Protocol::Http1, Method::DELETE, "/v1/payload").header("zipline-reference", reference)
}

fn putting(side: &QueueProxy, query: &str) -> Call {
    side.local(Protocol::Http1, Method::POST, format!("/v1/payloads{query}"))
}

fn reference_of(reply: &Reply) -> Result<String> {
    ensure!(reply.status == 201, "{} {}", reply.status, reply.text());
    Ok(reply.header("zipline-reference").to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_get_and_the_second_get_is_409() -> Result<()> {
    let pair = Pair::start().await?;
    for length in [1, 10_000, 1 << 20, 5_000_000] {
        let reference = put(&pair, "", 3, length).await?;
        let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
        check::answered(&reply, 3, length)?;
        ensure!(reply.header("content-type") == "text/x-put", "{:?}", reply.headers);
        ensure!(reply.header("cache-control").contains("no-store"), "{:?}", reply.headers);
        let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
        check::problem(&reply, 409, "retrievals-exhausted")?;
        let reference = put(&pair, "", 4, length).await?;
        check::answered(&own_get(&pair.sender, &reference).send(pair.sender.api()).await?, 4, length)?;
        let reply = own_get(&pair.sender, &reference).send(pair.sender.api()).await?;
        check::problem(&reply, 409, "retrievals-exhausted")?;
    }
    pair.hold_nothing().await?;
    ensure!(pair.gateway.traffic.total() == 0, "puts went through the gateway");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_h2c_and_the_unix_socket() -> Result<()> {
    let pair = Pair::start().await?;
    let call = pair.sender.local(Protocol::H2c, Method::POST, "/v1/payloads").pattern(3, 300_000, false);
    let reference = reference_of(&call.send(pair.sender.api()).await?)?;
    let call = pair.receiver.local(Protocol::H2c, Method::GET, "/v1/payload");
    let reply = call.header("zipline-reference", &reference).send(pair.receiver.api()).await?;
    check::answered(&reply, 3, 300_000)?;
    let reply = putting(&pair.sender, "")
        .pattern(3, 300_000, true)
        .open_unix(&pair.sender.socket)
        .await?
        .read()
        .await;
    let reference = reference_of(&reply)?;
    let reply = own_get(&pair.receiver, &reference).open_unix(&pair.receiver.socket).await?.read().await;
    check::answered(&reply, 3, 300_000)?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_spend_nothing() -> Result<()> {
    let pair = Pair::start().await?;
    let length: usize = 1_500_000;
    let reference = put(&pair, "", 3, length as u64).await?;
    let whole = pattern::bytes(3, 0, length);
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=10-99", 10, 100),
        ("bytes=1000000-", 1_000_000, length),
        ("bytes=-7", length - 7, length),
        ("bytes=5-99999999", 5, length),
        ("bytes=0-", 0, length),
    ] {
        for side in [&pair.sender, &pair.receiver] {
            let reply = own_get(side, &reference).header("range", range).send(side.api()).await?;
            ensure!(
                reply.status == 206 && reply.broken.is_none(),
                "{range}: {} {}",
                reply.status,
                reply.text()
            );
            ensure!(reply.bytes == whole[from..to], "{range}: other bytes");
            let expected = format!("bytes {from}-{}/{length}", to - 1);
            ensure!(reply.header("content-range") == expected, "{range}: {:?}", reply.headers);
        }
    }
    for range in [
        "bytes=1500000-",
        "bytes=9-5",
        "bytes=-0",
        "bytes=--1",
        "bytes=-5-10",
        "bytes=0-18446744073709551615",
        "bytes=18446744073709551616-",
        "bytes=99999999999999999999999999-",
        "bytes=0-1,3-4",
        "lines=0-1",
        "bytes",
        "",
    ] {
        let reply =
            own_get(&pair.receiver, &reference).header("range", range).send(pair.receiver.api()).await?;
        check::problem(&reply, 416, "range-invalid").with_context(|| range)?;
    }
    check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, length as u64)?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_in_the_query_is_refused_by_name() -> Result<()> {
    let pair = Pair::start().await?;
    for (query, name) in [
        ("ttl=-1s", "ttl"),
        ("ttl=0s", "ttl"),
        ("ttl=1", "ttl"),
        ("ttl=", "ttl"),
        ("ttl=99999999999999999999s", "ttl"),
        ("ttl=18446744073709551615h", "ttl"),
        ("ttl=1e9s", "ttl"),
        ("ttl=30s&ttl=31s", "ttl"),
        ("retrievals=-1", "retrievals"),
        ("retrievals=0", "retrievals"),
        ("retrievals=1000001", "retrievals"),
        ("retrievals=4294967296", "retrievals"),
        ("retrievals=18446744073709551617", "retrievals"),
        ("retrievals=many", "retrievals"),
        ("retrievals=1.5", "retrievals"),
        ("linger=61s", "linger"),
        ("linger=-1s", "linger"),
        ("wait=61s", "wait"),
        ("wait=-1s", "wait"),
        ("colour=red", "colour"),
    ] {
        let reply = putting(&pair.sender, &format!("?{query}"))
            .pattern(1, 1000, true)
            .send(pair.sender.api())
            .await?;
        check::problem(&reply, 400, "request-invalid").with_context(|| query)?;
        ensure!(reply.text().contains(name), "{query}: {}", reply.text());
    }
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_states_the_expiry_that_applies() -> Result<()> {
    let pair = Pair::start().await?;
    for (query, seconds, bound) in
        [("", 60.0, "requested"), ("?ttl=90s", 90.0, "requested"), ("?ttl=2h", 3600.0, "maximum")]
    {
        let reply = putting(&pair.sender, query).pattern(1, 1000, true).send(pair.sender.api()).await?;
        let document = reply.json()?;
        ensure!(document["ttl_seconds"] == seconds, "{query}: {document}");
        ensure!(document["bounded_by"] == bound, "{query}: {document}");
        ensure!(
            document["expires_at"].as_u64().is_some_and(|at| at > 1_700_000_000_000),
            "{query}: {document}"
        );
        ensure!(document["length"] == 1000 && document["retrievals"] == 1, "{query}: {document}");
        let reply = delete(&pair.sender, &reference_of(&reply)?).send(pair.sender.api()).await?;
        ensure!(reply.status == 204, "{} {}", reply.status, reply.text());
    }
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outsiders_reach_nothing() -> Result<()> {
    let pair = Pair::start().await?;
    let api = pair.sender.api();
    for (method, path) in [
        (Method::POST, "/v1/payloads"),
        (Method::GET, "/v1/payload"),
        (Method::DELETE, "/v1/payload"),
        (Method::POST, "/v1/invoke/receiver.default/sha256"),
        (Method::GET, "/v1/nothing"),
    ] {
        for protocol in Protocol::ALL {
            let reply = Call::new(protocol, method.clone(), path).send(api).await?;
            check::problem(&reply, 401, "token-missing")?;
            let call =
                Call::new(protocol, method.clone(), path).header("zipline-token", &pair.receiver.token);
            check::problem(&call.send(api).await?, 401, "token-missing")?;
            // A page that a browser or a fetching function was led to has the token at best, never the right host.
            for host in
                ["evil.example", "169.254.169.254", "localhost.evil.example", "127.0.0.1.evil.example"]
            {
                let call = pair.sender.local(protocol, method.clone(), path).host(host);
                let reply = call.send(api).await?;
                // On h2c there is no telling such a request from one to the forward proxy, which wants its own proof.
                let (status, code) =
                    if protocol == Protocol::H2c { (407, "token-missing") } else { (400, "request-invalid") };
                check::problem(&reply, status, code).with_context(|| host)?;
            }
        }
    }
    for host in ["localhost", "127.0.0.1", "LOCALHOST:80", "[::1]:9"] {
        let reply = putting(&pair.sender, "").host(host).pattern(1, 10, true).send(api).await?;
        let reply = delete(&pair.sender, &reference_of(&reply)?).send(api).await?;
        ensure!(reply.status == 204, "{host}: {} {}", reply.status, reply.text());
    }
    ensure!(pair.function.runs.all().is_empty(), "the function ran");
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_methods_and_functions() -> Result<()> {
    let pair = Pair::start().await?;
    let api = pair.sender.api();
    let call = |method, path: &str| pair.sender.local(Protocol::Http1, method, path).send(api);
    check::problem(&call(Method::GET, "/v1/nothing").await?, 404, "not-found")?;
    check::problem(&call(Method::PUT, "/v1/payloads").await?, 400, "request-invalid")?;
    check::problem(&call(Method::POST, "/v1/payload").await?, 400, "request-invalid")?;
    check::problem(&call(Method::GET, "/v1/payload").await?, 400, "request-invalid")?;
    for name in ["", "receiver", "receiver.", ".default", "a.b.c", "UPPER.default", "re_ceiver.default"] {
        let reply = call(Method::POST, &format!("/v1/invoke/{name}/x")).await?;
        check::problem(&reply, 400, "request-invalid").with_context(|| name.to_owned())?;
    }
    // What the platform says of an unknown function is the platform's word.
    let reply = call(Method::POST, "/v1/invoke/nobody.default/x").await?;
    ensure!(reply.status == 404 && reply.code().is_empty(), "{} {}", reply.status, reply.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_of_no_bytes() -> Result<()> {
    let pair = Pair::start().await?;
    for known in [true, false] {
        let reply =
            putting(&pair.sender, "?retrievals=2").pattern(1, 0, known).send(pair.sender.api()).await?;
        let reference = reference_of(&reply)?;
        let reply = get(&pair, &reference).header("range", "bytes=0-0").send(pair.receiver.api()).await?;
        check::problem(&reply, 416, "range-invalid")?;
        check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 1, 0)?;
        check::answered(&own_get(&pair.sender, &reference).send(pair.sender.api()).await?, 1, 0)?;
        let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
        check::problem(&reply, 409, "retrievals-exhausted")?;
        let (id, call) = pair.invoke(Protocol::Http1, "/size?bytes=0");
        check::answered(&call.pattern(1, 0, known).send(pair.sender.api()).await?, 1, 0)?;
        check::arrived(&pair.function.runs, &id, 1, 0)?;
    }
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retrievals_are_counted() -> Result<()> {
    let pair = Pair::start().await?;
    let reference = put(&pair, "?retrievals=3", 3, 200_000).await?;
    for _ in 0..3 {
        check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 200_000)?;
    }
    let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
    check::problem(&reply, 409, "retrievals-exhausted")?;
    pair.hold_nothing().await?;
    let reference = put(&pair, "?retrievals=unlimited", 3, 200_000).await?;
    for _ in 0..10 {
        check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 200_000)?;
    }
    let reply = delete(&pair.sender, &reference).send(pair.sender.api()).await?;
    ensure!(reply.status == 204, "{} {}", reply.status, reply.text());
    check::problem(&get(&pair, &reference).send(pair.receiver.api()).await?, 424, "payload-lost")?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_gets_never_deliver_more_than_allowed() -> Result<()> {
    let pair = Pair::start().await?;
    let reference = put(&pair, "?retrievals=5", 3, 2_000_000).await?;
    let gets = (0..12).map(|_| get(&pair, &reference).send(pair.receiver.api()));
    let mut delivered = 0;
    for reply in futures_util::future::join_all(gets).await {
        let reply = reply?;
        if reply.status == 200 {
            check::answered(&reply, 3, 2_000_000)?;
            delivered += 1;
        } else {
            check::problem(&reply, 409, "retrievals-exhausted")?;
        }
    }
    ensure!(delivered == 5, "{delivered} deliveries in place of 5");
    pair.hold_nothing().await
}

/// A get that is given up spends nothing, and who waited for its lease gets the payload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_surplus_get_waits_for_a_running_lease() -> Result<()> {
    const LENGTH: u64 = 48 << 20;
    let pair = Pair::start().await?;
    let reference = put(&pair, "", 3, LENGTH).await?;
    let mut first = get(&pair, &reference).open(pair.receiver.api()).await?;
    ensure!(first.response.status() == 200, "{:?}", first.response);
    first.next().await?.context("no bytes")?;
    let second = get(&pair, &reference).send(pair.receiver.api());
    let mut second = std::pin::pin!(second);
    // While the first one runs the second one gets no answer.
    let early = tokio::time::timeout(Duration::from_millis(300), second.as_mut()).await;
    ensure!(early.is_err(), "the second did not wait: {early:?}");
    drop(first);
    check::answered(&second.await?, 3, LENGTH)?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_and_linger_end() -> Result<()> {
    let pair = Pair::start().await?;
    put(&pair, "?ttl=200ms&retrievals=unlimited", 3, 200_000).await?;
    // While it lingers, a retry of a retrieval that was acknowledged but never arrived is granted; not afterwards.
    let reference = put(&pair, "?linger=2s", 3, 200_000).await?;
    check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 200_000)?;
    check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 200_000)?;
    pair.hold_nothing().await?;
    let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
    check::problem(&reply, 409, "retrievals-exhausted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_makes_puts_wait_in_order() -> Result<()> {
    const LENGTH: u64 = 700_000;
    let pair = Pair::start_with(|config| config.sender.budget_bytes = 1 << 20).await?;
    let api = pair.sender.api();
    let first = put(&pair, "", 1, LENGTH).await?;
    for known in [true, false] {
        let reply = putting(&pair.sender, "?wait=0s").pattern(2, LENGTH, known).send(api).await?;
        check::problem(&reply, 507, "buffer-full")?;
        let reply = putting(&pair.sender, "?wait=200ms").pattern(2, LENGTH, known).send(api).await?;
        check::problem(&reply, 507, "buffer-full")?;
    }
    // Two wait; each takes its turn when the one before it is released.
    let mut second = std::pin::pin!(putting(&pair.sender, "?wait=30s").pattern(2, LENGTH, true).send(api));
    let waits = tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await;
    ensure!(waits.is_err(), "it did not wait: {waits:?}");
    let mut third = std::pin::pin!(putting(&pair.sender, "?wait=30s").pattern(3, LENGTH, true).send(api));
    let waits = tokio::time::timeout(Duration::from_millis(200), third.as_mut()).await;
    ensure!(waits.is_err(), "it did not wait: {waits:?}");
    ensure!(delete(&pair.sender, &first).send(api).await?.status == 204, "no release");
    let second = tokio::select! {
        reply = second => reference_of(&reply?)?,
        reply = &mut third => anyhow::bail!("the later one came first: {reply:?}"),
    };
    check::answered(&get(&pair, &second).send(pair.receiver.api()).await?, 2, LENGTH)?;
    let third = reference_of(&third.await?)?;
    check::answered(&get(&pair, &third).send(pair.receiver.api()).await?, 3, LENGTH)?;
    let status = pair.sender.holds_nothing().await?;
    ensure!(status.held.peak_bytes <= status.held.budget_bytes, "{:?}", status.held);
    pair.hold_nothing().await
}

/// With a full buffer an invoke goes inline at once, and nothing that was accepted is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_makes_invokes_go_inline() -> Result<()> {
    let pair = Pair::start_with(|config| config.sender.budget_bytes = 1 << 20).await?;
    let held = put(&pair, "", 1, 1 << 20).await?;
    let (id, call) = pair.invoke(Protocol::Http1, "/size?bytes=10");
    check::answered(&call.pattern(2, 500_000, true).send(pair.sender.api()).await?, 1, 10)?;
    check::arrived(&pair.function.runs, &id, 2, 500_000)?;
    let status = pair.sender.status().await?;
    ensure!(status.inline_because("request", "buffer-full") == 1, "{:?}", status.transfers);
    check::answered(&get(&pair, &held).send(pair.receiver.api()).await?, 1, 1 << 20)?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_fit_is_too_large_at_once() -> Result<()> {
    let pair = Pair::start_with(|config| config.sender.budget_bytes = 4 << 20).await?;
    let api = pair.sender.api();
    for known in [true, false] {
        let reply = putting(&pair.sender, "?wait=60s").pattern(1, 9 << 20, known).send(api).await?;
        check::problem(&reply, 413, "payload-too-large")?;
    }
    // 5 GB are refused by their announcement; no byte of them is asked for.
    let (sender, content) = body::channel();
    let call = putting(&pair.sender, "?wait=60s").header("content-length", "5000000000").body(content);
    let reply = call.open(api).await?.read().await;
    check::problem(&reply, 413, "payload-too-large")?;
    drop(sender);
    // And it goes on serving.
    let reference = put(&pair, "", 1, 1 << 20).await?;
    check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 1, 1 << 20)?;
    let status = pair.sender.holds_nothing().await?;
    ensure!(status.held.peak_bytes <= status.held.budget_bytes, "{:?}", status.held);
    Ok(())
}

/// A put that breaks off leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_breaks_off_is_forgotten() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, content) = body::channel();
    let call = putting(&pair.sender, "").header("content-length", "1000000").body(content);
    sender.send(Ok(http_body::Frame::data(pattern::bytes(1, 0, 500_000)))).await.ok().context("not read")?;
    let put = call.send(pair.sender.api());
    let break_off = async {
        wait::until("the first half to be held", || async {
            Ok((pair.sender.status().await?.held.bytes > 0).then_some(()))
        })
        .await?;
        drop(sender.send(Err(body::BodyError::new("broken off on purpose"))).await);
        anyhow::Ok(())
    };
    let (put, broken) = tokio::join!(put, break_off);
    broken?;
    ensure!(put.as_ref().map_or(true, |reply| reply.status == 400), "{put:?}");
    pair.hold_nothing().await
}
