//! Messages that are too much, lie about themselves, or come from outside.

use anyhow::{Context, Result, ensure};
use http::Method;
use http_body::Frame;
use zipline_testkit::client::{Call, Protocol};
use zipline_testkit::function::BodyEnd;
use zipline_testkit::raw::Raw;
use zipline_testkit::{body, pattern, wait};
use zipline_tests::check;
use zipline_tests::pair::{Pair, RECEIVER, fresh_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_bombs_are_431() -> Result<()> {
    let pair = Pair::start().await?;
    for (at, path) in [
        (pair.receiver.inbound(), "/sha256".to_owned()),
        (pair.sender.api(), format!("/v1/invoke/{RECEIVER}/sha256")),
    ] {
        for protocol in Protocol::ALL {
            let call = || Call::new(protocol, Method::GET, &path).header("zipline-token", &pair.sender.token);
            let many = (0..300).fold(call(), |call, index| call.header(&format!("x-bomb-{index}"), "x"));
            let large = (0..30)
                .fold(call(), |call, index| call.header(&format!("x-bomb-{index}"), "x".repeat(10_000)));
            for (what, bomb) in [("many", many), ("large", large)] {
                let reply = bomb.send(at).await.with_context(|| format!("{what} {protocol:?} {path}"))?;
                ensure!(reply.status == 431, "{what} {protocol:?} {path}: {} {}", reply.status, reply.text());
            }
            // As much as is allowed passes.
            let (id, call) = (fresh_id(), call().header("x-request-id", "allowed"));
            let call =
                (0..200).fold(call, |call, index| call.header(&format!("x-h-{index}"), "x".repeat(500)));
            let reply = call.header("x-id", &id).send(at).await?;
            ensure!(reply.status == 200, "{protocol:?} {path}: {} {}", reply.status, reply.text());
        }
    }
    let mut raw = Raw::connect(pair.receiver.inbound()).await?;
    // The peer may answer and close before everything is sent.
    drop(raw.send(format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20))).await);
    let status = raw.head().await.map(|head| head.status);
    ensure!(status.as_ref().map_or(true, |status| matches!(*status, 400 | 414 | 431)), "{status:?}");
    let runs = pair.function.runs.all();
    ensure!(runs.iter().all(|run| run.id == "allowed"), "the function ran: {runs:?}");
    pair.hold_nothing().await
}

/// What only Zipline's processes may say is not believed of anybody else, and the function does not see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zipline_headers_from_outside_do_not_reach_the_function() -> Result<()> {
    let pair = Pair::start().await?;
    let forged = |call: Call| {
        call.header("zipline-version", "1")
            .header("zipline-opened", "AAAAAAAAAAAAAAAAAAAAAA")
            .header("zipline-accept", "zla1.AAAA")
            .header("zipline-error", "resend-inline")
            .header("zipline-cache-control", "no-store")
            .header("zipline-reference", "zl1.AAAA")
            .header("zipline-auth", "v=1")
            .header("zipline-anything", "x")
    };
    for protocol in Protocol::ALL {
        let id = fresh_id();
        let call = Call::new(protocol, Method::POST, "/size?bytes=300000&seed=5").header("x-request-id", &id);
        let reply = forged(call)
            .header("zipline-token", "x")
            .pattern(4, 500, true)
            .send(pair.receiver.inbound())
            .await?;
        // An answer to an outsider has its payload in it.
        ensure!(reply.status == 200 && reply.sha256 == pattern::sha256(5, 300_000), "{reply:?}");
        let run = check::arrived(&pair.function.runs, &id, 4, 500)?;
        ensure!(run.zipline_headers.is_empty(), "{run:?}");
        let (id, call) = pair.invoke(protocol, "/size?bytes=300000&seed=5");
        check::answered(&forged(call).pattern(4, 500, true).send(pair.sender.api()).await?, 5, 300_000)?;
        let run = check::arrived(&pair.function.runs, &id, 4, 500)?;
        ensure!(run.zipline_headers.is_empty(), "{run:?}");
    }
    let metrics = pair.receiver.metrics().await?;
    ensure!(
        metrics.lines().any(|line| line.contains("strip") && !line.ends_with(" 0")),
        "not counted:\n{metrics}"
    );
    pair.hold_nothing().await
}

