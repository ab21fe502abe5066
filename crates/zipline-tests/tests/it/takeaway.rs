//! The receiver's Zipline is taken away between two requests.

use anyhow::{Context, Result, ensure};
use http::Method;
use zipline_testkit::client::{Protocol, Reply};
use zipline_testkit::function::TestFunction;
use zipline_testkit::stock_proxy::{Manners, StockProxy};
use zipline_tests::check;
use zipline_tests::pair::{Pair, RECEIVER, fresh_id};

const UP: u64 = 400_000;

/// A pair whose first exchange was deferred; then its receiver's queue-proxy is replaced.
async fn taken_away(protocol: Protocol, manners: Manners) -> Result<(Pair, StockProxy)> {
    let pair = Pair::start().await?;
    let (id, reply) = exchange(&pair, protocol).await?;
    check::answered(&reply, 5, 1000)?;
    check::arrived(&pair.function.runs, &id, 4, UP)?;
    deferred_so_far(&pair, 1).await?;
    let stock = StockProxy::start(pair.function.address, manners).await?;
    pair.gateway.route(RECEIVER, stock.address);
    Ok((pair, stock))
}

/// Waits until so many deferred requests are counted: a transfer is when its last word was spoken, after the answer.
async fn deferred_so_far(pair: &Pair, expected: u64) -> Result<()> {
    zipline_testkit::wait::until("the transfer to be counted", || async {
        let status = pair.sender.status().await?;
        let count = status.count("sent", "request", "network");
        ensure!(count == expected, "{count} deferred requests: {:?}", status.transfers);
        Ok(Some(()))
    })
    .await
}

async fn exchange(pair: &Pair, protocol: Protocol) -> Result<(String, Reply)> {
    let (id, call) = pair.invoke(protocol, "/size?bytes=1000&seed=5");
    let call = call.header("user-agent", "camera/2").header("content-type", "image/x-raw");
    Ok((id, call.pattern(4, UP, true).send(pair.sender.api()).await?))
}

async fn refused_as_stock_does(protocol: Protocol, manners: Manners) -> Result<()> {
    let (pair, stock) = taken_away(protocol, manners).await?;
    let (id, reply) = exchange(&pair, protocol).await?;
    check::answered(&reply, 5, 1000)?;
    let run = check::arrived(&pair.function.runs, &id, 4, UP)?;
    ensure!(run.user_agent.as_deref() == Some("camera/2"), "not as the sender wrote it: {run:?}");
    ensure!(run.content_type.as_deref() == Some("image/x-raw"), "not as the sender wrote it: {run:?}");
    ensure!(stock.refused() == 1, "{} refusals", stock.refused());
    // The capability is forgotten, so the next one is not even tried.
    let (id, reply) = exchange(&pair, protocol).await?;
    check::answered(&reply, 5, 1000)?;
    check::arrived(&pair.function.runs, &id, 4, UP)?;
    ensure!(stock.refused() == 1, "the next one was deferred again");
    let status = pair.sender.status().await?;
    ensure!(status.inline_because("request", "unknown-receiver") == 2, "{:?}", status.transfers);
    deferred_so_far(&pair, 1).await?;
    pair.hold_nothing().await?;
    // When Zipline is back, an ordinary answer says so, and deferring begins again.
    pair.gateway.route(RECEIVER, pair.receiver.inbound());
    for _ in 0..2 {
        let (id, reply) = exchange(&pair, protocol).await?;
        check::answered(&reply, 5, 1000)?;
        check::arrived(&pair.function.runs, &id, 4, UP)?;
    }
    deferred_so_far(&pair, 2).await?;
    pair.hold_nothing().await
}

