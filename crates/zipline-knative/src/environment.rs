//! The environment that Knative's controller gives to a queue-proxy.
//!
//! Required means present: a required text may be empty, a number or truth value may not, required or not. Numbers and
//! truth values are read by Go's rules (`0x1F`, `1_000`, `T`). Where Go stops at the first problem, all are told here.
//!
//! # Source
//! `pkg/queue/sharedmain/main.go` (`config`, `Env`), `github.com/kelseyhightower/envconfig` v1.4.0, `PKG system/env.go`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::go::number::{parse_bool, parse_int};
use crate::observability::Observability;
use crate::probe::Probe;
use crate::tls::TlsVariables;

mod names;
#[cfg(test)]
mod tests;

pub use names::KNOWN;

/// A variable by whose presence a process knows that it runs as Knative's queue-proxy.
pub const MARK: &str = "QUEUE_SERVING_PORT";

/// What a queue-proxy is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// Requests the function works on at once; 0 is unlimited.
    pub container_concurrency: u32,
    /// Where requests arrive; 0 lets the kernel choose.
    pub serving_port: u16,
    /// Where requests arrive over TLS, if there is a certificate; 0 lets the kernel choose.
    pub serving_tls_port: u16,
    /// Where the function listens on loopback.
    pub user_port: u16,
    /// Longest time for one request; zero ends every request at once.
    pub revision_timeout: Duration,
    /// Longest time until a response starts.
    pub response_start_timeout: Option<Duration>,
    /// Longest time between two writes of a response.
    pub idle_timeout: Option<Duration>,
    /// Probes that must all pass; none: always ready.
    pub readiness_probes: Vec<Probe>,
    /// Whether HTTP probes try HTTP/2 first.
    pub http2_auto_detection: bool,
    /// Whether a response may start while its request is still arriving.
    pub full_duplex: bool,
    /// Whether [`Self::readiness_probes`] came as an array.
    pub multi_container_probes: bool,
    /// Zap's configuration, for [`crate::logging::Logging::parse`]; may be empty.
    pub logging_config: String,
    /// The level that overrides it; may be empty.
    pub logging_level: String,
    /// The namespace of everything here.
    pub namespace: String,
    /// The service; may be empty.
    pub service: String,
    /// The configuration; may be empty.
    pub configuration: String,
    /// The revision.
    pub revision: String,
    /// The pod, as it stands in [`crate::Stat`].
    pub pod: String,
    /// The pod's address, as it stands in the request log.
    pub pod_ip: String,
    /// Logs, metrics, traces and profiles.
    pub observability: Observability,
    /// TLS of the serving port; wrong values matter only if there is a certificate.
    pub tls: TlsVariables,
    /// Where Prometheus scrapes; wrong values matter only if it does.
    pub prometheus: PrometheusVariables,
    /// The port of profiles, as written; empty: 8008.
    pub profiling_port: String,
    /// The namespace of Knative itself; may be empty.
    pub system_namespace: String,
    /// The node's address; may be empty.
    pub host_ip: String,
    /// Certificates, in PEM, that a queue-proxy may trust; may be empty.
    pub root_ca: String,
    /// `POD_NAME`, else `HOSTNAME`: the pod's name in telemetry; may be empty.
    pub telemetry_pod: String,
    /// Every `OTEL_*` variable that is not empty, by its name.
    pub otel: BTreeMap<String, String>,
}

/// `METRICS_PROMETHEUS_*` as written; empty is not set. [`crate::prometheus::Listener::resolve`] reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrometheusVariables {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on.
    pub port: String,
    /// Path of a certificate.
    pub tls_cert: String,
    /// Path of its private key.
    pub tls_key: String,
    /// `none`, `optional` or `require`.
    pub tls_client_auth: String,
    /// Path of the certificates that clients are checked by.
    pub tls_client_ca_file: String,
    /// Versions and algorithms.
    pub tls: TlsVariables,
}

