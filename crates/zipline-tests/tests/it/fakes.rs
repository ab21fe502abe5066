//! The fakes by themselves: what they cannot do without Zipline between them, no test could expect with it.

use anyhow::{Context, Result, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::Frame;
use zipline_testkit::client::{Call, Protocol, Reply};
use zipline_testkit::function::{BodyEnd, TestFunction};
use zipline_testkit::gateway::PlainGateway;
use zipline_testkit::raw::Raw;
use zipline_testkit::relay::{Direction, Fault, Relay, Rule, Then};
use zipline_testkit::stock_proxy::{Manners, StockProxy};
use zipline_testkit::{body, pattern};
use zipline_tests::check;
use zipline_tests::pair::fresh_id;

const HOST: &str = "f.default.svc.cluster.local";
const LENGTH: u64 = 300_000;

async fn stage() -> Result<(TestFunction, PlainGateway)> {
    let (function, gateway) = (TestFunction::start().await?, PlainGateway::start().await?);
    gateway.route("f.default", function.address);
    Ok((function, gateway))
}

fn call(protocol: Protocol, method: Method, path: &str) -> (String, Call) {
    let id = fresh_id();
    let call = Call::new(protocol, method, path).host(HOST).header("x-request-id", &id);
    (id, call)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_framing_passes() -> Result<()> {
    let (function, gateway) = stage().await?;
    for protocol in Protocol::ALL {
        for known in [true, false] {
            let (id, call) = call(protocol, Method::POST, "/size?bytes=300000&seed=5");
            check::answered(&call.pattern(4, LENGTH, known).send(gateway.address).await?, 5, LENGTH)?;
            let run = check::arrived(&function.runs, &id, 4, LENGTH)?;
            ensure!(run.content_length == known.then_some(LENGTH), "{run:?}");
        }
        let (id, call_) = call(protocol, Method::POST, "/size?bytes=300000&seed=5&trailers=1");
        let name = HeaderName::from_static("x-checksum");
        let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]);
        let reply = call_.with_trailers(4, LENGTH, trailers).send(gateway.address).await?;
        check::answered(&reply, 5, LENGTH)?;
        ensure!(reply.trailers.contains_key("x-answer-trailer"), "{reply:?}");
        let run = check::arrived(&function.runs, &id, 4, LENGTH)?;
        ensure!(run.trailers.contains_key("x-checksum"), "{run:?}");

        let (id, call_) = call(protocol, Method::HEAD, "/size?bytes=300000&seed=5");
        let reply = call_.send(gateway.address).await?;
        ensure!(reply.length == 0 && reply.content_length() == Some(LENGTH), "{reply:?}");
        check::ran_once(&function.runs, &id)?;

        let (id, call_) = call(protocol, Method::POST, "/early");
        let (sender, content) = body::channel();
        sender.send(Ok(Frame::data(pattern::bytes(4, 0, 100_000)))).await.ok().context("not read")?;
        let reply =
            call_.header("content-length", "300000").body(content).open(gateway.address).await?.read().await;
        ensure!(reply.text() == "early\n", "{reply:?}");
        ensure!(
            check::ran_once(&function.runs, &id)?.end != BodyEnd::Clean,
            "a third of a body ended as if complete"
        );
        drop(sender);

        let (_, call_) = call(protocol, Method::POST, "/echo");
        let (sender, content) = body::channel();
        let piece = pattern::bytes(4, 0, 100_000);
        sender.send(Ok(Frame::data(piece.clone()))).await.ok().context("not read")?;
        let mut exchange = call_.body(content).open(gateway.address).await.context("echo")?;
        let mut rest = Vec::new();
        for _ in 0..3 {
            ensure!(exchange.exactly(piece.len(), &mut rest).await? == piece, "another echo");
            sender.send(Ok(Frame::data(piece.clone()))).await.ok().context("not read")?;
        }
        drop(sender);
        ensure!(exchange.exactly(piece.len(), &mut rest).await? == piece, "another echo");
        ensure!(exchange.next().await?.is_none(), "the echo goes on");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_is_seen_as_such() -> Result<()> {
    let (function, gateway) = stage().await?;
    for protocol in Protocol::ALL {
        let (id, call_) = call(protocol, Method::POST, "/sha256");
        let (sender, content) = body::channel();
        sender.send(Ok(Frame::data(pattern::bytes(4, 0, 100_000)))).await.ok().context("not read")?;
        let sent = call_.body(content).send(gateway.address);
        let break_off = async {
            zipline_testkit::wait::until("the function to run", || async {
                Ok((!function.runs.of(&id).is_empty()).then_some(()))
            })
            .await?;
            drop(sender.send(Err(body::BodyError::new("on purpose"))).await);
            anyhow::Ok(())
        };
        let (reply, broken) = tokio::join!(sent, break_off);
        broken?;
        ensure!(reply.as_ref().map_or(true, |reply| reply.status != 200), "{reply:?}");
        ensure!(
            check::body_ended(&function.runs, &id).await?.end == BodyEnd::Aborted,
            "ended as if complete"
        );
        let (_, call_) = call(protocol, Method::POST, "/short?bytes=1000000");
        let reply = call_.send(gateway.address).await;
        ensure!(
            reply.as_ref().map_or(true, |reply| reply.broken.is_some() || reply.status != 200),
            "{reply:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_expectations_pass() -> Result<()> {
    let (function, gateway) = stage().await?;
    let mut raw = Raw::connect(gateway.address).await?;
    raw.send(format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"))
        .await?;
    ensure!(raw.head().await?.status == 101, "no upgrade");
    raw.send("hello").await?;
    ensure!(raw.exactly(5).await? == b"hello", "another echo");
    raw.finish_sending().await?;
    ensure!(raw.until_closed().await == 0, "more than the echo");
    let mut raw = Raw::connect(gateway.address).await?;
    raw.send(format!(
        "POST /sha256 HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nX-Request-Id: e\r\nContent-Length: 5\r\n\r\n"
    ))
    .await?;
    ensure!(raw.head().await?.status == 100, "not asked for the body");
    raw.send("hello").await?;
    ensure!(raw.final_head().await?.status == 200, "no answer");
    check::ran_once(&function.runs, "e")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_proxies_refuse_and_pass() -> Result<()> {
    let function = TestFunction::start().await?;
    for protocol in Protocol::ALL {
        for (manners, status) in [(Manners::Refuse, 400), (Manners::ShuttingDown, 503), (Manners::Pass, 200)]
        {
            let stock = StockProxy::start(function.address, manners).await?;
            let (id, call_) = call(protocol, Method::POST, "/sha256");
            let call_ = call_.header("user-agent", "Knative-Activator-Probe zipline/1 curl/8");
            let reply = call_.pattern(4, 1000, true).send(stock.address).await?;
            ensure!(reply.status == status, "{manners:?}: {reply:?}");
            ensure!(function.runs.of(&id).len() == usize::from(status == 200), "{manners:?}: runs");
            let (_, call_) = call(protocol, Method::POST, "/sha256");
            check::succeeded(&call_.pattern(4, 1000, true).send(stock.address).await?)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_pass_cut_and_stall() -> Result<()> {
    let function = TestFunction::start().await?;
    let relay = Relay::start(function.address).await?;
    for protocol in Protocol::ALL {
        let (_, call_) = call(protocol, Method::POST, "/size?bytes=300000&seed=5");
        check::answered(&call_.pattern(4, LENGTH, true).send(relay.address).await?, 5, LENGTH)?;
        for fault in [Fault::Fin, Fault::Reset] {
            for (direction, after_bytes) in [(Direction::FromTarget, 100_000), (Direction::ToTarget, 100_000)]
            {
                relay.set_rule(Some(Rule { fault, direction, after_bytes, then: Then::Pass }));
                let (id, call_) = call(protocol, Method::POST, "/size?bytes=300000&seed=5");
                let reply = call_.pattern(4, LENGTH, true).send(relay.address).await;
                // What the function says of a broken request may come through before the cut does.
                let cut = |reply: &Reply| reply.broken.is_some() || reply.status == StatusCode::BAD_REQUEST;
                ensure!(reply.as_ref().map_or(true, cut), "{fault:?} {direction:?}: {reply:?}");
                ensure!(relay.struck() == 1, "{fault:?} {direction:?}: struck {}", relay.struck());
                // A reset may overtake the whole request.
                if !function.runs.of(&id).is_empty() {
                    check::body_ended(&function.runs, &id).await?;
                }
                // Once only.
                let (_, call_) = call(protocol, Method::POST, "/size?bytes=300000&seed=5");
                check::answered(&call_.pattern(4, LENGTH, true).send(relay.address).await?, 5, LENGTH)?;
            }
        }
        let rule = Rule {
            fault: Fault::Stall,
            direction: Direction::FromTarget,
            after_bytes: 50_000,
            then: Then::Pass,
        };
        relay.set_rule(Some(rule));
        let (_, call_) = call(protocol, Method::POST, "/size?bytes=300000&seed=5");
        let mut stalled = Box::pin(call_.pattern(4, LENGTH, true).send(relay.address));
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), stalled.as_mut()).await;
        ensure!(early.is_err() && relay.struck() == 1, "it did not stall: {early:?}");
        relay.set_rule(None);
        check::answered(&stalled.await?, 5, LENGTH)?;
    }
    Ok(())
}
