//! Two network namespaces joined by a virtual cable, as two hosts would be.
//!
//! They have no names: each lives as long as its holder process, which ends with this one, so there is nothing to be left behind.
//! Each side has two addresses on the cable. The route between the first ones carries the congestion control that was asked for,
//! so that every program uses it, whatever it sets or does not set; peers and limits use these. The second ones are left as the
//! system has them: Zipline's queue-proxies use these and have to help themselves.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};

use super::launch::{self, Owned};

const CABLE: &str = "cable";

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    A,
    B,
}

/// The pair of namespaces.
#[derive(Debug)]
pub(super) struct Network {
    a: Owned,
    b: Owned,
}

impl Network {
    /// Makes both and joins them. `congestion` is for the first addresses and loopback; `None` leaves all as it is.
    ///
    /// # Errors
    /// Without the right to make network namespaces, or without `unshare` and `ip`.
    pub(super) fn make(mtu: u32, congestion: Option<&str>) -> anyhow::Result<Self> {
        let network = Self { a: holder()?, b: holder()? };
        let file = network.file(Host::A);
        let other = network.b.id().to_string();
        let mtu = mtu.to_string();
        ip(
            &file,
            &[
                "link", "add", CABLE, "mtu", &mtu, "type", "veth", "peer", "name", CABLE, "mtu", &mtu,
                "netns", &other,
            ],
        )?;
        for host in [Host::A, Host::B] {
            let file = network.file(host);
            for address in [peer_address(host), address(host)] {
                ip(&file, &["address", "add", &format!("{address}/24"), "dev", CABLE])?;
            }
            ip(&file, &["link", "set", CABLE, "up"])?;
            if let Some(name) = congestion {
                ip(&file, &["route", "replace", "10.77.0.0/24", "dev", CABLE, "congctl", name])?;
                ip(
                    &file,
                    &[
                        "route",
                        "replace",
                        "local",
                        "127.0.0.0/8",
                        "dev",
                        "lo",
                        "table",
                        "local",
                        "src",
                        "127.0.0.1",
                        "congctl",
                        name,
                    ],
                )?;
            }
        }
        Ok(network)
    }

    /// The namespace's file.
    pub(super) fn file(&self, host: Host) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder(host)))
    }

    /// Bytes that a host has put on the cable so far.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(super) fn sent_bytes(&self, host: Host) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/net/dev", self.holder(host));
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(CABLE)?.strip_prefix(':'));
        // The ninth number is what was sent.
        line.and_then(|numbers| numbers.split_whitespace().nth(8)?.parse().ok())
            .with_context(|| format!("no counter of {CABLE} in {path}"))
    }

    fn holder(&self, host: Host) -> u32 {
        match host {
            Host::A => self.a.id(),
            Host::B => self.b.id(),
        }
    }
}

/// The address whose routes carry the congestion control asked for.
pub(super) fn peer_address(host: Host) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, number(host)).into()
}

/// The address whose routes are as the system has them.
pub(super) fn address(host: Host) -> IpAddr {
    Ipv4Addr::new(10, 77, 1, number(host)).into()
}

fn number(host: Host) -> u8 {
    match host {
        Host::A => 1,
        Host::B => 2,
    }
}

/// A process in a new namespace that lives until its standard input ends.
fn holder() -> anyhow::Result<Owned> {
    let child = launch::command(None, None, "unshare")?
        .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start unshare (util-linux)")?;
    let mut holder = Owned(child);
    let mut line = String::new();
    let said = holder.0.stdout.take().context("standard output of the namespace's holder")?;
    BufReader::new(said).read_line(&mut line).context("the namespace's holder")?;
    ensure!(
        line == "ready\n",
        "cannot make a network namespace; as root it can be done, or measure one host only with --paths same-host"
    );
    Ok(holder)
}

fn ip(namespace: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        launch::command(Some(namespace), None, "ip")?.args(arguments).output().context("ip (iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
