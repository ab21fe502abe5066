//! Where the server listens that Prometheus scrapes, and whether it speaks TLS.
//!
//! # Source
//! `PKG observability/metrics/prometheus/server.go`, `PKG observability/metrics/prometheus_enabled.go`,
//! `pkg/queue/sharedmain/otel.go`.

use crate::contract::USER_METRICS_PORT;
use crate::environment::PrometheusVariables;
use crate::tls::{TlsError, TlsSettings};

/// Lowest port Knative's server accepts.
const PORT_MIN: u16 = 1024;

/// Where the metrics server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address or name; empty: every address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// TLS, if configured.
    pub tls: Option<ListenerTls>,
}

/// TLS of the metrics server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Path of the certificate.
    pub certificate: String,
    /// Path of its private key.
    pub key: String,
    /// Versions and algorithms.
    pub settings: TlsSettings,
    /// Whether clients show certificates, and the path of those they are checked by.
    pub clients: Option<(ClientAuth, String)>,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They may.
    Optional,
    /// They must.
    Require,
}

/// The server cannot be where it is told to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerError {
    /// The endpoint is not an address with a port.
    #[error("requestMetrics.endpoint {0:?} for prometheus should be \"host:port\" or \"[host]:port\"")]
    Endpoint(String),
    /// Not a port the server takes.
    #[error("prometheus port {0:?} should be a number from {PORT_MIN} to 65535")]
    Port(String),
    /// Variables that do not fit each other.
    #[error("{0}")]
    Variables(&'static str),
    /// TLS settings.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Listener {
    /// From the configured endpoint, which may be empty, and the variables that override it.
    ///
    /// # Errors
    /// [`ListenerError`] names what is wrong.
    pub fn resolve(endpoint: &str, variables: &PrometheusVariables) -> Result<Self, ListenerError> {
        let (mut host, mut port) = match endpoint {
            "" => (String::new(), USER_METRICS_PORT.to_string()),
            _ => split(endpoint).ok_or_else(|| ListenerError::Endpoint(endpoint.to_owned()))?,
        };
        if !variables.host.is_empty() {
            host.clone_from(&variables.host);
        }
        if !variables.port.is_empty() {
            port.clone_from(&variables.port);
        }
        let plain = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let number = port.parse().ok().filter(|number| plain && *number >= PORT_MIN);
        let port = number.ok_or(ListenerError::Port(port))?;
        Ok(Self { host, port, tls: tls(variables)? })
    }
}

fn tls(variables: &PrometheusVariables) -> Result<Option<ListenerTls>, ListenerError> {
    let (certificate, key) = (&variables.tls_cert, &variables.tls_key);
    let authority = variables.tls_client_ca_file.trim();
    let auth = match variables.tls_client_auth.trim().to_ascii_lowercase().as_str() {
        "" | "none" => None,
        "optional" => Some(ClientAuth::Optional),
        "require" => Some(ClientAuth::Require),
        _ => {
            let what = "METRICS_PROMETHEUS_TLS_CLIENT_AUTH must be none, optional or require";
            return Err(ListenerError::Variables(what));
        }
    };
    match (certificate.is_empty(), key.is_empty()) {
        (true, true) if auth.is_some() || !variables.tls_client_ca_file.is_empty() => {
            Err(ListenerError::Variables(
                "METRICS_PROMETHEUS_TLS_CLIENT_AUTH and METRICS_PROMETHEUS_TLS_CLIENT_CA_FILE require \
                 METRICS_PROMETHEUS_TLS_CERT and METRICS_PROMETHEUS_TLS_KEY",
            ))
        }
        (true, true) => Ok(None),
        (false, false) => {
            let clients = match (auth, authority) {
                (Some(_), "") => {
                    return Err(ListenerError::Variables(
                        "METRICS_PROMETHEUS_TLS_CLIENT_CA_FILE must be set when METRICS_PROMETHEUS_TLS_CLIENT_AUTH \
                         is optional or require",
                    ));
                }
                (None, file) if !file.is_empty() => {
                    return Err(ListenerError::Variables(
                        "METRICS_PROMETHEUS_TLS_CLIENT_CA_FILE is set but METRICS_PROMETHEUS_TLS_CLIENT_AUTH is \
                         neither optional nor require",
                    ));
                }
                (auth, file) => auth.map(|auth| (auth, file.to_owned())),
            };
            let settings = variables.tls.resolve()?;
            Ok(Some(ListenerTls { certificate: certificate.clone(), key: key.clone(), settings, clients }))
        }
        _ => Err(ListenerError::Variables(
            "both METRICS_PROMETHEUS_TLS_CERT and METRICS_PROMETHEUS_TLS_KEY must be set or neither",
        )),
    }
}

/// As Go's `net.SplitHostPort`.
fn split(endpoint: &str) -> Option<(String, String)> {
    let (host, port) = endpoint.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let plain = !host.contains(['[', ']']) && !port.contains(['[', ']']);
    plain.then(|| (host.to_owned(), port.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables(change: impl FnOnce(&mut PrometheusVariables)) -> PrometheusVariables {
        let mut variables = PrometheusVariables::default();
        change(&mut variables);
        variables
    }

    #[test]
    fn endpoint_then_variables() {
        let none = PrometheusVariables::default();
        let listener = Listener::resolve("", &none).unwrap();
        assert_eq!((listener.host.as_str(), listener.port, listener.tls), ("", 9091, None));
        for (endpoint, host, port) in
            [(":9999", "", 9999), ("127.0.0.1:9099", "127.0.0.1", 9099), ("[::1]:1024", "::1", 1024)]
        {
            let listener = Listener::resolve(endpoint, &none).unwrap();
            assert_eq!((listener.host.as_str(), listener.port), (host, port));
        }
        let over = variables(|over| (over.host, over.port) = ("0.0.0.0".into(), "2000".into()));
        let listener = Listener::resolve(":9999", &over).unwrap();
        assert_eq!((listener.host.as_str(), listener.port), ("0.0.0.0", 2000));
        for endpoint in ["9091", "a:b:1", "[::1:1", ":80", ":65536", ":", ":+9091", ":http"] {
            assert!(Listener::resolve(endpoint, &none).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn tls_needs_all_its_parts() {
        let pair =
            |over: &mut PrometheusVariables| (over.tls_cert, over.tls_key) = ("/c".into(), "/k".into());
        assert!(Listener::resolve("", &variables(pair)).unwrap().tls.unwrap().clients.is_none());
        let mutual = variables(|over| {
            pair(over);
            (over.tls_client_auth, over.tls_client_ca_file) = ("Require".into(), "/ca".into());
        });
        let tls = Listener::resolve("", &mutual).unwrap().tls.unwrap();
        assert_eq!(tls.clients, Some((ClientAuth::Require, "/ca".into())));
        for wrong in [
            variables(|over| over.tls_cert = "/c".into()),
            variables(|over| over.tls_client_auth = "require".into()),
            variables(|over| over.tls_client_ca_file = "/ca".into()),
            variables(|over| over.tls_client_auth = "maybe".into()),
            variables(|over| {
                pair(over);
                over.tls_client_auth = "optional".into();
            }),
            variables(|over| {
                pair(over);
                over.tls_client_ca_file = "/ca".into();
            }),
            variables(|over| {
                pair(over);
                over.tls.min_version = "1.0".into();
            }),
        ] {
            assert!(Listener::resolve("", &wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(endpoint in "[\\[\\]:a-z0-9.]{0,16}|\\PC{0,16}") {
            let _ = Listener::resolve(&endpoint, &PrometheusVariables::default());
        }
    }
}
