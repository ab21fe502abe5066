//! Settings, read once from the environment. Nothing else in this crate reads it.
//!
//! Knative's names mean what they mean there; Zipline's own start with `ZIPLINE_`. All problems are reported at once,
//! and a `ZIPLINE_*` name that means nothing here is one of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use subtle::ConstantTimeEq;
use zipline_protocol::{FunctionName, Mode, limits};

use crate::readiness::Probe;

mod budgets;
mod read;
#[cfg(test)]
mod tests;

pub use budgets::Budgets;
use read::Reader;

/// Knative's default for `timeoutSeconds`.
const TIMEOUT_DEFAULT_SECONDS: u64 = 300;
/// Shortest token: 16 characters of base64url are 96 bits.
const TOKEN_MIN: usize = 16;
/// Longest token.
const TOKEN_MAX: usize = 256;

/// The settings of one queue-proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the function listens on loopback; `None` for a queue-proxy without a function.
    pub user_port: Option<u16>,
    /// Requests the function works on at once; 0 is unlimited.
    pub container_concurrency: u32,
    /// Longest time for one request to the function.
    pub request_timeout: Duration,
    /// How to find out whether the function is ready; `None` for a queue-proxy without a function.
    pub readiness_probe: Option<Probe>,
    /// Whose queue-proxy this is. Its namespace is the tenant.
    pub function: FunctionName,
    /// The revision's name; may be empty.
    pub revision: String,
    /// The instance's name; may be empty.
    pub instance: String,
    /// Whether payloads are deferred and references opened.
    pub mode: Mode,
    /// Payloads at or above it are deferred.
    pub threshold_bytes: u64,
    /// Budget of bytes held.
    pub budget_bytes: u64,
    /// Budget of bytes on their way to the function.
    pub in_flight_bytes: u64,
    /// Payloads up to this length carry a SHA-256.
    pub digest_max_bytes: u64,
    /// Where functions are reached.
    pub destinations: Destinations,
    /// The secret of the local API.
    pub token: Token,
    /// Path of the local API's Unix socket; `@name` is abstract.
    pub socket: Option<PathBuf>,
    /// Where queue-proxies of this host find each other; `None`: payloads of neighbours come over the network.
    pub host_directory: Option<PathBuf>,
    /// Whether memory whose descriptor reached another function of the tenant may be written again.
    pub reuse_shared: bool,
    /// Where the inbound side and the data port listen.
    pub listen_ip: IpAddr,
    /// Where other queue-proxies reach the data port, if not where it listens.
    pub advertise: Option<Advertise>,
    /// Whether the data port speaks TLS; what is retrieved elsewhere follows its reference.
    pub data_tls: bool,
    /// Where keys come from.
    pub keys: KeySource,
    /// Whether this queue-proxy is as one without Zipline until it has keys.
    pub needs_keys: bool,
    /// The ports; 0 is assigned.
    pub ports: Ports,
    /// Filter of log lines.
    pub log: String,
}

/// Where other functions are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destinations {
    /// All of them at one gateway, which tells them apart by host.
    Gateway(SocketAddr),
    /// Each by its own host name.
    HostNames,
    /// Nowhere.
    None,
}

/// Ports of one queue-proxy; 0 lets the kernel choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Requests to the function.
    pub inbound: u16,
    /// Local API and forward proxy.
    pub api: u16,
    /// What other queue-proxies retrieve from.
    pub data: u16,
    /// Health, metrics and status.
    pub admin: u16,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The engine sends them over the control channel on standard input.
    Control,
    /// A file with one JSON object, as the control channel would send it.
    File(PathBuf),
    /// Nowhere: every payload goes inline.
    None,
}

/// The address of the data port as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// The address.
    pub ip: IpAddr,
    /// The port, if it is another than the one bound.
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Self { ip: address.ip(), port: Some(address.port()) }),
            Err(_) => text.parse().map(|ip| Self { ip, port: None }),
        }
    }
}

/// The secret that a function shows to its own local API. Never printed, compared in constant time.
#[derive(Clone)]
pub struct Token(Secret);

#[derive(Clone)]
enum Secret {
    Exact(String),
    AnyValue,
}

impl Token {
    /// Takes a secret of 16 to 256 visible ASCII characters; `None` for anything else.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (TOKEN_MIN..=TOKEN_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| Self(Secret::Exact(text.to_owned())))
    }

    /// Takes every value that is not empty. For where the network already keeps everybody else out: then the header only
    /// proves that a request was made for this API, and not by a browser or a tricked fetch.
    #[must_use]
    pub fn any_value() -> Self {
        Self(Secret::AnyValue)
    }

    /// Whether `shown` is the secret. Takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, shown: &[u8]) -> bool {
        match &self.0 {
            Secret::Exact(secret) => secret.as_bytes().ct_eq(shown).into(),
            Secret::AnyValue => !shown.is_empty(),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Everything that is wrong with the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment is not valid: {}", problems.join("; "))]
pub struct ConfigError {
    /// One line each, beginning with the variable's name.
    pub problems: Vec<String>,
}

/// The environment of this process, read once.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// Those whose value is text.
    pub text: BTreeMap<String, String>,
    /// Names of those whose value is not.
    pub not_text: Vec<String>,
}