async fn passed_on(protocol: Protocol) -> Result<()> {
    let (pair, stock) = taken_away(protocol, Manners::Pass).await?;
    let (id, reply) = exchange(&pair, protocol).await?;
    check::problem(&reply, 502, "receiver-unproven")?;
    // Here the function did see a reference: nothing could keep this proxy from passing it. It must not be success.
    let runs = pair.function.runs.of(&id);
    ensure!(runs.len() == 1 && runs[0].reference, "{runs:?}");
    let (id, reply) = exchange(&pair, protocol).await?;
    check::answered(&reply, 5, 1000)?;
    check::arrived(&pair.function.runs, &id, 4, UP)?;
    ensure!(stock.refused() == 0, "it refuses");
    let status = pair.sender.status().await?;
    ensure!(status.inline_because("request", "unknown-receiver") == 1, "{:?}", status.transfers);
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_on_http1() -> Result<()> {
    refused_as_stock_does(Protocol::Http1, Manners::Refuse).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_on_h2c() -> Result<()> {
    refused_as_stock_does(Protocol::H2c, Manners::Refuse).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_by_one_that_shuts_down() -> Result<()> {
    refused_as_stock_does(Protocol::Http1, Manners::ShuttingDown).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passed_on_http1() -> Result<()> {
    passed_on(Protocol::Http1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passed_on_h2c() -> Result<()> {
    passed_on(Protocol::H2c).await
}

/// An error of the platform without proof is passed on as it is, and is not a reason to send the payload again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platforms_own_errors_pass() -> Result<()> {
    const CODES: [u16; 11] = [404, 408, 413, 414, 421, 429, 431, 500, 502, 503, 504];
    let names = CODES.map(|code| format!("answers-{code}.default"));
    let pair = Pair::start_with(|config| config.sender.receivers = names.to_vec()).await?;
    let other = TestFunction::start().await?;
    for (code, name) in CODES.into_iter().zip(&names) {
        pair.gateway.route(name, other.address);
        let id = fresh_id();
        let call = pair.sender.invoke(Protocol::Http1, Method::POST, name, &format!("/status?code={code}"));
        let reply = call.header("x-request-id", &id).pattern(4, UP, true).send(pair.sender.api()).await?;
        ensure!(
            reply.status.as_u16() == code && reply.code().is_empty(),
            "{code}: {} {}",
            reply.status,
            reply.text()
        );
        let runs = other.runs.of(&id);
        ensure!(runs.len() == 1 && runs[0].reference, "{code}: sent again, or not deferred: {runs:?}");
    }
    let name = names[0].as_str();
    let call = pair.sender.invoke(Protocol::Http1, Method::POST, name, "/sha256");
    check::succeeded(&call.pattern(4, UP, true).send(pair.sender.api()).await?)?;
    let status = pair.sender.status().await?;
    ensure!(
        status.inline_because("request", "unknown-receiver") == 1,
        "not forgotten: {:?}",
        status.transfers
    );
    pair.hold_nothing().await
}

/// A closed data port costs speed, never a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_data_port_means_inline() -> Result<()> {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let pair = Pair::start_with(|config| config.sender.advertise = Some(closed)).await?;
    for protocol in Protocol::ALL {
        let (id, reply) = exchange(&pair, protocol).await?;
        check::answered(&reply, 5, 1000).with_context(|| pair.sender.process.log())?;
        check::arrived(&pair.function.runs, &id, 4, UP)?;
    }
    let status = pair.sender.status().await?;
    ensure!(status.inline_because("request", "unreachable") == 2, "{:?}", status.transfers);
    pair.hold_nothing().await
}

/// A receiver without keys costs speed, never a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_without_keys_means_inline() -> Result<()> {
    let pair = Pair::start_with(|config| config.receiver.keyring = None).await?;
    for _ in 0..2 {
        let (id, reply) = exchange(&pair, Protocol::Http1).await?;
        check::answered(&reply, 5, 1000)?;
        check::arrived(&pair.function.runs, &id, 4, UP)?;
    }
    ensure!(pair.sender.status().await?.count("sent", "request", "network") == 0, "deferred");
    pair.hold_nothing().await
}
