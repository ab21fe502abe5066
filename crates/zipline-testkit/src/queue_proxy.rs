//! The real queue-proxy, started as the standalone engine starts it.

mod status;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use zipline_protocol::control::{EngineMessage, KeyMessage, KeyringMessage, QueueProxyMessage};

pub use status::{EdgeStatus, HeldStatus, InFlightStatus, PayloadStatus, Status};

use crate::client::{Call, Protocol};
use crate::owner::Owner;
use crate::process::Process;
use crate::{binaries, pattern, wait};

/// How long the word about receivers is believed, as the engine says it.
const TOLD_SECONDS: u64 = 60;
/// How often it is repeated, as the engine repeats it.
const TOLD_AGAIN: Duration = Duration::from_secs(20);

/// The tenant of all functions unless a test says otherwise.
pub const TENANT: &str = "default";

/// The secret of a test key: 32 bytes that depend on the serial alone.
#[must_use]
pub fn secret(serial: u32) -> Vec<u8> {
    pattern::bytes(u64::from(serial) + 1_000_000, 0, 32).to_vec()
}

/// A keyring of test keys.
#[must_use]
pub fn keyring(tenant: &str, serials: &[u32], seal_with: Option<u32>) -> KeyringMessage {
    let key = |serial: &u32| KeyMessage { serial: *serial, secret: URL_SAFE_NO_PAD.encode(secret(*serial)) };
    KeyringMessage { tenant: tenant.to_owned(), keys: serials.iter().map(key).collect(), seal_with }
}

/// How to start a queue-proxy.
#[derive(Debug, Clone)]
pub struct QueueProxyConfig {
    /// `service.namespace`.
    pub function: String,
    /// Where the function listens; none for a guest.
    pub user: Option<SocketAddr>,
    /// Where functions are reached.
    pub gateway: SocketAddr,
    /// `off`, `receive` or `on`.
    pub mode: &'static str,
    /// From this size on payloads are deferred.
    pub threshold_bytes: u64,
    /// Budget of held payloads.
    pub budget_bytes: u64,
    /// Budget of payloads in flight.
    pub in_flight_bytes: u64,
    /// Requests the function takes at a time; 0: any number.
    pub concurrency: u32,
    /// Longest time of a request.
    pub timeout_seconds: u64,
    /// Address in references, in place of the data port's own.
    pub advertise: Option<SocketAddr>,
    /// The first keyring; none: no keys at all.
    pub keyring: Option<KeyringMessage>,
    /// Functions told to open references.
    pub receivers: Vec<String>,
    /// Further variables.
    pub variables: Vec<(String, String)>,
}

