//! Two network namespaces joined by a pair of virtual interfaces; made by `ip`, removed when dropped.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The addresses of the two ends.
pub const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 213, 77, 1)), IpAddr::V4(Ipv4Addr::new(10, 213, 77, 2))];

/// The interface's name in both of them.
const DEVICE: &str = "zl0";

/// Two namespaces and the link between them.
#[derive(Debug)]
pub struct Network {
    names: [String; 2],
}

impl Network {
    /// Makes them, under names that no other run has.
    ///
    /// # Errors
    /// This process may not, or there is no `ip`.
    pub fn make() -> Result<Self> {
        let process = std::process::id();
        let network = Self { names: [format!("zlsoak-{process}-a"), format!("zlsoak-{process}-b")] };
        for name in &network.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        let [a, b] = &network.names;
        ip(&["-n", a, "link", "add", "name", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", b])?;
        for (name, address) in network.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", DEVICE])?;
            ip(&["-n", name, "link", "set", DEVICE, "up"])?;
        }
        Ok(network)
    }

    /// Names of the namespaces.
    #[must_use]
    pub fn names(&self) -> &[String; 2] {
        &self.names
    }

    /// Takes the link down, or up again.
    ///
    /// # Errors
    /// The namespaces are gone.
    pub fn set_link(&self, up: bool) -> Result<()> {
        ip(&["-n", &self.names[0], "link", "set", DEVICE, if up { "up" } else { "down" }])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            drop(ip(&["netns", "delete", name]));
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    let output =
        command.args(arguments).stdin(Stdio::null()).output().context("run ip (package iproute2)")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), complaint.trim());
    Ok(())
}
