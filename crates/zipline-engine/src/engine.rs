//! The engine as a whole: what it binds, runs and ends, in that order.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use zipline_http::{Client, ClientConfig, ServeLimits, serve};
use zipline_protocol::Mode;
use zipline_runtime::Tasks;

use crate::config::EngineConfig;
use crate::context::{Context, Counts, reachable};
use crate::control::Control;
use crate::error::EngineError;
use crate::function::Function;
use crate::gateway::{Functions, Gateway};
use crate::instance::{Trust, find_program};
use crate::keys::Keys;
use crate::logs::Logs;
use crate::manifest::ServiceManifest;
use crate::metrics::GatewayMetrics;
use crate::state::{Lock, Register, StateDir};

/// Connections of the gateway to instances.
const CONNECTIONS_MAX: usize = 16_384;
/// What responses may still take once their instances have ended: only bytes in socket buffers are left.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// What reading the last lines may still take: a process that left its group could keep a pipe open for ever.
const LAST_LINES: Duration = Duration::from_millis(200);

/// An engine that holds its sockets and its state directory, and runs nothing yet.
#[derive(Debug)]
pub struct Engine {
    context: Arc<Context>,
    functions: Functions,
    metrics: Arc<GatewayMetrics>,
    gateway: TcpListener,
    control: UnixListener,
    listen: SocketAddr,
    _lock: Lock,
}

/// What an engine did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Instances started.
    pub started: u64,
    /// Instances that failed.
    pub failed: u64,
    /// Functions that had to be killed because they did not end by themselves.
    pub killed: u64,
    /// Requests that came to the gateway.
    pub requests: u64,
}