/// Everything that is wrong with an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment is not that of a Knative queue-proxy: {}", problems.join("; "))]
pub struct EnvironmentError {
    /// One line each, beginning with the variable's name.
    pub problems: Vec<String>,
}

impl Environment {
    /// Reads `variables`, which stand for the process' environment.
    ///
    /// # Errors
    /// [`EnvironmentError`] with every problem.
    pub fn parse(mut variables: BTreeMap<String, String>) -> Result<Self, EnvironmentError> {
        let otel = split_otel(&mut variables);
        let mut reader = Reader { variables, problems: Vec::new() };
        let user_port = reader.port(names::USER_PORT);
        let multi_container_probes = reader.flag(names::ENABLE_MULTI_CONTAINER_PROBES);
        let readiness_probes = {
            let json = reader.text(names::SERVING_READINESS_PROBE);
            Probe::parse_all(&json, multi_container_probes, user_port).unwrap_or_else(|error| {
                reader.problem(names::SERVING_READINESS_PROBE, &error.to_string());
                Vec::new()
            })
        };
        let observability = {
            let json = reader.text(names::OBSERVABILITY_CONFIG);
            Observability::parse(&json).unwrap_or_else(|error| {
                reader.problem(names::OBSERVABILITY_CONFIG, &error.to_string());
                Observability::default()
            })
        };
        let concurrency = reader.required_int(names::CONTAINER_CONCURRENCY);
        let timeout = reader.required_int(names::REVISION_TIMEOUT_SECONDS);
        let environment = Self {
            // Less than one is no limit; more than anybody can have at once is none either, but stays the number.
            container_concurrency: u32::try_from(concurrency.max(0)).unwrap_or(u32::MAX),
            serving_port: reader.port(names::QUEUE_SERVING_PORT),
            serving_tls_port: reader.port(names::QUEUE_SERVING_TLS_PORT),
            user_port,
            revision_timeout: Duration::from_secs(u64::try_from(timeout).unwrap_or(0)),
            response_start_timeout: reader.seconds(names::REVISION_RESPONSE_START_TIMEOUT_SECONDS),
            idle_timeout: reader.seconds(names::REVISION_IDLE_TIMEOUT_SECONDS),
            readiness_probes,
            http2_auto_detection: reader.flag(names::ENABLE_HTTP2_AUTO_DETECTION),
            full_duplex: reader.flag(names::ENABLE_HTTP_FULL_DUPLEX),
            multi_container_probes,
            logging_config: reader.required(names::SERVING_LOGGING_CONFIG),
            logging_level: reader.required(names::SERVING_LOGGING_LEVEL),
            namespace: reader.required(names::SERVING_NAMESPACE),
            service: reader.text(names::SERVING_SERVICE),
            configuration: reader.required(names::SERVING_CONFIGURATION),
            revision: reader.required(names::SERVING_REVISION),
            pod: reader.required(names::SERVING_POD),
            pod_ip: reader.required(names::SERVING_POD_IP),
            observability,
            tls: reader.tls(names::QUEUE_PROXY_PREFIX),
            prometheus: PrometheusVariables {
                host: reader.text(names::METRICS_PROMETHEUS_HOST),
                port: reader.text(names::METRICS_PROMETHEUS_PORT),
                tls_cert: reader.text(names::METRICS_PROMETHEUS_TLS_CERT),
                tls_key: reader.text(names::METRICS_PROMETHEUS_TLS_KEY),
                tls_client_auth: reader.text(names::METRICS_PROMETHEUS_TLS_CLIENT_AUTH),
                tls_client_ca_file: reader.text(names::METRICS_PROMETHEUS_TLS_CLIENT_CA_FILE),
                tls: reader.tls(names::METRICS_PROMETHEUS_PREFIX),
            },
            profiling_port: reader.text(names::PROFILING_PORT),
            system_namespace: reader.text(names::SYSTEM_NAMESPACE),
            host_ip: reader.text(names::HOST_IP),
            root_ca: reader.text(names::ROOT_CA),
            telemetry_pod: reader.first(&[names::POD_NAME, names::HOSTNAME]),
            otel,
        };
        if reader.problems.is_empty() {
            Ok(environment)
        } else {
            reader.problems.sort();
            Err(EnvironmentError { problems: reader.problems })
        }
    }

