//! A minimal gateway: routes by host, counts bytes, and forwards everything else as it is.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::forward::{self, Traffic};
use crate::owner::Owner;

type Routes = Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>;

/// A running gateway; it ends when dropped.
#[derive(Debug)]
pub struct PlainGateway {
    /// Where it listens.
    pub address: SocketAddr,
    /// Bytes between it and its clients.
    pub traffic: Arc<Traffic>,
    routes: Routes,
    _owner: Owner,
}

impl PlainGateway {
    /// Starts a gateway without routes.
    ///
    /// # Errors
    /// No port.
    pub async fn start() -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same on a free port of `ip`.
    ///
    /// # Errors
    /// No port.
    pub async fn start_on(ip: IpAddr) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let (owner, traffic, routes) = (Owner::default(), Arc::<Traffic>::default(), Routes::default());
        let (spawner, table, turn) = (owner.spawner(), Arc::clone(&routes), Arc::new(AtomicUsize::new(0)));
        forward::serve(listener, &owner.spawner(), Arc::clone(&traffic), move |request| {
            let target = table.lock().get(&forward::host_of(&request)).and_then(|targets| {
                targets.get(turn.fetch_add(1, Ordering::Relaxed) % targets.len().max(1)).copied()
            });
            let spawner = spawner.clone();
            async move {
                match target {
                    Some(target) => forward::forward(request, target, spawner).await,
                    None => forward::text(StatusCode::NOT_FOUND, "no such function\n"),
                }
            }
        });
        Ok(Self { address, traffic, routes, _owner: owner })
    }

    /// Routes `service.namespace` to one address, in place of what was there.
    pub fn route(&self, function: &str, target: SocketAddr) {
        self.route_all(function, vec![target]);
    }

    /// Routes `service.namespace` to several addresses in turn.
    pub fn route_all(&self, function: &str, targets: Vec<SocketAddr>) {
        self.routes.lock().insert(format!("{function}.svc.cluster.local"), targets);
    }
}