/// Clients that stop in the middle of a body hold up nobody but themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_clients_hold_up_nobody() -> Result<()> {
    let pair = Pair::start().await?;
    let mut stalled = Vec::new();
    for declared in [10_000_u64, 1_000_000, 30_000_000] {
        for protocol in Protocol::ALL {
            let (_, call) = pair.invoke(protocol, "/sha256");
            let (sender, content) = body::channel();
            sender.send(Ok(Frame::data(pattern::bytes(4, 0, 5000)))).await.ok().context("not read")?;
            let call = call.header("content-length", declared.to_string()).body(content);
            stalled.push((Box::pin(call.open(pair.sender.api())), sender));
        }
    }
    for (exchange, _) in &mut stalled {
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), exchange.as_mut()).await;
        ensure!(early.is_err(), "an answer to a third of a body: {early:?}");
    }
    for index in 0..20 {
        let protocol = Protocol::ALL[index % 2];
        let (id, call) = pair.invoke(protocol, "/size?bytes=300000&seed=5");
        check::answered(&call.pattern(4, 300_000, true).send(pair.sender.api()).await?, 5, 300_000)?;
        check::arrived(&pair.function.runs, &id, 4, 300_000)?;
    }
    drop(stalled);
    pair.hold_nothing().await?;
    wait::until("the stalled bodies to be aborted", || async {
        let runs = pair.function.runs.all();
        Ok(runs.iter().all(|run| run.end != BodyEnd::Unread).then_some(()))
    })
    .await?;
    let wrong: Vec<_> = pair
        .function
        .runs
        .all()
        .into_iter()
        .filter(|run| run.end == BodyEnd::Clean && run.length < 300_000)
        .collect();
    ensure!(wrong.is_empty(), "short bodies ended as if complete: {wrong:?}");
    Ok(())
}

/// Bodies that are shorter or longer than they were declared, inline and deferred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_another_length_than_declared() -> Result<()> {
    let pair = Pair::start().await?;
    let (api, token) = (pair.sender.api(), pair.sender.token.clone());
    for (declared, sent) in [(1000_usize, 400_usize), (300_000, 200_000), (3_000_000, 2_999_999)] {
        let id = fresh_id();
        let mut raw = Raw::connect(api).await?;
        raw.send(format!(
            "POST /v1/invoke/{RECEIVER}/sha256 HTTP/1.1\r\nHost: {api}\r\nZipline-Token: {token}\r\n\
             X-Request-Id: {id}\r\nContent-Length: {declared}\r\n\r\n"
        ))
        .await?;
        raw.send(pattern::bytes(4, 0, sent)).await?;
        raw.finish_sending().await?;
        if let Ok(head) = raw.final_head().await {
            ensure!(head.status >= 400, "{declared} declared, {sent} sent: {head:?}");
        }
        pair.hold_nothing().await?;
        not_complete(&pair, &id).await.with_context(|| format!("{declared} declared, {sent} sent"))?;

        for (sent, what) in [(sent, "shorter"), (declared + 5, "longer")] {
            let (id, call) = pair.invoke(Protocol::H2c, "/sha256");
            let (sender, content) = body::channel();
            let call = call.header("content-length", declared.to_string()).body(content);
            let piece = pattern::bytes(4, 0, sent);
            let feed = async {
                drop(sender.send(Ok(Frame::data(piece))).await);
                drop(sender);
            };
            let (reply, ()) = tokio::join!(call.send(api), feed);
            let refused = reply.as_ref().map_or(true, |reply| reply.status.as_u16() >= 400);
            ensure!(refused, "{what} than {declared}: {reply:?}");
            pair.hold_nothing().await?;
            not_complete(&pair, &id).await.with_context(|| format!("{what} than {declared} declared"))?;
        }

        // What follows the declared end on HTTP/1.1 is another message, and nonsense as one.
        let id = fresh_id();
        let mut raw = Raw::connect(api).await?;
        raw.send(format!(
            "POST /v1/invoke/{RECEIVER}/sha256 HTTP/1.1\r\nHost: {api}\r\nZipline-Token: {token}\r\n\
             X-Request-Id: {id}\r\nContent-Length: {declared}\r\n\r\n"
        ))
        .await?;
        raw.send(pattern::bytes(4, 0, declared + 5)).await?;
        let head = raw.final_head().await?;
        ensure!(head.status == 200, "{head:?}");
        raw.body(&head).await?;
        check::arrived(&pair.function.runs, &id, 4, declared as u64)?;
    }
    pair.hold_nothing().await
}

