//! Functions that know each other, the gateway between them, and the links that can be cut.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use zipline_testkit::gateway::PlainGateway;

use crate::network::{ADDRESSES, Network};
use crate::node::{Node, Setting};
use crate::site::Site;

/// Functions in each world.
const NODES: usize = 4;

/// Some functions, and what is between them.
#[derive(Debug)]
pub struct World {
    /// `loopback` or `namespaces`.
    pub name: &'static str,
    /// The functions.
    pub nodes: Vec<Node>,
    /// Knows them all.
    pub gateway: PlainGateway,
    /// The link, if it is none of relays.
    pub network: Option<Network>,
}

impl World {
    /// All on loopback; links to data ports are relays.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn on_loopback(setting: Setting) -> Result<Self> {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let site = Arc::new(Site::here(localhost));
        let gateway = PlainGateway::start().await?;
        Self::assemble("loopback", &[site], gateway, None, setting).await
    }

    /// Half of the functions in each of two network namespaces.
    ///
    /// # Errors
    /// They cannot be made, or something does not start.
    pub async fn in_namespaces(setting: Setting) -> Result<Self> {
        let network = Network::make()?;
        let mut sites = Vec::new();
        for (name, ip) in network.names().iter().zip(ADDRESSES) {
            sites.push(Arc::new(Site::within(name, ip).await?));
        }
        let ip = sites[0].ip;
        let gateway = sites[0].run(async move { PlainGateway::start_on(ip).await }).await??;
        Self::assemble("namespaces", &sites, gateway, Some(network), setting).await
    }

    async fn assemble(
        name: &'static str,
        sites: &[Arc<Site>],
        gateway: PlainGateway,
        network: Option<Network>,
        mut setting: Setting,
    ) -> Result<Self> {
        setting.gateway = gateway.address;
        setting.functions = (0..NODES).map(|index| format!("{name}{index}.default")).collect();
        let mut nodes = Vec::new();
        for (index, function) in setting.functions.iter().enumerate() {
            let site = Arc::clone(&sites[index % sites.len()]);
            let node = Node::start(function, site, network.is_none(), setting.clone()).await;
            nodes.push(node.with_context(|| format!("start {function}"))?);
        }
        let world = Self { name, nodes, gateway, network };
        for node in &world.nodes {
            world.route(node);
        }
        Ok(world)
    }

    /// Tells the gateway where a node is now.
    pub fn route(&self, node: &Node) {
        self.gateway.route(&node.name, node.doors().inbound);
    }
}
