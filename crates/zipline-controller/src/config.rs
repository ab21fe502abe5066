//! Settings, read once from the environment. Nothing else in this crate reads it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use zipline_http::HostPort;
use zipline_protocol::controller::PORT;

/// Where Kubernetes mounts what a pod needs to speak to it.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Hours a key seals for, by default.
const KEY_PERIOD_HOURS: u64 = 24;
/// Every name that means something here.
const KNOWN: [&str; 10] = [
    "ZIPLINE_LISTEN",
    "ZIPLINE_ADMIN_LISTEN",
    "ZIPLINE_TLS_DIR",
    "ZIPLINE_MASTER_DIR",
    "ZIPLINE_NAMESPACE",
    "ZIPLINE_KEY_PERIOD_HOURS",
    "ZIPLINE_KUBERNETES",
    "ZIPLINE_KUBERNETES_CA",
    "ZIPLINE_KUBERNETES_TOKEN",
    "ZIPLINE_LOG",
];

/// The settings of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where queue-proxies ask (HTTPS).
    pub listen: SocketAddr,
    /// Health and metrics (plain HTTP).
    pub admin: SocketAddr,
    /// Folder with `tls.crt` and `tls.key`.
    pub tls: PathBuf,
    /// Folder with the master secrets, one file each.
    pub masters: PathBuf,
    /// The namespace whose ConfigMap `zipline-config` counts.
    pub namespace: String,
    /// For how long one key seals.
    pub key_period: Duration,
    /// The API server.
    pub kubernetes: HostPort,
    /// Roots that signed the API server's certificate, in PEM.
    pub kubernetes_ca: PathBuf,
    /// The controller's own token.
    pub kubernetes_token: PathBuf,
    /// Filter of log lines.
    pub log: String,
}

/// Everything that is wrong with the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment is not valid: {}", problems.join("; "))]
pub struct ConfigError {
    /// One line each, beginning with the variable's name.
    pub problems: Vec<String>,
}

impl Config {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn from_env() -> Result<Self, ConfigError> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::parse(std::env::vars_os().filter_map(text).collect())
    }

    /// Reads settings from `variables`, which stand for an environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn parse(variables: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut reader = Reader { variables, problems: Vec::new() };
        for name in reader.variables.keys() {
            // Kubernetes sets variables of this form for the services of a namespace.
            let of_a_service = name.contains("_SERVICE_") || name.contains("_PORT");
            if name.starts_with("ZIPLINE_") && !of_a_service && !KNOWN.contains(&name.as_str()) {
                reader.problems.push(format!("{name}: is not known, use one of {}", KNOWN.join(", ")));
            }
        }
        let path = |reader: &Reader, name: &str, default: String| {
            PathBuf::from(reader.text(name).unwrap_or(default))
        };
        let config = Self {
            listen: reader.parsed("ZIPLINE_LISTEN", "an address with a port").unwrap_or(any(PORT)),
            admin: reader.parsed("ZIPLINE_ADMIN_LISTEN", "an address with a port").unwrap_or(any(8080)),
            tls: path(&reader, "ZIPLINE_TLS_DIR", "/etc/zipline/tls".to_owned()),
            masters: path(&reader, "ZIPLINE_MASTER_DIR", "/etc/zipline/master".to_owned()),
            namespace: reader.text("ZIPLINE_NAMESPACE").unwrap_or_else(|| "zipline-system".to_owned()),
            key_period: reader.period(),
            kubernetes: reader.kubernetes(),
            kubernetes_ca: path(&reader, "ZIPLINE_KUBERNETES_CA", format!("{ACCOUNT}/ca.crt")),
            kubernetes_token: path(&reader, "ZIPLINE_KUBERNETES_TOKEN", format!("{ACCOUNT}/token")),
            log: reader.text("ZIPLINE_LOG").unwrap_or_else(|| "info".to_owned()),
        };
        match reader.problems {
            problems if problems.is_empty() => Ok(config),
            problems => Err(ConfigError { problems }),
        }
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

struct Reader {
    variables: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader {
    fn text(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let value = self.text(name)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.problems.push(format!("{name}: {value:?} is not {expected}"));
        }
        parsed
    }

    fn period(&mut self) -> Duration {
        let name = "ZIPLINE_KEY_PERIOD_HOURS";
        let hours: u64 = self.parsed(name, "a number of hours").unwrap_or(KEY_PERIOD_HOURS);
        // A key is accepted for one more period after it has sealed, which must outlast the longest put.
        if !(2..=720).contains(&hours) {
            self.problems.push(format!("{name}: {hours} is not between 2 and 720"));
        }
        Duration::from_secs(hours.saturating_mul(3600))
    }

    /// Where the API server is: as told, else as Kubernetes tells every pod.
    fn kubernetes(&mut self) -> HostPort {
        if let Some(server) = self.parsed("ZIPLINE_KUBERNETES", "host:port") {
            return server;
        }
        let port = self.parsed("KUBERNETES_SERVICE_PORT", "a port").unwrap_or(443);
        match self.text("KUBERNETES_SERVICE_HOST") {
            Some(host) => HostPort::new(&host, port),
            None => HostPort::new("kubernetes.default.svc", port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::parse(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn a_pod_needs_no_settings() {
        let config = parse(&[
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("KUBERNETES_SERVICE_PORT", "6443"),
            ("ZIPLINE_CONTROLLER_SERVICE_HOST", "10.0.0.2"),
            ("ZIPLINE_CONTROLLER_PORT_8443_TCP", "tcp://10.0.0.2:8443"),
        ])
        .unwrap();
        assert_eq!(config.kubernetes.to_string(), "10.0.0.1:6443");
        assert_eq!((config.listen.port(), config.namespace.as_str()), (8443, "zipline-system"));
        assert_eq!(config.key_period, Duration::from_secs(86_400));
    }

    #[test]
    fn every_problem_is_named() {
        let error =
            parse(&[("ZIPLINE_LISTEN", "8443"), ("ZIPLINE_KEY_PERIOD_HOURS", "1"), ("ZIPLINE_MASTERS", "x")])
                .unwrap_err();
        assert_eq!(error.problems.len(), 3, "{error}");
    }
}