    /// Whether these variables are those of a Knative queue-proxy.
    #[must_use]
    pub fn is_marked(variables: &BTreeMap<String, String>) -> bool {
        variables.contains_key(MARK)
    }

    /// The name telemetry gives the service: the first that is not empty of `OTEL_SERVICE_NAME`, service, configuration,
    /// revision and pod.
    ///
    /// # Source
    /// `pkg/queue/sharedmain/otel.go`.
    #[must_use]
    pub fn telemetry_service(&self) -> &str {
        let named = self.otel.get("OTEL_SERVICE_NAME").map_or("", String::as_str);
        let names = [named, &self.service, &self.configuration, &self.revision];
        names.into_iter().find(|name| !name.is_empty()).unwrap_or(&self.telemetry_pod)
    }
}

fn split_otel(variables: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
    variables
        .iter()
        .filter(|(name, value)| name.starts_with("OTEL_") && !value.is_empty())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Reads single variables and collects what is wrong with them.
struct Reader {
    variables: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader {
    fn problem(&mut self, name: &str, what: &str) {
        self.problems.push(format!("{name}: {what}"));
    }

    fn text(&self, name: &str) -> String {
        debug_assert!(KNOWN.contains(&name), "{name} is missing in KNOWN");
        self.variables.get(name).cloned().unwrap_or_default()
    }

    fn first(&self, names: &[&str]) -> String {
        names.iter().map(|name| self.text(name)).find(|value| !value.is_empty()).unwrap_or_default()
    }

    fn required(&mut self, name: &str) -> String {
        if !self.variables.contains_key(name) {
            self.problem(name, &format!("required key {name} missing value"));
        }
        self.text(name)
    }

    /// A number that may be missing, but not be empty.
    fn int(&mut self, name: &str) -> i64 {
        let Some(text) = self.variables.get(name).cloned() else { return 0 };
        parse_int(&text).unwrap_or_else(|error| {
            let what = format!("{text:?} is not a whole number of 64 bits ({error})");
            self.problem(name, &what);
            0
        })
    }

    fn required_int(&mut self, name: &str) -> i64 {
        self.required(name);
        self.int(name)
    }

    /// Seconds that switch something off at zero and below.
    fn seconds(&mut self, name: &str) -> Option<Duration> {
        let seconds = u64::try_from(self.int(name)).unwrap_or(0);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    fn flag(&mut self, name: &str) -> bool {
        let Some(text) = self.variables.get(name).cloned() else { return false };
        parse_bool(&text).unwrap_or_else(|_| {
            let what = format!("{text:?} is neither true nor false");
            self.problem(name, &what);
            false
        })
    }

    /// A port; the empty text is 0, as Go's listener takes it.
    fn port(&mut self, name: &str) -> u16 {
        let text = self.required(name);
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(port) if digits => port,
            _ if text.is_empty() => 0,
            _ => {
                self.problem(name, &format!("{text:?} is not a port from 0 to 65535"));
                0
            }
        }
    }

    fn tls(&self, prefix: &str) -> TlsVariables {
        let text = |suffix: &str| self.text(&format!("{prefix}{suffix}"));
        TlsVariables {
            prefix: prefix.to_owned(),
            min_version: text("TLS_MIN_VERSION"),
            max_version: text("TLS_MAX_VERSION"),
            cipher_suites: text("TLS_CIPHER_SUITES"),
            curve_preferences: text("TLS_CURVE_PREFERENCES"),
        }
    }
}