impl Engine {
    /// Checks everything that can be checked, becomes the one engine of the state directory, ends what a crashed one
    /// left there, and binds the gateway and the control socket.
    ///
    /// # Errors
    /// [`EngineError`]; nothing is bound or running then.
    pub async fn bind(config: EngineConfig, services: Vec<ServiceManifest>) -> Result<Self, EngineError> {
        if services.is_empty() {
            return Err(EngineError::NoServices);
        }
        for program in [&config.programs.zipline, &config.programs.queue_proxy] {
            if !fs::metadata(program)
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
            {
                return Err(EngineError::Program { path: program.clone() });
            }
        }
        let programs = find_programs(&config, &services)?;
        let state = StateDir::open(&config.state_dir)?;
        let lock = state.lock()?;
        for leftover in state.end_recorded()? {
            tracing::warn!(
                pid = leftover.pid,
                what = leftover.what,
                "ended a process that a crashed engine left"
            );
        }
        let trust = decide_trust(&config, &state, &services, &programs)?;

        let listen_error = |source| EngineError::Listen { address: config.listen, source };
        let gateway = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let listen = gateway.local_addr().map_err(listen_error)?;
        let control = bind_control(&state.control_socket())?;

        let metrics = Arc::new(GatewayMetrics::new());
        let receivers =
            services.iter().filter(|service| service.settings.mode.unwrap_or(config.mode) != Mode::Off);
        let receivers = receivers.map(|service| service.name.clone()).collect();
        let keys = Keys::new(services.iter().map(|service| service.name.namespace()));
        let keys = keys.map_err(|_| EngineError::Random)?;
        let functions: BTreeMap<_, _> = services
            .into_iter()
            .zip(programs)
            .map(|(service, program)| {
                let counters = metrics.of(&service.name);
                (service.name.clone(), Function::new(service, program, config.held_max, counters))
            })
            .collect();
        let context = Context {
            register: Register::new(state.clone()),
            logs: Logs::new(state.logs()),
            keys,
            trust,
            gateway: reachable(listen),
            receivers,
            tasks: Tasks::new(),
            log_tasks: Tasks::new(),
            numbers: AtomicU64::new(0),
            counts: Counts::default(),
            guests: Mutex::new(Vec::new()),
            state,
            config,
        };
        Ok(Self {
            context: Arc::new(context),
            functions: Arc::new(functions),
            metrics,
            gateway,
            control,
            listen,
            _lock: lock,
        })
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn gateway_address(&self) -> SocketAddr {
        self.listen
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.context.state.control_socket()
    }

    /// One sentence on who can reach whom.
    #[must_use]
    pub fn trust(&self) -> String {
        self.context.trust.sentence()
    }

    /// What the manifests say without effect here: service and sentence.
    #[must_use]
    pub fn notes(&self) -> Vec<(String, String)> {
        let of = |function: &Arc<Function>| {
            let name = function.manifest.name.to_string();
            function.manifest.notes.iter().map(move |note| (name.clone(), note.clone())).collect::<Vec<_>>()
        };
        self.functions.values().flat_map(of).collect()
    }

    /// Serves until `shutdown` is cancelled, by the caller or by `POST /v1/down`. Then the gateway accepts no more, each
    /// instance finishes what runs, within the grace, and every process that was started is ended.
    ///
    /// # Errors
    /// None at present: failures of instances show in the status. The type leaves room.
    ///
    /// # Cancel safety
    /// Dropped, every process is killed at once.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Summary, EngineError> {
        let Self { context, functions, metrics, gateway, control, _lock, .. } = self;
        let started_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        tracing::info!(gateway = %context.gateway, trust = context.trust.sentence(), "engine runs");

        let (front, back) = (Tasks::new(), Tasks::new());
        let clients = Tasks::new();
        let config = ClientConfig { max_connections: CONNECTIONS_MAX, ..ClientConfig::default() };
        let client = Client::new(config, clients.clone());
        // A held request outlives the instance that it waits for a little, to be told why that failed.
        let hold = context.config.ready_timeout + Duration::from_secs(5);
        let door = Gateway::new(functions.clone(), client.clone(), front.clone(), hold);
        front.spawn("gateway", serve(gateway, door, ServeLimits::default(), front.clone()));
        let handler = Control {
            context: context.clone(),
            functions: functions.clone(),
            client,
            metrics,
            shutdown: shutdown.clone(),
            started_unix_ms: u64::try_from(started_unix_ms).unwrap_or(u64::MAX),
        };
        back.spawn("control socket", serve(control, handler, ServeLimits::default(), back.clone()));

        let stop = CancellationToken::new();
        let kept: Vec<_> = functions
            .values()
            .map(|function| {
                context.tasks.spawn("function", function.clone().keep(context.clone(), stop.clone()))
            })
            .collect();

        shutdown.cancelled().await;
        tracing::info!("engine ends");
        front.cancel();
        stop.cancel();
        for function in kept {
            // A panic was logged by its owner.
            let _ = function.await;
        }
        // What is left: ends of failed instances, and guests.
        context.tasks.shutdown(context.config.grace + LAST_BYTES).await;
        context.log_tasks.shutdown(LAST_LINES).await;
        front.shutdown(LAST_BYTES).await;
        back.shutdown(LAST_BYTES).await;
        clients.shutdown(Duration::ZERO).await;
        // The guard ends what escaped, too; without one, this is all there is.
        for stray in context.state.end_strays() {
            tracing::warn!(pid = stray.pid, "ended a process that a function left behind");
        }
        let _ = fs::remove_file(context.state.control_socket());
        let counts = &context.counts;
        Ok(Summary {
            started: counts.started.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            killed: counts.killed.load(Ordering::Relaxed),
            requests: functions.values().map(|function| function.counters.requests.get()).sum(),
        })
    }
}

/// The program of each service, in their order; every one that is missing is reported.
fn find_programs(config: &EngineConfig, services: &[ServiceManifest]) -> Result<Vec<PathBuf>, EngineError> {
    let mut findings = Vec::new();
    let mut programs = Vec::new();
    for service in services {
        match find_program(service, config) {
            Ok(program) => programs.push(program),
            Err(error) => findings.push(error),
        }
    }
    if findings.is_empty() { Ok(programs) } else { Err(EngineError::Commands { findings }) }
}

fn decide_trust(
    config: &EngineConfig,
    state: &StateDir,
    services: &[ServiceManifest],
    programs: &[PathBuf],
) -> Result<Trust, EngineError> {
    let commands: Vec<_> = services.iter().zip(programs.iter().cloned()).collect();
    let trust = Trust::decide(
        config.instance_uids,
        rustix::process::geteuid().is_root(),
        state.path(),
        &commands,
        &config.programs.queue_proxy,
        &config.programs.zipline,
    )?;
    if trust == Trust::UserPerInstance {
        state.let_pass()?;
    }
    state.make_host(trust == Trust::UserPerInstance)?;
    Ok(trust)
}

/// Binds the control socket. The lock is held, so a socket that is there belongs to nobody any more.
fn bind_control(path: &Path) -> Result<UnixListener, EngineError> {
    let fail = |source| EngineError::Control { path: path.to_path_buf(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}