impl Variables {
    /// Reads them. Names that are not text are nobody's setting.
    #[must_use]
    pub fn of_process() -> Self {
        let mut variables = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    variables.text.insert(name, value);
                }
                Err(_) => variables.not_text.push(name),
            }
        }
        variables
    }
}

impl Config {
    /// Reads settings from the environment of this process; `budgets` stand where it names none.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn from_variables(variables: Variables, budgets: Budgets) -> Result<Self, ConfigError> {
        let Variables { text, not_text } = variables;
        let mut problems: Vec<String> = not_text
            .into_iter()
            .filter(|name| read::KNOWN.contains(&name.as_str()))
            .map(|name| format!("{name}: is not UTF-8"))
            .collect();
        match Self::parse(text, budgets) {
            Ok(config) if problems.is_empty() => Ok(config),
            Ok(_) => Err(ConfigError { problems }),
            Err(error) => {
                problems.extend(error.problems);
                Err(ConfigError { problems })
            }
        }
    }

    /// Reads settings from `variables`, which stand for an environment; `budgets` stand where it names none.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn parse(variables: BTreeMap<String, String>, budgets: Budgets) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(variables);
        let guest = reader.flag("ZIPLINE_GUEST");
        let listen_ip =
            reader.parsed("ZIPLINE_LISTEN_IP", "an IP address").unwrap_or(Ipv4Addr::LOCALHOST.into());
        let advertise = reader.parsed("ZIPLINE_ADVERTISE", "an IP address, with or without a port");
        if IpAddr::is_unspecified(&listen_ip) && advertise.is_none() {
            reader.problem("ZIPLINE_ADVERTISE", "is needed when ZIPLINE_LISTEN_IP is no single address");
        }
        let user_port = reader.user_port(guest);
        let budget_bytes = reader.size("ZIPLINE_BUDGET_BYTES", budgets.held, limits::SEGMENT as u64);
        let config = Self {
            user_port,
            container_concurrency: reader.number("CONTAINER_CONCURRENCY", 0, 0..=1000).unwrap_or(0),
            request_timeout: Duration::from_secs(
                reader
                    .number("REVISION_TIMEOUT_SECONDS", TIMEOUT_DEFAULT_SECONDS, 1..=86_400)
                    .unwrap_or(TIMEOUT_DEFAULT_SECONDS),
            ),
            readiness_probe: user_port.and_then(|port| reader.probe(port)),
            function: reader.function(guest),
            revision: reader.text("SERVING_REVISION").unwrap_or_default(),
            instance: reader.text("SERVING_POD").unwrap_or_default(),
            mode: reader.parsed("ZIPLINE_MODE", "one of off, receive, on").unwrap_or(Mode::On),
            threshold_bytes: reader.size(
                "ZIPLINE_THRESHOLD_BYTES",
                limits::THRESHOLD_DEFAULT,
                limits::THRESHOLD_MIN,
            ),
            budget_bytes,
            in_flight_bytes: reader.size(
                "ZIPLINE_INFLIGHT_BYTES",
                budgets.in_flight(budget_bytes),
                limits::SEGMENT as u64,
            ),
            digest_max_bytes: reader.size("ZIPLINE_DIGEST_MAX_BYTES", limits::DIGEST_MAX, 0),
            destinations: reader
                .parsed("ZIPLINE_GATEWAY", "an IP address with a port")
                .map_or(Destinations::None, Destinations::Gateway),
            token: reader.token(),
            socket: reader.text("ZIPLINE_SOCKET").map(PathBuf::from),
            host_directory: reader.text("ZIPLINE_HOST_DIR").map(PathBuf::from),
            reuse_shared: reader.reuse(),
            listen_ip,
            advertise,
            data_tls: reader.switch("ZIPLINE_DATA_TLS"),
            keys: reader.keys(),
            needs_keys: false,
            ports: Ports {
                inbound: reader.port("ZIPLINE_INBOUND_PORT"),
                api: reader.port("ZIPLINE_API_PORT"),
                data: reader.port("ZIPLINE_DATA_PORT"),
                admin: reader.port("ZIPLINE_ADMIN_PORT"),
            },
            log: reader.text("ZIPLINE_LOG").unwrap_or_else(|| "info".to_owned()),
        };
        reader.finish()?;
        Ok(config)
    }

    /// Whether there is no function behind this queue-proxy.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.user_port.is_none()
    }

    /// Where the function listens; `None` for a queue-proxy without a function.
    #[must_use]
    pub fn function_address(&self) -> Option<SocketAddr> {
        self.user_port.map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
    }
}
