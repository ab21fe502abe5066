//! Payloads far larger than the budget.

use anyhow::{Result, ensure};
use zipline_testkit::client::Protocol;
use zipline_tests::pair::Pair;
use zipline_tests::{check, report, turn};

/// 256 MiB of budget and 64 MiB for everything else a process needs.
const RESIDENT_MOST: u64 = 320 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_gib_stream_through_a_budget_of_256_mib() -> Result<()> {
    const LENGTH: u64 = 4 << 30;
    let _turn = turn::alone().await;
    let pair = Pair::start_in_turn(|_| {}).await?;
    let (id, call) = pair.invoke(Protocol::Http1, "/sha256");
    let reply = call.pattern(4, LENGTH, true).send(pair.sender.api()).await?;
    check::succeeded(&reply)?;
    check::arrived(&pair.function.runs, &id, 4, LENGTH)?;
    ensure!(pair.gateway.traffic.total() < 64 * 1024, "{:?}", pair.gateway.traffic);
    for side in [&pair.sender, &pair.receiver] {
        let resident = side.process.peak_resident_bytes()?;
        ensure!(resident < RESIDENT_MOST, "{} MiB were resident", resident >> 20);
        let held = side.status().await?.held;
        ensure!(held.peak_bytes <= held.budget_bytes, "{held:?}");
        report(&format!(
            "{} MiB resident at most, {} MiB held at most",
            resident >> 20,
            held.peak_bytes >> 20
        ));
    }
    pair.hold_nothing().await
}

/// A body of unknown length, and an answer, larger than what may be held.
// One thread, so that a head and the first bytes leave in one go: a millisecond between them is a reason to go inline.
#[tokio::test]
async fn both_directions_stream_through_a_small_window() -> Result<()> {
    const UP: u64 = 60_000_000;
    const DOWN: u64 = 50_000_000;
    let pair = Pair::start_with(|config| {
        for side in [&mut config.sender, &mut config.receiver] {
            side.budget_bytes = 8 << 20;
            side.in_flight_bytes = 8 << 20;
            side.threshold_bytes = 4096;
        }
    })
    .await?;
    for protocol in Protocol::ALL {
        for known in [true, false] {
            let (id, call) = pair.invoke(protocol, &format!("/size?bytes={DOWN}&seed=5"));
            let reply = call.pattern(4, UP, known).send(pair.sender.api()).await?;
            check::answered(&reply, 5, DOWN)?;
            check::arrived(&pair.function.runs, &id, 4, UP)?;
        }
    }
    let crossed = pair.gateway.traffic.total();
    ensure!(crossed < 4 * 64 * 1024, "{crossed} bytes crossed the gateway");
    for side in [&pair.sender, &pair.receiver] {
        let held = side.status().await?.held;
        ensure!(held.peak_bytes <= held.budget_bytes, "{held:?}");
    }
    pair.hold_nothing().await
}

/// Fifty megabytes each way leave hardly a trace at the gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_pass_by_the_gateway() -> Result<()> {
    const LENGTH: u64 = 50_000_000;
    let pair = Pair::start().await?;
    for protocol in Protocol::ALL {
        let before = (pair.gateway.traffic.received(), pair.gateway.traffic.sent());
        let (id, call) = pair.invoke(protocol, &format!("/size?bytes={LENGTH}&seed=5"));
        check::answered(&call.pattern(4, LENGTH, true).send(pair.sender.api()).await?, 5, LENGTH)?;
        check::arrived(&pair.function.runs, &id, 4, LENGTH)?;
        let up = pair.gateway.traffic.received() - before.0;
        let down = pair.gateway.traffic.sent() - before.1;
        ensure!(
            up < 64 * 1024 && down < 64 * 1024,
            "{up} bytes up and {down} bytes down crossed the gateway"
        );
    }
    pair.hold_nothing().await
}
