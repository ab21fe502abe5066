//! One payload for many receivers, which serve each other.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use zipline_sdk::blocking::Client;
use zipline_sdk::{ErrorCode, Options, PutOptions, Reference, Retrievals};
use zipline_testkit::pattern;
use zipline_testkit::queue_proxy::{QueueProxy, QueueProxyConfig};
use zipline_tests::turn;

use crate::sdk::{blocking, options};

const RECEIVERS: u32 = 8;
const LENGTH: usize = 6_000_000;

/// A queue-proxy without a function.
async fn guest(name: &str) -> Result<QueueProxy> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    QueueProxy::start(QueueProxyConfig { user: None, ..QueueProxyConfig::new(name, nowhere, nowhere) }).await
}

async fn counted(side: &QueueProxy, name: &str) -> Result<u64> {
    let metrics = side.metrics().await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no {name}"))?.parse().context("no number")
}

fn got(receiver: Options, reference: &Reference) -> Result<()> {
    let payload = Client::connect(receiver)?.get(reference)?;
    ensure!(payload[..] == pattern::bytes(7, 0, LENGTH)[..], "other bytes arrived");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_eight_receivers_four_are_served_by_others() -> Result<()> {
    let _turn = turn::alone().await;
    let sender = guest("sender.default").await?;
    let mut receivers = Vec::new();
    for _ in 0..RECEIVERS {
        receivers.push(guest("receiver.default").await?);
    }
    let giver = options(&sender);
    let put = blocking(move || {
        let options = PutOptions::new().retrievals(Retrievals::Limited(RECEIVERS));
        Ok(Client::connect(giver)?.put(pattern::bytes(7, 0, LENGTH), &options)?)
    });
    let reference = put.await?;
    try_join_all(receivers.iter().map(|receiver| {
        let (receiver, reference) = (options(receiver), reference.clone());
        blocking(move || got(receiver, &reference))
    }))
    .await?;
    sender.holds_nothing().await?;
    ensure!(counted(&sender, "zipline_sends_relayed_total").await? == 4, "{}", sender.metrics().await?);
    let mut relayed = 0;
    for receiver in &receivers {
        relayed += counted(receiver, "zipline_copy_sends_total").await?;
    }
    ensure!(relayed > 0, "nobody was served by a relay");
    let late = options(&receivers[0]);
    let refused =
        blocking(move || Ok(Client::connect(late)?.get(&reference).err().map(|error| error.code())));
    ensure!(refused.await? == Some(ErrorCode::RetrievalsExhausted), "each counted once");
    for receiver in &receivers {
        // Copies are let go of, and nothing else is left.
        receiver.holds_nothing().await?;
    }
    Ok(())
}
