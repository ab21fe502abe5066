//! What is left when nothing is asked any more.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use zipline_testkit::process::Process;

use crate::node::Node;

/// Descriptors of the kinds that connections come as; they end with their idle time.
const CONNECTIONS: &str = "socket";
/// Connections that may be idle between two processes while their time has not come.
const IDLE_CONNECTIONS: usize = 512;
/// Descriptors that come and go by themselves in a process at rest, and connections that something still asks over.
const SLACK: usize = 4;

/// What a process takes of the system.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Footprint {
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open descriptors by kind.
    pub descriptors: BTreeMap<String, usize>,
    /// Threads.
    pub threads: usize,
}

impl Footprint {
    /// Of a process, now.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(process: &Process) -> Result<Self> {
        let directory = format!("/proc/{}", process.id());
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir(format!("{directory}/fd")).context("descriptors")? {
            // It may be closed by now.
            let Ok(target) = fs::read_link(entry?.path()) else { continue };
            *descriptors.entry(kind(&target.to_string_lossy()).to_owned()).or_default() += 1;
        }
        let threads = fs::read_dir(format!("{directory}/task")).context("threads")?.count();
        Ok(Self { resident_bytes: process.resident_bytes()?, descriptors, threads })
    }
}

fn kind(target: &str) -> &str {
    if target.starts_with("/memfd:") {
        return "memfd";
    }
    if target.starts_with('/') {
        return "file";
    }
    if let Some(kind) = target.strip_prefix("anon_inode:") {
        return kind;
    }
    target.split_once(":[").map_or(target, |(kind, _)| kind)
}

/// What rest means.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long it may take.
    pub patience: Duration,
    /// Most resident memory of a queue-proxy.
    pub resident_bytes: u64,
    /// Whether idle connections and warm memory count, which have their own time of some minutes.
    pub full: bool,
}

/// Waits until the queue-proxy of `node` has come to rest.
///
/// # Errors
/// It has not; says what is left.
pub async fn wait(node: &Node, terms: Terms) -> Result<Footprint> {
    let deadline = Instant::now() + terms.patience;
    loop {
        let left = match look(node, terms).await {
            Ok(footprint) => return Ok(footprint),
            Err(left) => left,
        };
        if Instant::now() >= deadline {
            bail!("{} is not at rest after {} s: {left:#}", node.name, terms.patience.as_secs());
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until this process maps no memory of any queue-proxy any more: the SDK has given all of it back.
///
/// # Errors
/// It still does after `patience`; says what.
pub async fn nothing_mapped(patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let maps = fs::read_to_string("/proc/self/maps").context("what this process maps")?;
        let left = mapped_segments(&maps);
        if left.is_empty() {
            return Ok(());
        }
        let (count, first) = (left.len(), left[0]);
        ensure!(Instant::now() < deadline, "the SDK still maps {count} segments, the first is {first}");
        sleep(Duration::from_millis(500)).await;
    }
}

fn mapped_segments(maps: &str) -> Vec<&str> {
    maps.lines().filter(|line| line.contains(" /memfd:")).collect()
}

async fn look(node: &Node, terms: Terms) -> Result<Footprint> {
    let parts = node.parts();
    // The admin port is on the loopback of the node's own namespace.
    let (status, metrics) = node
        .site
        .run(async move {
            let parts = parts.lock().await;
            (parts.queue_proxy.status().await, parts.queue_proxy.metrics().await)
        })
        .await?;
    let (status, metrics) = (status?, metrics?);
    ensure!(
        status.held.payloads == 0 && status.held.bytes == 0,
        "holds {:?} {:?}",
        status.held,
        status.payloads
    );
    ensure!(status.in_flight.bytes == 0, "in flight: {:?}", status.in_flight);
    for name in ["zipline_breaker_in_flight", "zipline_breaker_queue_length", "zipline_buffer_waiters"] {
        let level = gauge(&metrics, name).unwrap_or(0.0);
        ensure!(level == 0.0, "{name} is {level}");
    }
    let parts = node.parts();
    let parts = parts.lock().await;
    let (now, before) = (Footprint::of(&parts.queue_proxy.process)?, &parts.before);
    for (kind, count) in &now.descriptors {
        let had = before.descriptors.get(kind).copied().unwrap_or(0);
        let may = match (terms.full, kind.as_str()) {
            (true, _) => had + SLACK,
            (false, CONNECTIONS) => had + IDLE_CONNECTIONS,
            (false, "memfd") => continue,
            (false, _) => had + SLACK,
        };
        ensure!(
            *count <= may,
            "{count} descriptors of kind {kind}, {had} at its start: {:?}",
            now.descriptors
        );
    }
    if terms.full {
        let (resident, may) = (now.resident_bytes, terms.resident_bytes);
        ensure!(resident <= may, "{resident} bytes of memory resident, {may} may be");
        let (threads, had) = (now.threads, before.threads);
        ensure!(threads <= had + SLACK, "{threads} threads, {had} at its start");
    }
    Ok(now)
}

/// The sum of a metric over its labels; none if it is not there.
fn gauge(exposition: &str, name: &str) -> Option<f64> {
    let lines = exposition
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_kinds() {
        let kinds =
            ["socket:[12]", "/memfd:zipline (deleted)", "anon_inode:[eventpoll]", "/dev/null", "pipe:[3]"];
        assert_eq!(kinds.map(kind), ["socket", "memfd", "[eventpoll]", "file", "pipe"]);
    }

    #[test]
    fn segments_are_told_from_other_mappings() {
        let maps =
            "7f1-7f2 rw-p 00000000 00:00 0\n7f3-7f4 r--s 00000000 00:01 12   /memfd:zipline (deleted)\n";
        assert_eq!(mapped_segments(maps).len(), 1);
    }

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3\na_b 7\n";
        assert_eq!(gauge(text, "a"), Some(5.0));
        assert_eq!(gauge(text, "a_b"), Some(7.0));
        assert_eq!(gauge(text, "b"), None);
    }
}
