//! Two queue-proxies on one host: memory in place of bytes.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use zipline_sdk::blocking::Client;
use zipline_sdk::{PutOptions, Source};
use zipline_testkit::client::Reply;
use zipline_testkit::wait;
use zipline_tests::check;
use zipline_tests::pair::Pair;

use crate::deferred::{get, put};
use crate::sdk::{blocking, clients};

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

/// The file that is mapped in this process where `bytes` lie.
fn file_of(bytes: &[u8]) -> Result<u64> {
    let at = bytes.as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let found = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let parse = |text| usize::from_str_radix(text, 16).ok();
        (parse(from)?..parse(to)?).contains(&at).then_some(rest)
    });
    let inode = found.and_then(|rest| rest.split_whitespace().nth(3));
    Ok(inode.context("no file is mapped there")?.parse()?)
}

/// The memory files that a process has mapped or open; none if it is a queue-proxy and this test's user may not look.
fn files(process: u32) -> Result<BTreeSet<u64>> {
    use std::os::unix::fs::MetadataExt as _;
    let ours = |name: &str| name.contains("memfd:zipline payload");
    let maps = match std::fs::read_to_string(format!("/proc/{process}/maps")) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(BTreeSet::new()),
        maps => maps?,
    };
    let mapped = maps.lines().filter(|line| ours(line));
    let mut files: BTreeSet<u64> =
        mapped.filter_map(|line| line.split_whitespace().nth(4)?.parse().ok()).collect();
    for open in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let path = open?.path();
        // Others may close theirs meanwhile.
        if std::fs::read_link(&path).is_ok_and(|link| ours(&link.to_string_lossy())) {
            files.extend(std::fs::metadata(&path).map(|file| file.ino()));
        }
    }
    Ok(files)
}

/// Bytes of the pages that a file open in this process has.
fn pages_of(file: u64) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    for open in std::fs::read_dir("/proc/self/fd")? {
        if let Ok(found) = std::fs::metadata(open?.path())
            && found.ino() == file
            && found.size() > 0
        {
            return Ok(found.blocks() * 512);
        }
    }
    anyhow::bail!("no such file is open")
}

/// Who asks for memory again finds its pages there: they were made while what was asked for before was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_buffer_has_its_pages_already() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    blocking(move || {
        let sender = Client::connect(sender)?;
        let mut kept = Vec::new();
        for _ in 0..100 {
            let buffer = sender.create(1 << 20)?;
            if pages_of(file_of(&buffer)?)? >= 1 << 20 {
                return Ok(());
            }
            // All are kept, so each is new.
            kept.push(buffer);
            sender.settle()?;
        }
        anyhow::bail!("none of {} had pages before it was written", kept.len())
    })
    .await?;
    pair.hold_nothing().await
}

/// Memory that reached another function is never written again, so nobody keeps it: neither side's queue-proxy nor function.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_was_shared_goes_with_its_payload() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pair = neighbours(directory.path()).await?;
    let (sender, receiver) = clients(&pair);
    let (sender, seen) = blocking(move || {
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        let mut seen = BTreeSet::new();
        for round in 0..4 {
            let mut buffer = sender.create(3_000_000)?;
            buffer.fill(round);
            let reference = sender.put_buffer(buffer, &PutOptions::new())?;
            let payload = receiver.get(&reference)?;
            ensure!(payload.source() == Source::Host && payload.iter().all(|byte| *byte == round));
            ensure!(seen.insert(file_of(&payload)?), "memory that was shared was written again");
        }
        Ok(((sender, receiver), seen))
    })
    .await?;
    let processes = [pair.sender.process.id(), pair.receiver.process.id(), std::process::id()];
    let ((sender, receiver), seen) = blocking(move || {
        // It hears what is to be dropped.
        let mut left = seen.clone();
        for _ in 0..10_000 {
            sender.0.settle()?;
            left.clear();
            for process in processes {
                left.extend(files(process)?.intersection(&seen));
            }
            if left.is_empty() {
                return Ok((sender, seen));
            }
        }
        anyhow::bail!("{} of {} memory files are still mapped or open", left.len(), seen.len())
    })
    .await?;
    ensure!(seen.len() == 4);
    pair.hold_nothing().await?;
    drop((sender, receiver));
    Ok(())
}