/// A function that promises more than it sends: its caller never sees a complete answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_break_off() -> Result<()> {
    let pair = Pair::start().await?;
    for protocol in Protocol::ALL {
        for length in [2000, 300_000, 6_000_000] {
            let (id, call) = pair.invoke(protocol, &format!("/short?bytes={length}&seed=5"));
            let reply = call.pattern(4, 1000, true).send(pair.sender.api()).await;
            // Refused as a whole, or broken off; never ended.
            if let Ok(reply) = reply {
                ensure!(
                    reply.status != 200 || reply.broken.is_some(),
                    "{protocol:?} {length}: ended as if complete"
                );
            }
            check::arrived(&pair.function.runs, &id, 4, 1000)?;
        }
    }
    pair.hold_nothing().await
}

async fn not_complete(pair: &Pair, id: &str) -> Result<()> {
    let run = wait::until("the body to end", || async {
        let run = pair.function.runs.of(id).pop();
        Ok(run.as_ref().is_none_or(|run| run.end != BodyEnd::Unread).then_some(run))
    })
    .await?;
    ensure!(run.as_ref().is_none_or(|run| run.end == BodyEnd::Aborted), "ended as if complete: {run:?}");
    Ok(())
}

/// A breaker that is full answers 503, bounded, and the function sees no more than its concurrency.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_is_bounded() -> Result<()> {
    const SENT: usize = 40;
    let pair = Pair::start_with(|config| config.receiver.concurrency = 1).await?;
    let call = || Call::new(Protocol::Http1, Method::GET, "/hold?gate=breaker").send(pair.receiver.inbound());
    let calls = futures_util::future::join_all((0..SENT).map(|_| call()));
    let opened = async {
        // Knative's queue holds ten times the concurrency beyond what runs; all others are refused at once.
        wait::until("the first to run and ten to wait", || async {
            let metrics = pair.receiver.metrics().await?;
            let full = metrics.lines().any(|line| line == "zipline_breaker_queue_length 10");
            Ok((full && !pair.function.runs.all().is_empty()).then_some(()))
        })
        .await?;
        let running = pair.function.runs.all().len();
        ensure!(running == 1, "{running} run at a concurrency of 1");
        pair.function.runs.open("breaker");
        anyhow::Ok(())
    };
    let (replies, opened) = tokio::join!(calls, opened);
    opened?;
    let mut refused = 0;
    for reply in replies {
        let reply = reply?;
        match reply.status.as_u16() {
            200 => {}
            503 => refused += 1,
            _ => anyhow::bail!("{} {}", reply.status, reply.text()),
        }
    }
    ensure!(refused > 0 && refused < SENT - 1, "{refused} of {SENT} refused");
    ensure!(pair.function.runs.all().len() == SENT - refused, "refused ones ran");
    pair.hold_nothing().await
}

/// A function that never answers ends as a timeout, deferred or not, and never as 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_timeout_ends_what_hangs() -> Result<()> {
    let pair = Pair::start_with(|config| config.receiver.timeout_seconds = 1).await?;
    for length in [10, 300_000] {
        let (id, call) = pair.invoke(Protocol::Http1, "/hold?gate=never");
        let reply = call.pattern(4, length, true).send(pair.sender.api()).await?;
        ensure!(reply.status == 504, "{} {}", reply.status, reply.text());
        check::ran_once(&pair.function.runs, &id)?;
    }
    pair.hold_nothing().await
}

/// WebSocket and other upgrades pass, inline and both ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_pass() -> Result<()> {
    let pair = Pair::start().await?;
    let (api, token) = (pair.sender.api(), &pair.sender.token);
    let inbound = pair.receiver.inbound();
    for (at, path, more) in [
        (inbound, "/echo".to_owned(), String::new()),
        (api, format!("/v1/invoke/{RECEIVER}/echo"), format!("Zipline-Token: {token}\r\n")),
    ] {
        let mut raw = Raw::connect(at).await?;
        raw.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await?;
        let head = raw.head().await?;
        ensure!(head.status == 101, "{path}: {head:?}");
        ensure!(head.header("upgrade") == Some("websocket"), "{path}: {head:?}");
        ensure!(
            head.header("sec-websocket-accept") == Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "{path}: {head:?}"
        );
        for piece in 0..5 {
            let content = pattern::bytes(piece, 0, 100_000);
            raw.send(&content).await?;
            ensure!(raw.exactly(content.len()).await? == content, "{path}: another echo");
        }
        // Half a close travels through: the echo ends when we do.
        raw.finish_sending().await?;
        ensure!(raw.until_closed().await == 0, "{path}: more than the echo");
    }
    pair.hold_nothing().await
}