impl QueueProxyConfig {
    /// A queue-proxy in mode `on` with a threshold of 128 KiB, a budget of 256 MiB and one key.
    #[must_use]
    pub fn new(function: &str, user: SocketAddr, gateway: SocketAddr) -> Self {
        Self {
            function: function.to_owned(),
            user: Some(user),
            gateway,
            mode: "on",
            threshold_bytes: 128 * 1024,
            budget_bytes: 256 << 20,
            in_flight_bytes: 256 << 20,
            concurrency: 0,
            timeout_seconds: 120,
            advertise: None,
            keyring: Some(keyring(TENANT, &[1], Some(1))),
            receivers: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Tells it from the start that these functions open references.
    #[must_use]
    pub fn told(mut self, receivers: &[&str]) -> Self {
        self.receivers = receivers.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    fn command(&self, token: &str, socket: &std::path::Path) -> Result<Command> {
        let (service, namespace) = self.function.split_once('.').context("no service.namespace")?;
        let mut command = Command::new(binaries::queue_proxy()?);
        // Whatever the tests were started with is none of its settings.
        command.env_clear();
        let mut set = |name: &str, value: String| {
            command.env(name, value);
        };
        if let Some(user) = self.user {
            set("USER_PORT", user.port().to_string());
            let probe = serde_json::json!({
                "tcpSocket": { "host": user.ip().to_string(), "port": user.port() }, "successThreshold": 1
            });
            set("SERVING_READINESS_PROBE", probe.to_string());
        } else {
            set("ZIPLINE_GUEST", "1".to_owned());
        }
        set("CONTAINER_CONCURRENCY", self.concurrency.to_string());
        set("REVISION_TIMEOUT_SECONDS", self.timeout_seconds.to_string());
        set("SERVING_NAMESPACE", namespace.to_owned());
        set("SERVING_SERVICE", service.to_owned());
        set("SERVING_REVISION", format!("{service}-00001"));
        set("SERVING_POD", format!("{service}-00001-1"));
        set("ZIPLINE_MODE", self.mode.to_owned());
        set("ZIPLINE_THRESHOLD_BYTES", self.threshold_bytes.to_string());
        set("ZIPLINE_BUDGET_BYTES", self.budget_bytes.to_string());
        set("ZIPLINE_INFLIGHT_BYTES", self.in_flight_bytes.to_string());
        set("ZIPLINE_GATEWAY", self.gateway.to_string());
        set("ZIPLINE_TOKEN", token.to_owned());
        set("ZIPLINE_SOCKET", socket.display().to_string());
        set("ZIPLINE_CONTROL", "stdin".to_owned());
        if let Some(advertise) = self.advertise {
            set("ZIPLINE_ADVERTISE", advertise.to_string());
        }
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        Ok(command)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Said {
    listening: Option<Ports>,
    ready: bool,
    drained: bool,
    gone: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    inbound: Option<SocketAddr>,
    api: SocketAddr,
    data: SocketAddr,
    admin: SocketAddr,
}

/// A running queue-proxy; killed when dropped.
#[derive(Debug)]
pub struct QueueProxy {
    /// The process.
    pub process: Process,
    /// Secret of its local API.
    pub token: String,
    /// Path of its Unix socket.
    pub socket: PathBuf,
    ports: Ports,
    orders: mpsc::Sender<EngineMessage>,
    said: watch::Receiver<Said>,
    _owner: Owner,
    _directory: tempfile::TempDir,
}

impl QueueProxy {
    /// Starts a queue-proxy and waits until its ports are bound.
    ///
    /// # Errors
    /// It ended before; the error has its log.
    pub async fn start(config: QueueProxyConfig) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("api.sock");
        let token = format!("secret-of-{}", config.function);
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        // They lie in the socket before there is a process to read them, so that it knows all from its first request on.
        let keyring = config.keyring.clone().map(EngineMessage::Keyring);
        for message in keyring.into_iter().chain([told(&config.receivers)]) {
            ours.write_all(&line(&message)?)?;
        }
        ours.set_nonblocking(true)?;
        let mut command = config.command(&token, &socket)?;
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let process = Process::start(&mut command)?;
        // The command keeps its end of the pair; only the child may have it, or its end would never be seen.
        drop(command);

        let (from, mut to) = UnixStream::from_std(ours)?.into_split();
        let (orders, mut queue) = mpsc::channel::<EngineMessage>(16);
        let (say, mut said) = watch::channel(Said::default());
        let owner = Owner::default();
        owner.spawner().spawn(async move {
            let mut receivers = config.receivers;
            let mut again = tokio::time::interval(TOLD_AGAIN);
            loop {
                let order = tokio::select! {
                    order = queue.recv() => match order {
                        Some(order) => order,
                        None => return,
                    },
                    _ = again.tick() => told(&receivers),
                };
                if let EngineMessage::Receivers { functions, .. } = &order {
                    receivers.clone_from(functions);
                }
                if let Ok(line) = line(&order) {
                    drop(to.write_all(&line).await);
                }
            }
        });
        owner.spawner().spawn(async move {
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(message) = serde_json::from_str::<QueueProxyMessage>(&line) {
                    say.send_modify(|said| note(said, &message));
                }
            }
            say.send_modify(|said| said.gone = true);
        });

        let bound = said.wait_for(|said| said.listening.is_some() || said.gone);
        let bound = tokio::time::timeout(wait::PATIENCE, bound).await;
        let ports = bound.ok().and_then(Result::ok).and_then(|said| said.listening);
        let ports = ports.with_context(|| format!("queue-proxy never listened:\n{}", process.log()))?;
        Ok(Self { process, token, socket, ports, orders, said, _owner: owner, _directory: directory })
    }

    /// Starts a queue-proxy and waits until its function is ready.
    ///
    /// # Errors
    /// It ended before; the error has its log.
    pub async fn start_ready(config: QueueProxyConfig) -> Result<Self> {
        let queue_proxy = Self::start(config).await?;
        queue_proxy.ready().await?;
        Ok(queue_proxy)
    }

    /// Waits until the function is ready.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn ready(&self) -> Result<()> {
        self.wait("ready", |said| said.ready).await
    }

    /// Waits until it says that it has drained.
    ///
    /// # Errors
    /// It does not.
    pub async fn drained(&self) -> Result<()> {
        self.wait("drained", |said| said.drained).await
    }

    async fn wait(&self, what: &str, condition: impl Fn(&Said) -> bool) -> Result<()> {
        let mut said = self.said.clone();
        let waited = tokio::time::timeout(wait::PATIENCE, said.wait_for(|said| condition(said) || said.gone));
        match waited.await.ok().and_then(Result::ok) {
            Some(said) if condition(&said) => Ok(()),
            _ => Err(anyhow!("queue-proxy never became {what}:\n{}", self.process.log())),
        }
    }

    /// Its port for requests to the function.
    ///
    /// # Panics
    /// If it is a guest.
    #[must_use]
    pub fn inbound(&self) -> SocketAddr {
        self.ports.inbound.expect("only guests have no inbound port, and tests know which they started")
    }

    /// Local API and forward proxy.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.ports.api
    }

    /// Data port.
    #[must_use]
    pub fn data(&self) -> SocketAddr {
        self.ports.data
    }

    /// Health, metrics, status.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.ports.admin
    }

