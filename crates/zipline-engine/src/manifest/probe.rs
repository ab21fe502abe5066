//! The readiness probe.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::fields::Item;
use super::report::Report;

/// When a function is ready: Kubernetes' probe, of which the port is assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub action: ProbeAction,
    /// As written; absent numbers keep Knative's defaults.
    pub numbers: Vec<(&'static str, u32)>,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAction {
    /// A `GET` that must answer 200 to 399.
    HttpGet {
        /// Path and query.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// A connection that must open.
    TcpSocket,
}

impl Probe {
    /// The probe as Knative's queue-proxy reads it (JSON of a Kubernetes core/v1 Probe), aimed at `function`.
    #[must_use]
    pub fn to_json(&self, function: SocketAddr) -> String {
        let (host, port) = (function.ip().to_string(), function.port());
        let mut probe = serde_json::Map::new();
        match &self.action {
            ProbeAction::HttpGet { path, headers } => {
                let headers: Vec<Value> =
                    headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                let mut action = json!({"path": path, "port": port, "host": host, "scheme": "HTTP"});
                if !headers.is_empty() {
                    action["httpHeaders"] = Value::Array(headers);
                }
                probe.insert("httpGet".into(), action);
            }
            ProbeAction::TcpSocket => {
                probe.insert("tcpSocket".into(), json!({"port": port, "host": host}));
            }
        }
        for (name, number) in &self.numbers {
            probe.insert((*name).into(), (*number).into());
        }
        probe.entry("successThreshold").or_insert(1.into());
        Value::Object(probe).to_string()
    }
}

const NUMBERS: [&str; 5] =
    ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];

/// Reads a probe. `container_port` is the port the manifest names, which the probe may repeat.
pub(super) fn read(item: &Item<'_>, container_port: Option<u32>, report: &mut Report) -> Option<Probe> {
    let mut known = vec!["httpGet", "tcpSocket"];
    known.extend(NUMBERS);
    let fields = item.fields(
        report,
        &known,
        &[
            ("exec", "Knative cannot run it in the function either; use httpGet or tcpSocket"),
            ("grpc", "use tcpSocket"),
            ("terminationGracePeriodSeconds", "remove it"),
        ],
    )?;
    let numbers: Vec<_> = NUMBERS
        .into_iter()
        .filter_map(|name| Some((name, fields.get(name)?.number(report, 0, 3600)?)))
        .collect();
    let period = numbers.iter().find(|(name, _)| *name == "periodSeconds").map_or(0, |(_, number)| *number);
    if period == 0 {
        for name in ["timeoutSeconds", "failureThreshold"] {
            if let Some(number) = fields.get(name) {
                number.complain(
                    report,
                    "needs periodSeconds, as in Knative: without it the probe is tried all the time",
                );
            }
        }
    }
    let check_port = |report: &mut Report, port: Option<Item<'_>>| {
        let Some(port) = port else { return };
        let Some(number) = port.number(report, 0, 65_535) else { return };
        if number != 0 && container_port != Some(number) {
            port.complain(
                report,
                format!("{number} is not the function's port: ports are assigned here; remove it"),
            );
        }
    };
    let elsewhere = [("host", "the probe goes to the function itself; remove it")];
    let action = match (fields.get("httpGet"), fields.get("tcpSocket")) {
        (Some(_), Some(other)) => {
            other.complain(report, "give either httpGet or tcpSocket");
            return None;
        }
        (Some(get), None) => {
            let fields = get.fields(report, &["path", "port", "scheme", "httpHeaders"], &elsewhere)?;
            check_port(report, fields.get("port"));
            if let Some(scheme) = fields.get("scheme")
                && scheme.text(report).is_some_and(|text| text != "HTTP")
            {
                scheme.complain(report, "must be HTTP: functions are reached in clear on loopback");
            }
            let path = fields.text(report, "path").unwrap_or("/").to_owned();
            if !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
                report.add(
                    fields.line(),
                    &fields.path_of("path"),
                    format!("\"{}\" must start with /", path.escape_debug()),
                );
            }
            let mut headers = Vec::new();
            for header in fields.get("httpHeaders").and_then(|list| list.list(report)).unwrap_or_default() {
                let Some(header) = header.fields(report, &["name", "value"], &[]) else { continue };
                let name = header.text(report, "name").unwrap_or("").to_owned();
                let value = header.text(report, "value").unwrap_or("").to_owned();
                if http::HeaderName::from_bytes(name.as_bytes()).is_err()
                    || http::HeaderValue::from_str(&value).is_err()
                {
                    report.add(header.line(), &header.path_of("name"), "is not a valid HTTP header");
                }
                headers.push((name, value));
            }
            ProbeAction::HttpGet { path, headers }
        }
        (None, Some(socket)) => {
            let fields = socket.fields(report, &["port"], &elsewhere)?;
            check_port(report, fields.get("port"));
            ProbeAction::TcpSocket
        }
        // A probe of numbers alone gets the action that Knative gives it.
        (None, None) => ProbeAction::TcpSocket,
    };
    Some(Probe { action, numbers })
}
