//! Two queue-proxies on one host: memory in place of bytes.

use std::path::Path;

use anyhow::{Result, ensure};
use zipline_testkit::client::Reply;
use zipline_testkit::wait;
use zipline_tests::check;
use zipline_tests::pair::Pair;

use crate::deferred::{get, put};

/// Held in one piece.
const LENGTH: u64 = 256 * 1024;

fn told(directory: &Path) -> (String, String) {
    ("ZIPLINE_HOST_DIR".to_owned(), directory.display().to_string())
}

async fn neighbours(directory: &Path) -> Result<Pair> {
    Pair::start_with(|config| {
        config.sender.variables.push(told(directory));
        config.receiver.variables.push(told(directory));
    })
    .await
}

async fn got(pair: &Pair, reference: &str) -> Result<Reply> {
    get(pair, reference).send(pair.receiver.api()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_next_door_needs_no_network() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pair = neighbours(directory.path()).await?;
    for length in [1, 10_000, LENGTH] {
        let reference = put(&pair, "?retrievals=2", 3, length).await?;
        for _ in 0..2 {
            check::answered(&got(&pair, &reference).await?, 3, length)?;
        }
        check::problem(&got(&pair, &reference).await?, 409, "retrievals-exhausted")?;
    }
    pair.hold_nothing().await?;
    ensure!(pair.relay.connections() == 0, "the data port was asked");
    for (side, direction) in [(&pair.receiver, "received"), (&pair.sender, "sent")] {
        let status = side.status().await?;
        ensure!(status.count(direction, "put", "same-host") == 6, "{:?}", status.transfers);
        ensure!(status.count(direction, "put", "network") == 0, "{:?}", status.transfers);
    }
    Ok(())
}

/// A reference is as good next door as far away: who does not find the holder's socket asks its data port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_neighbour_uses_the_network() -> Result<()> {
    let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let pair = Pair::start_with(|config| {
        config.sender.variables.push(told(one.path()));
        config.receiver.variables.push(told(other.path()));
    })
    .await?;
    let reference = put(&pair, "", 3, LENGTH).await?;
    check::answered(&got(&pair, &reference).await?, 3, LENGTH)?;
    ensure!(pair.receiver.status().await?.count("received", "put", "network") == 1, "not by network");
    pair.hold_nothing().await
}

/// What a receiver was given when it was killed is given back at once, and the payload is there for another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_neighbour_keeps_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut pair = neighbours(directory.path()).await?;
    let reference = put(&pair, "", 3, 4_000_000).await?;
    // The client takes nothing more than the head, so the lease stays open.
    let open = get(&pair, &reference).open(pair.receiver.api()).await?;
    ensure!(open.response.status() == 200, "{:?}", open.response);
    pair.receiver.process.kill()?;
    drop(open);
    let own = pair.sender.local(zipline_testkit::client::Protocol::Http1, http::Method::GET, "/v1/payload");
    let reply = own.header("zipline-reference", &reference).send(pair.sender.api()).await?;
    check::answered(&reply, 3, 4_000_000)?;
    pair.sender.holds_nothing().await?;
    // The socket's name goes with its holder.
    pair.sender.drain(5).await?;
    pair.sender.drained().await?;
    pair.sender.process.end().await?;
    wait::until("the sockets to go", || async {
        let left = std::fs::read_dir(directory.path())?.count();
        // One was left by the receiver, which was killed.
        Ok((left <= 1).then_some(()))
    })
    .await
}
