//! Readiness probes as Kubernetes' core/v1 writes them, one or several.
//!
//! This is data: who runs a probe, and when, is the queue-proxy's business.
//!
//! # Source
//! `pkg/queue/readiness/{probe,probe_encoding}.go`, `pkg/queue/health/probe.go`, `k8s.io/api/core/v1` `Probe`.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::go::json::{Json, KindError, names};

mod read;
#[cfg(test)]
mod tests;

/// A readiness probe with its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What one attempt does.
    pub check: Check,
    /// Longest time of one attempt, at least 1 s. Aggressive probes have their own.
    pub timeout: Duration,
    /// Between probes; `None` is Knative's aggressive probing: back to back until it passes.
    pub period: Option<Duration>,
    /// Successes in a row that make it ready, at least 1. Counts only for aggressive probes: of others kubelet does.
    pub success_threshold: u32,
    /// Failures in a row that make it unready, at least 1. The queue-proxy of Knative leaves it to kubelet.
    pub failure_threshold: u32,
    /// Kubelet's business; the queue-proxy probes from the start.
    pub initial_delay: Duration,
}

/// What one attempt does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Connects and closes.
    Tcp {
        /// An address or a name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A GET that every status from 200 to 399 passes.
    Http {
        /// Whether over TLS, with the certificate verified.
        scheme: Scheme,
        /// An address or a name; also the `Host` of the request.
        host: String,
        /// The port.
        port: u16,
        /// Path and query.
        path: Uri,
        /// More headers, without those a probe cannot set: `Host`, `User-Agent` and what frames a body.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// `grpc.health.v1.Health/Check` in plain HTTP/2 on loopback.
    Grpc {
        /// The port.
        port: u16,
        /// The service asked for; empty for the server as a whole.
        service: String,
    },
}

/// How an HTTP probe speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In plain.
    Http,
    /// Over TLS.
    Https,
}

/// A text is not a probe that is run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Not JSON.
    #[error("is not JSON: {0}")]
    Json(String),
    /// A field has a wrong kind or value.
    #[error("{field}: {problem}")]
    Field {
        /// Which field, with its place in an array of probes.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl From<KindError> for ProbeError {
    fn from(error: KindError) -> Self {
        let text = error.to_string();
        let problem = text.strip_prefix(&format!("{}: ", error.field)).unwrap_or(&text).to_owned();
        Self::Field { field: error.field, problem }
    }
}

impl Probe {
    /// The probe of a function for which nothing is configured: its port accepts connections, tried until it does.
    #[must_use]
    pub fn connects(user_port: u16) -> Self {
        Self {
            check: Check::Tcp { host: read::LOOPBACK.to_owned(), port: user_port },
            timeout: Duration::from_secs(1),
            period: None,
            success_threshold: 1,
            failure_threshold: 3,
            initial_delay: Duration::ZERO,
        }
    }

    /// Reads one probe. A port that is missing or 0 is `user_port`, a missing host is loopback, and a probe that says
    /// neither what to do nor where connects to the `user_port`. Unknown fields are skipped, as Kubernetes adds some.
    ///
    /// # Errors
    /// [`ProbeError`] names the field that is wrong or not supported.
    pub fn parse(json: &str, user_port: u16) -> Result<Self, ProbeError> {
        read::probe(&read::json(json)?, "", user_port, false)
    }

    /// As [`Probe::parse`], with unknown fields refused: for probes that people write themselves.
    ///
    /// # Errors
    /// [`ProbeError`] names the field that is unknown, wrong or not supported.
    pub fn parse_strict(json: &str, user_port: u16) -> Result<Self, ProbeError> {
        read::probe(&read::json(json)?, "", user_port, true)
    }

    /// Reads what `SERVING_READINESS_PROBE` holds: an array of probes if `several`, which must all pass, else one. The
    /// empty text is no probe: always ready.
    ///
    /// # Errors
    /// [`ProbeError`] names the field that is wrong or not supported.
    pub fn parse_all(json: &str, several: bool, user_port: u16) -> Result<Vec<Self>, ProbeError> {
        if json.is_empty() {
            return Ok(Vec::new());
        }
        if !several {
            return Self::parse(json, user_port).map(|probe| vec![probe]);
        }
        let list = read::json(json)?;
        let probes = list.list("the probes")?.iter().enumerate();
        probes.map(|(at, item)| read::probe(item, &format!("[{at}]."), user_port, false)).collect()
    }

    /// Whether attempts follow each other until one passes, instead of one attempt per question.
    #[must_use]
    pub fn is_aggressive(&self) -> bool {
        self.period.is_none()
    }
}
