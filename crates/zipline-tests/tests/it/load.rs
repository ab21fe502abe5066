//! Much at a time: nothing is lost, no budget exceeded, nothing left behind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use http::Method;
use zipline_testkit::client::{Call, Protocol};
use zipline_testkit::function::TestFunction;
use zipline_testkit::gateway::PlainGateway;
use zipline_testkit::process;
use zipline_testkit::queue_proxy::{QueueProxy, QueueProxyConfig, TENANT, keyring};
use zipline_tests::pair::{Pair, fresh_id};
use zipline_tests::{check, turn};

use crate::deferred::{get, put};

const FUNCTION: &str = "worker.default";
const INSTANCES: usize = 8;
const INVOKES: usize = 1000;
const LENGTH: u64 = 1_000_000;
const BUDGET: u64 = 64 << 20;
/// Longer than any connection stays idle.
const IDLE_MOST: Duration = Duration::from_secs(150);

struct Instance {
    function: TestFunction,
    queue_proxy: QueueProxy,
}

async fn round(instances: &[Instance]) -> Result<()> {
    let invokes = (0..INVOKES).map(|index| async move {
        let from = &instances[index % INSTANCES].queue_proxy;
        let (id, seed) = (fresh_id(), index as u64);
        let protocol = Protocol::ALL[index / INSTANCES % 2];
        let call = from.invoke(protocol, Method::POST, FUNCTION, "/sha256").header("x-request-id", &id);
        let reply = call
            .pattern(seed, LENGTH, true)
            .send(from.api())
            .await
            .with_context(|| format!("invoke {index}"))?;
        check::succeeded(&reply).with_context(|| format!("invoke {index}"))?;
        ensure!(reply.json()?["sha256"] == zipline_testkit::pattern::sha256(seed, LENGTH), "other bytes");
        anyhow::Ok(id)
    });
    let ids = try_join_all(invokes).await?;
    for id in ids {
        let runs: usize = instances.iter().map(|instance| instance.function.runs.of(&id).len()).sum();
        ensure!(runs == 1, "{runs} runs of {id}");
    }
    for instance in instances {
        let status = instance.queue_proxy.holds_nothing().await?;
        ensure!(status.held.budget_bytes == BUDGET, "{:?}", status.held);
        ensure!(status.held.peak_bytes <= BUDGET, "{:?}", status.held);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_invokes_over_eight_instances() -> Result<()> {
    let turn = turn::alone().await;
    process::raise_open_files()?;
    let gateway = PlainGateway::start().await?;
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        let function = TestFunction::start().await?;
        let mut config = QueueProxyConfig::new(FUNCTION, function.address, gateway.address).told(&[FUNCTION]);
        (config.budget_bytes, config.in_flight_bytes) = (BUDGET, BUDGET);
        instances.push(Instance { function, queue_proxy: QueueProxy::start_ready(config).await? });
    }
    gateway.route_all(FUNCTION, instances.iter().map(|instance| instance.queue_proxy.inbound()).collect());
    let descriptors = |instances: &[Instance]| -> Result<usize> {
        instances.iter().map(|instance| instance.queue_proxy.process.descriptors()).sum()
    };
    let before = descriptors(&instances)?;
    for _ in 0..2 {
        round(&instances).await?;
    }
    let deferred: u64 = {
        let mut sum = 0;
        for instance in &instances {
            sum += instance.queue_proxy.status().await?.count("sent", "request", "network");
        }
        sum
    };
    ensure!(deferred > 0, "nothing was deferred");
    // Idle connections are kept for a while, which needs no machine to wait for.
    drop(turn);
    let deadline = tokio::time::Instant::now() + IDLE_MOST;
    loop {
        let now = descriptors(&instances)?;
        if now <= before + INSTANCES {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "{now} descriptors remain of {before} before");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Keys rotate as the wire document says, while invokes, puts and gets go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_without_a_failed_request() -> Result<()> {
    let pair = Pair::start().await?;
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let invokes = async {
        while !done.load(Ordering::Relaxed) {
            let (id, call) = pair.invoke(Protocol::Http1, "/size?bytes=200000&seed=5");
            check::answered(&call.pattern(4, 200_000, true).send(pair.sender.api()).await?, 5, 200_000)?;
            check::arrived(&pair.function.runs, &id, 4, 200_000)?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        anyhow::Ok(())
    };
    let puts = async {
        while !done.load(Ordering::Relaxed) {
            let reference = put(&pair, "", 3, 200_000).await?;
            check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 200_000)?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        anyhow::Ok(())
    };
    let rotation = async {
        for serial in 1..6 {
            for (serials, seal) in [
                (vec![serial, serial + 1], serial),
                (vec![serial, serial + 1], serial + 1),
                // The old key stays until what it sealed is gone; here, until some more requests have passed.
                (vec![serial + 1], serial + 1),
            ] {
                for side in [&pair.receiver, &pair.sender] {
                    let before = count.load(Ordering::Relaxed);
                    side.install(keyring(TENANT, &serials, Some(seal))).await?;
                    zipline_testkit::wait::until("requests to pass", || async {
                        Ok((count.load(Ordering::Relaxed) >= before + 6).then_some(()))
                    })
                    .await?;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    tokio::try_join!(invokes, puts, rotation)?;
    let status = pair.sender.status().await?;
    ensure!(status.count("sent", "request", "inline") == 0, "some went inline: {:?}", status.transfers);
    pair.hold_nothing().await
}

/// A draining instance finishes what runs, serves what it holds, and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_loses_nothing() -> Result<()> {
    let mut pair = Pair::start().await?;
    let reference = put(&pair, "?ttl=1h", 3, 200_000).await?;
    let id = fresh_id();
    let call = Call::new(Protocol::Http1, Method::POST, "/hold?gate=drain").header("x-request-id", &id);
    let running = call.pattern(4, 1000, true).send(pair.sender.inbound());
    let drain = async {
        zipline_testkit::wait::until("the request to run", || async {
            Ok((!pair.sender_function.runs.of(&id).is_empty()).then_some(()))
        })
        .await?;
        pair.sender.drain(40).await?;
        zipline_testkit::wait::until("the drain to begin", || async {
            Ok(pair.sender.status().await?.draining.then_some(()))
        })
        .await?;
        let ready = Call::new(Protocol::Http1, Method::GET, "/readyz").send(pair.sender.admin()).await?;
        ensure!(ready.status == 503, "ready while draining: {}", ready.status);
        // A request that runs may still put; the expiry is capped to what remains of the grace.
        let call = pair.sender.local(Protocol::Http1, Method::POST, "/v1/payloads?ttl=1h");
        let reply = call.pattern(5, 1000, true).send(pair.sender.api()).await?;
        ensure!(reply.status == 201, "{} {}", reply.status, reply.text());
        let document = reply.json()?;
        ensure!(document["bounded_by"] == "drain", "{document}");
        ensure!(document["ttl_seconds"].as_f64().is_some_and(|ttl| ttl <= 40.0), "{document}");
        let late = reply.header("zipline-reference").to_owned();
        pair.sender_function.runs.open("drain");
        anyhow::Ok(late)
    };
    let (reply, late) = tokio::join!(running, drain);
    let (reply, late) = (reply?, late?);
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    check::arrived(&pair.sender_function.runs, &id, 4, 1000)?;
    check::answered(&get(&pair, &late).send(pair.receiver.api()).await?, 5, 1000)?;
    check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, 200_000)?;
    pair.sender.drained().await?;
    let ended = pair.sender.process.end().await?;
    ensure!(ended.success(), "{ended}: {}", pair.sender.process.log());
    Ok(())
}
