//! A function with its queue-proxy; both can be killed and come back.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::RwLock;
use rustix::process::Signal;
use tokio::sync::Mutex;
use zipline_testkit::process::Process;
use zipline_testkit::queue_proxy::{QueueProxy, QueueProxyConfig};
use zipline_testkit::relay::Relay;
use zipline_testkit::wait;

use crate::rest::Footprint;
use crate::site::Site;

/// Memory for payloads that a queue-proxy holds: room for two of the largest.
const BUDGET_BYTES: u64 = 768 << 20;
/// Memory for payloads on their way.
const IN_FLIGHT_BYTES: u64 = 256 << 20;

/// What workers need to know of a running queue-proxy.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Local API and forward proxy.
    pub api: SocketAddr,
    /// The same over a Unix socket.
    pub socket: PathBuf,
    /// The secret of both.
    pub token: String,
    /// Requests to the function.
    pub inbound: SocketAddr,
}

/// What every node of a world has in common.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where functions are reached.
    pub gateway: SocketAddr,
    /// All functions of this world.
    pub functions: Vec<String>,
    /// This program, which is the function as well.
    pub program: PathBuf,
    /// Where journals are written.
    pub directory: PathBuf,
    /// Where those who are to find each other on this host do so.
    pub host: PathBuf,
}

/// A function and its queue-proxy.
#[derive(Debug)]
pub struct Node {
    /// `service.namespace`.
    pub name: String,
    /// Where it runs.
    pub site: Arc<Site>,
    /// Between its data port and those who retrieve from it, where links are relays.
    pub relay: Option<Relay>,
    doors: RwLock<Doors>,
    function_address: SocketAddr,
    journal: PathBuf,
    setting: Setting,
    parts: Arc<Mutex<Parts>>,
}

/// What is killed and started again. Only trouble and the last checks touch it.
#[derive(Debug)]
pub struct Parts {
    /// The function's process.
    pub function: Process,
    /// The queue-proxy.
    pub queue_proxy: QueueProxy,
    /// Of the queue-proxy when it had just started.
    pub before: Footprint,
}

impl Node {
    /// Starts both.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start(name: &str, site: Arc<Site>, with_relay: bool, setting: Setting) -> Result<Self> {
        let journal = setting.directory.join(format!("{name}.journal"));
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (function, function_address) = start_function(&site, &setting, &journal, free).await?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let relay = if with_relay { Some(Relay::start(nowhere).await?) } else { None };
        let advertise = relay.as_ref().map(|relay| relay.address);
        let config = config(name, &setting, function_address, &site, advertise);
        let queue_proxy = site.run(QueueProxy::start_ready(config)).await??;
        if let Some(relay) = &relay {
            relay.set_target(queue_proxy.data());
        }
        let doors = RwLock::new(doors(&queue_proxy));
        let before = Footprint::of(&queue_proxy.process)?;
        let parts = Arc::new(Mutex::new(Parts { function, queue_proxy, before }));
        let name = name.to_owned();
        Ok(Self { name, site, relay, doors, function_address, journal, setting, parts })
    }

    /// Where its queue-proxy listens now.
    #[must_use]
    pub fn doors(&self) -> Doors {
        self.doors.read().clone()
    }

    /// Its processes.
    #[must_use]
    pub fn parts(&self) -> Arc<Mutex<Parts>> {
        Arc::clone(&self.parts)
    }

    /// What its function wrote down in all its lives.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn journal(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.journal)?)
    }

    /// Kills the function and starts it again on the same port.
    ///
    /// # Errors
    /// It does not start.
    pub async fn renew_function(&self) -> Result<()> {
        let mut parts = self.parts.lock().await;
        parts.function.kill()?;
        let address = self.function_address;
        (parts.function, _) = start_function(&self.site, &self.setting, &self.journal, address).await?;
        Ok(())
    }

    /// Ends the queue-proxy, by SIGKILL or, if `drains`, in good order, and starts another one.
    ///
    /// # Errors
    /// It does not start.
    pub async fn renew_queue_proxy(&self, drains: bool) -> Result<()> {
        let mut parts = self.parts.lock().await;
        if drains {
            parts.queue_proxy.drain(3).await?;
            parts.queue_proxy.process.end().await?;
        } else {
            parts.queue_proxy.process.kill()?;
        }
        let advertise = self.relay.as_ref().map(|relay| relay.address);
        let config = config(&self.name, &self.setting, self.function_address, &self.site, advertise);
        parts.queue_proxy = self.site.run(QueueProxy::start_ready(config)).await??;
        parts.before = Footprint::of(&parts.queue_proxy.process)?;
        if let Some(relay) = &self.relay {
            relay.set_target(parts.queue_proxy.data());
        }
        *self.doors.write() = doors(&parts.queue_proxy);
        Ok(())
    }

    /// Sends a signal to the function.
    ///
    /// # Errors
    /// It is gone.
    pub async fn signal_function(&self, signal: Signal) -> Result<()> {
        self.parts.lock().await.function.signal(signal)
    }

    /// Sends a signal to the queue-proxy.
    ///
    /// # Errors
    /// It is gone.
    pub async fn signal_queue_proxy(&self, signal: Signal) -> Result<()> {
        self.parts.lock().await.queue_proxy.process.signal(signal)
    }
}

fn doors(queue_proxy: &QueueProxy) -> Doors {
    Doors {
        api: queue_proxy.api(),
        socket: queue_proxy.socket.clone(),
        token: queue_proxy.token.clone(),
        inbound: queue_proxy.inbound(),
    }
}

fn config(
    name: &str,
    setting: &Setting,
    function: SocketAddr,
    site: &Site,
    advertise: Option<SocketAddr>,
) -> QueueProxyConfig {
    let receivers: Vec<&str> = setting.functions.iter().map(String::as_str).collect();
    let mut config = QueueProxyConfig::new(name, function, setting.gateway).told(&receivers);
    (config.budget_bytes, config.in_flight_bytes) = (BUDGET_BYTES, IN_FLIGHT_BYTES);
    config.advertise = advertise;
    config.variables.push(("ZIPLINE_LISTEN_IP".to_owned(), site.ip.to_string()));
    // The first one has no neighbours, so that the network is used in every world.
    if setting.functions.first().is_none_or(|first| first != name) {
        config.variables.push(("ZIPLINE_HOST_DIR".to_owned(), setting.host.display().to_string()));
    }
    config.variables.push(("ZIPLINE_LOG".to_owned(), "warn".to_owned()));
    config
}

async fn start_function(
    site: &Site,
    setting: &Setting,
    journal: &Path,
    listen: SocketAddr,
) -> Result<(Process, SocketAddr)> {
    let lives = || Ok::<_, anyhow::Error>(listening(&fs::read_to_string(journal).unwrap_or_default()).len());
    let before = lives()?;
    let mut command = Command::new(&setting.program);
    command.arg("function").arg("--listen").arg(listen.to_string()).arg("--journal").arg(journal);
    let mut process = site.run(async move { Process::start(&mut command) }).await??;
    let address = wait::until("the function", || {
        let (text, ended) = (fs::read_to_string(journal).unwrap_or_default(), process.ended());
        async move {
            anyhow::ensure!(ended?.is_none(), "the function ended at once");
            Ok(listening(&text).get(before).copied())
        }
    })
    .await
    .with_context(|| process.log())?;
    Ok((process, address))
}

fn listening(journal: &str) -> Vec<SocketAddr> {
    journal.lines().filter_map(|line| line.strip_prefix("listening ")?.parse().ok()).collect()
}
