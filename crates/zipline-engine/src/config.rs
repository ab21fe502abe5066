//! Settings of the engine. Read by the command line program; nothing here looks at the environment.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use zipline_protocol::{Mode, limits};

/// Default budget for payloads held, per instance, in bytes.
pub const BUDGET_DEFAULT: u64 = 256 * 1024 * 1024;
/// Default for how many requests of one function are held while none of its instances can take them.
pub const HELD_MAX_DEFAULT: usize = 1000;
/// Default for how long a function may take to become ready.
pub const READY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Default for how long what runs may take to end.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// Settings of one engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// The state directory; see [`crate::StateDir`].
    pub state_dir: PathBuf,
    /// The binaries that instances are made of.
    pub programs: Programs,
    /// The environment that functions inherit. `ZIPLINE_…` and proxy variables in it are not passed on.
    pub inherited_env: Vec<(OsString, OsString)>,
    /// Whether functions get the proxy variables, so that plain HTTP clients invoke by way of Zipline.
    pub proxy_env: bool,
    /// Whether instances get users of their own.
    pub instance_uids: InstanceUids,
    /// Mode of functions whose manifest names none.
    pub mode: Mode,
    /// Threshold of functions whose manifest names none, in bytes.
    pub threshold_bytes: u64,
    /// Memory for payloads held, per instance, for functions whose manifest names none, in bytes.
    pub budget_bytes: u64,
    /// Memory for payloads on their way to the function, per instance, in bytes; none: as much as may be held, be it by this
    /// function or by those whose manifest names no budget, so that what one instance can put another one can get.
    pub in_flight_bytes: Option<u64>,
    /// Longest payload that carries a digest, in bytes; none: the queue-proxy's default.
    pub digest_max_bytes: Option<u64>,
    /// Whether data ports speak TLS.
    pub data_tls: bool,
    /// How long a function may take from its start until it is ready.
    pub ready_timeout: Duration,
    /// How long requests and retrievals in flight may take to end at the end.
    pub grace: Duration,
    /// Requests held per function while no instance can take them; further ones are answered 503.
    pub held_max: usize,
    /// Log filter of queue-proxies, as `ZIPLINE_LOG`.
    pub queue_proxy_log: String,
}

impl EngineConfig {
    /// Defaults: gateway on 127.0.0.1:8080, mode on, proxy variables on.
    #[must_use]
    pub fn new(state_dir: PathBuf, programs: Programs) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            state_dir,
            programs,
            inherited_env: Vec::new(),
            proxy_env: true,
            instance_uids: InstanceUids::Auto,
            mode: Mode::On,
            threshold_bytes: limits::THRESHOLD_DEFAULT,
            budget_bytes: BUDGET_DEFAULT,
            in_flight_bytes: None,
            digest_max_bytes: None,
            data_tls: false,
            ready_timeout: READY_TIMEOUT_DEFAULT,
            grace: GRACE_DEFAULT,
            held_max: HELD_MAX_DEFAULT,
            queue_proxy_log: "info".into(),
        }
    }
}

/// Paths of the binaries that instances are made of.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `zipline`: its `__exec` subcommand starts each process.
    pub zipline: PathBuf,
    /// `zipline-queue-proxy`.
    pub queue_proxy: PathBuf,
}

/// Whether each instance runs as a user of its own. Only root can do that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceUids {
    /// If the engine is root and every command can be reached by other users; else all share the engine's user.
    Auto,
    /// Never.
    Off,
    /// Or the engine does not start.
    Require,
}