    /// Tells it which functions open references, in place of those told before.
    ///
    /// # Errors
    /// It is gone.
    pub async fn tell_receivers(&self, functions: &[&str]) -> Result<()> {
        let functions = functions.iter().map(|name| (*name).to_owned()).collect();
        self.order(EngineMessage::Receivers { functions, valid_seconds: TOLD_SECONDS }).await
    }

    /// Gives it other keys.
    ///
    /// # Errors
    /// It is gone.
    pub async fn install(&self, keyring: KeyringMessage) -> Result<()> {
        self.order(EngineMessage::Keyring(keyring)).await
    }

    /// Lets it finish and end.
    ///
    /// # Errors
    /// It is gone.
    pub async fn drain(&self, grace_seconds: u64) -> Result<()> {
        self.order(EngineMessage::Drain { grace_seconds }).await
    }

    async fn order(&self, order: EngineMessage) -> Result<()> {
        self.orders.send(order).await.map_err(|_| anyhow!("the control channel is closed"))
    }

    /// Stops it, as SIGSTOP does.
    ///
    /// # Errors
    /// It is gone.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn go_on(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// A request to a path of its local API, with its token.
    #[must_use]
    pub fn local(&self, protocol: Protocol, method: Method, path: impl Into<String>) -> Call {
        Call::new(protocol, method, path).header("zipline-token", &self.token)
    }

    /// An invoke through its local API.
    #[must_use]
    pub fn invoke(&self, protocol: Protocol, method: Method, function: &str, path: &str) -> Call {
        self.local(protocol, method, format!("/v1/invoke/{function}{path}"))
    }

    /// Its `/status`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self) -> Result<Status> {
        let reply = Call::new(Protocol::Http1, Method::GET, "/status").send(self.admin()).await?;
        serde_json::from_slice(&reply.bytes).with_context(|| format!("status: {}", reply.text()))
    }

    /// Its `/metrics`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(Call::new(Protocol::Http1, Method::GET, "/metrics").send(self.admin()).await?.text())
    }

    /// Waits until it holds nothing at all.
    ///
    /// # Errors
    /// It still does; the error names what.
    pub async fn holds_nothing(&self) -> Result<Status> {
        wait::until("nothing held", || async {
            let status = self.status().await?;
            let empty = status.held.bytes == 0 && status.held.payloads == 0 && status.in_flight.bytes == 0;
            anyhow::ensure!(empty, "{:?} {:?} {:?}", status.held, status.in_flight, status.payloads);
            Ok(Some(status))
        })
        .await
    }
}

fn note(said: &mut Said, message: &QueueProxyMessage) {
    match *message {
        QueueProxyMessage::Listening { inbound, api, data, admin } => {
            said.listening = Some(Ports { inbound, api, data, admin });
        }
        QueueProxyMessage::Ready => said.ready = true,
        QueueProxyMessage::NotReady => said.ready = false,
        QueueProxyMessage::Drained => said.drained = true,
    }
}

fn told(receivers: &[String]) -> EngineMessage {
    EngineMessage::Receivers { functions: receivers.to_vec(), valid_seconds: TOLD_SECONDS }
}

fn line(message: &EngineMessage) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
