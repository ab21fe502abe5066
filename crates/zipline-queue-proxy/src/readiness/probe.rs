//! The probe as Kubernetes writes it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;

/// A probe is not one this queue-proxy runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(String);

/// What an attempt does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Connects and closes.
    Tcp {
        /// Where.
        address: SocketAddr,
    },
    /// GET; every status from 200 to 399 passes.
    Http {
        /// Where.
        address: SocketAddr,
        /// Path and query.
        path: Uri,
        /// Headers of the probe.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
}

/// A readiness probe with its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What an attempt does.
    pub check: Check,
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Between attempts once ready; `None`: not probed again.
    pub period: Option<Duration>,
    /// Successes in a row that make it ready.
    pub success_threshold: u32,
    /// Failures in a row that make it unready.
    pub failure_threshold: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Text {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<serde_json::Value>,
    exec: Option<serde_json::Value>,
    /// Kubelet's business; the queue-proxy probes from the start.
    #[serde(default, rename = "initialDelaySeconds")]
    _initial_delay_seconds: u32,
    #[serde(default)]
    timeout_seconds: u32,
    #[serde(default)]
    period_seconds: u32,
    #[serde(default)]
    success_threshold: u32,
    #[serde(default)]
    failure_threshold: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpGet {
    path: Option<String>,
    port: Option<Port>,
    host: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpSocket {
    port: Option<Port>,
    host: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Text(String),
}

impl Probe {
    /// Reads a core/v1 Probe in JSON. An empty text is Knative's default: the user port accepts a connection.
    ///
    /// # Errors
    /// [`ProbeError`] names the field that is unknown, out of range or not supported.
    pub fn parse(json: &str, user_port: u16) -> Result<Self, ProbeError> {
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, user_port));
        if json.trim().is_empty() {
            return Ok(Self {
                check: Check::Tcp { address: own },
                timeout: Duration::from_secs(1),
                period: None,
                success_threshold: 1,
                failure_threshold: 1,
            });
        }
        let text: Text = serde_json::from_str(json).map_err(|error| ProbeError(error.to_string()))?;
        let check = match (&text.http_get, &text.tcp_socket, &text.grpc, &text.exec) {
            (Some(get), None, None, None) => http(get, own)?,
            (None, Some(tcp), None, None) => {
                Check::Tcp { address: address(tcp.host.as_deref(), tcp.port.as_ref(), own)? }
            }
            (None, None, None, None) => Check::Tcp { address: own },
            (_, _, Some(_), _) => {
                return Err(ProbeError("grpc probes are not supported; use tcpSocket or httpGet".into()));
            }
            (_, _, _, Some(_)) => {
                return Err(ProbeError("exec probes are not supported; use tcpSocket or httpGet".into()));
            }
            _ => return Err(ProbeError("httpGet and tcpSocket exclude each other".into())),
        };
        let seconds = |value: u32| Duration::from_secs(u64::from(value));
        Ok(Self {
            check,
            timeout: seconds(text.timeout_seconds.max(1)),
            period: (text.period_seconds > 0).then(|| seconds(text.period_seconds)),
            success_threshold: text.success_threshold.max(1),
            failure_threshold: if text.failure_threshold == 0 { 3 } else { text.failure_threshold },
        })
    }
}

fn http(get: &HttpGet, own: SocketAddr) -> Result<Check, ProbeError> {
    if let Some(scheme) = get.scheme.as_deref().filter(|scheme| !scheme.eq_ignore_ascii_case("http")) {
        return Err(ProbeError(format!("httpGet.scheme {scheme:?} is not supported; only HTTP is")));
    }
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let path = path.parse().map_err(|error| ProbeError(format!("httpGet.path {path:?}: {error}")))?;
    let header = |header: &Header| {
        let error = || ProbeError(format!("httpGet.httpHeaders {:?} is not a header", header.name));
        let name = HeaderName::try_from(&header.name).map_err(|_| error())?;
        Ok((name, HeaderValue::try_from(&header.value).map_err(|_| error())?))
    };
    let headers = get.http_headers.iter().map(header).collect::<Result<_, _>>()?;
    Ok(Check::Http { address: address(get.host.as_deref(), get.port.as_ref(), own)?, path, headers })
}

fn address(host: Option<&str>, port: Option<&Port>, own: SocketAddr) -> Result<SocketAddr, ProbeError> {
    let ip: IpAddr = match host {
        None | Some("" | "localhost") => own.ip(),
        Some(host) => host.parse().map_err(|_| ProbeError(format!("host {host:?} is not an address")))?,
    };
    let port = match port {
        None | Some(Port::Number(0)) => own.port(),
        Some(Port::Number(port)) => *port,
        Some(Port::Text(text)) => {
            text.parse().map_err(|_| ProbeError(format!("port {text:?} is a name; write its number")))?
        }
    };
    Ok(SocketAddr::new(ip, port))
}
