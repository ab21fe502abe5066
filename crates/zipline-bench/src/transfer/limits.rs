//! What the machine allows, measured without roles: a copy between warm buffers, and iperf3.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::launch::{self, Owned, pause};
use super::net::{self, Host};
use super::plan::{Cell, Group};
use super::role::now_ns;
use super::rows::Row;
use super::servers;
use super::systems::{Path, Pattern, State, System};
use super::world::Ground;
use tokio::time::Duration;

const IPERF_SECONDS: u32 = 2;
const IPERF_PORT: &str = "5201";
/// What iperf3 writes at a time.
const IPERF_BYTES: u64 = 128 * 1024;
const COPIES: usize = 9;

/// The row of a limit in a cell; none where it means nothing.
///
/// # Errors
/// If it cannot be measured.
pub(super) fn row(
    ground: &Ground,
    system: System,
    group: &Group,
    cell: &Cell,
) -> anyhow::Result<Option<Row>> {
    if system != System::Memcpy || cell.state != State::Warm {
        return Ok(None);
    }
    ground.stop.check()?;
    let seconds = copies(usize::try_from(cell.bytes).context("size")?);
    Ok(Row::of_seconds("transfer", system, group.path, group.shape, cell.bytes, cell.state, &seconds))
}

/// Seconds of some copies from one warm buffer to another, each of bytes that were just written.
fn copies(bytes: usize) -> Vec<f64> {
    let mut from = vec![1_u8; bytes];
    let mut to = vec![2_u8; bytes];
    let mut seconds = Vec::with_capacity(COPIES);
    for run in 0..=COPIES {
        from.fill(u8::try_from(run).unwrap_or(0));
        let began = now_ns();
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&to);
        if run > 0 {
            seconds.push((now_ns() - began) as f64 / 1e9);
        }
    }
    seconds
}

#[derive(Debug, Deserialize)]
struct Iperf {
    end: Option<IperfEnd>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct IperfEnd {
    sum_received: Option<IperfSum>,
}

#[derive(Debug, Deserialize)]
struct IperfSum {
    bits_per_second: f64,
}

/// One stream of iperf3 over the cable, as a row whose "payload" is what iperf3 writes at a time.
///
/// # Errors
/// If iperf3 fails; `None` if it or the network is not there.
pub(super) fn iperf3(ground: &Ground) -> anyhow::Result<Option<Row>> {
    let Some((network, program)) = ground.network.as_ref().zip(servers::program(&ground.tools, "iperf3"))
    else {
        return Ok(None);
    };
    let server = launch::command(Some(&network.file(Host::B)), None, &program)?
        .args(["-s", "-1", "-p", IPERF_PORT])
        .stdout(Stdio::null())
        .spawn()
        .context("iperf3")?;
    let _server = Owned(server);
    let mut tries_left = 50;
    let received = loop {
        let output = launch::command(Some(&network.file(Host::A)), None, &program)?
            .args([
                "-J",
                "-p",
                IPERF_PORT,
                "-t",
                &IPERF_SECONDS.to_string(),
                "-c",
                &net::peer_address(Host::B).to_string(),
            ])
            .output()
            .context("iperf3")?;
        // With -J an error is a report too, and some versions then exit with 0.
        let report: Iperf = serde_json::from_slice(&output.stdout).context("iperf3's report")?;
        if let Some(sum) = report.end.and_then(|end| end.sum_received) {
            break sum.bits_per_second;
        }
        tries_left -= 1;
        if tries_left == 0 {
            bail!("iperf3: {}", report.error.as_deref().unwrap_or("no sum_received in its report"));
        }
        // Its server may not listen yet.
        pause(Duration::from_millis(20));
    };
    let seconds = IPERF_BYTES as f64 * 8.0 / received;
    let shape = Pattern::OneToOne.shape(1);
    Ok(Row::of_seconds(
        "transfer",
        System::Iperf3,
        Path::Network,
        shape,
        IPERF_BYTES,
        State::Warm,
        &[seconds],
    ))
}
