//! Where OTLP messages go: the configured endpoint, or the `OTEL_EXPORTER_OTLP_*` variables that override it.
//!
//! # Source
//! `PKG observability/{metrics,tracing}/provider.go`: with either endpoint variable set the configured endpoint is not
//! looked at. The variables are those of the OpenTelemetry specification, "OpenTelemetry Protocol Exporter".

use std::collections::BTreeMap;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// How long one push may take unless told otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// What is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

/// How it is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// gRPC over HTTP/2.
    Grpc,
    /// `POST` over HTTP/1.1.
    Http,
}

/// Where one signal is pushed to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) form: Form,
    pub(crate) tls: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As `Host` and `:authority` have it.
    pub(crate) authority: String,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
    /// A file with the certificates that the collector is verified by, instead of the public ones.
    pub(crate) certificate: Option<String>,
}

/// A target nothing can be pushed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The endpoint is no URL with a host.
    #[error("{what} {given:?} is not a URL like http://collector:4317")]
    Endpoint {
        /// Where it was read.
        what: String,
        /// What it says.
        given: String,
    },
    /// A variable does not hold what it must.
    #[error("{name} {given:?} is not {wanted}")]
    Variable {
        /// Which.
        name: String,
        /// What it says.
        given: String,
        /// What it must say.
        wanted: &'static str,
    },
}

impl Signal {
    fn word(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        }
    }

    fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

impl Target {
    /// Resolves the target of `signal` from the configured `endpoint` and the `otel` variables.
    ///
    /// # Errors
    /// [`TargetError`] names what is wrong.
    pub(crate) fn resolve(
        signal: Signal,
        form: Form,
        endpoint: &str,
        otel: &BTreeMap<String, String>,
    ) -> Result<Self, TargetError> {
        let variable = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.word());
            let shared = format!("OTEL_EXPORTER_OTLP_{name}");
            [own, shared].into_iter().find_map(|name| {
                otel.get(&name).filter(|value| !value.is_empty()).map(|value| (name, value.as_str()))
            })
        };
        let (what, given) =
            variable("ENDPOINT").unwrap_or_else(|| ("the configured endpoint".to_owned(), endpoint));
        // The shared variable is a base that each signal's own path is added to.
        let base = what == "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (uri, tls) = parse(given)
            .ok_or_else(|| TargetError::Endpoint { what: what.clone(), given: given.to_owned() })?;
        let insecure = variable("INSECURE").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        // A gRPC endpoint without a scheme is plain if told so.
        let tls = tls && (!insecure || given.starts_with("https://"));
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).to_owned();
        let path = match form {
            Form::Grpc => signal.grpc_path().to_owned(),
            Form::Http => match uri.path().trim_end_matches('/') {
                path if base => format!("{path}{}", signal.http_path()),
                "" => signal.http_path().to_owned(),
                _ => uri.path().to_owned(),
            },
        };
        let path = PathAndQuery::try_from(path)
            .map_err(|_| TargetError::Endpoint { what, given: given.to_owned() })?;
        let headers = variable("HEADERS").map_or(Ok(HeaderMap::new()), |(name, given)| {
            headers(given).ok_or_else(|| TargetError::Variable {
                name,
                given: "(not shown)".to_owned(),
                wanted: "a list like name=value,name=value",
            })
        })?;
        let timeout = variable("TIMEOUT").map_or(Ok(TIMEOUT_DEFAULT), |(name, given)| {
            let millis = given.parse().map_err(|_| TargetError::Variable {
                name,
                given: given.to_owned(),
                wanted: "a number of milliseconds",
            })?;
            Ok(Duration::from_millis(millis))
        })?;
        if variable("COMPRESSION").is_some_and(|(_, value)| value != "none") {
            tracing::warn!(what = "OTEL_EXPORTER_OTLP_COMPRESSION", "telemetry is pushed uncompressed");
        }
        Ok(Self {
            form,
            tls,
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default(),
            host,
            path,
            headers,
            timeout,
            certificate: variable("CERTIFICATE").map(|(_, path)| path.to_owned()),
        })
    }
}

/// A URL with a host, and whether it asks for TLS: only `https` does, but what has no scheme is taken for `https`.
fn parse(given: &str) -> Option<(Uri, bool)> {
    let given = given.trim();
    let uri: Uri =
        if given.contains("://") { given.parse() } else { format!("https://{given}").parse() }.ok()?;
    let authority = uri.authority()?;
    let named = !authority.host().is_empty() && !authority.as_str().contains('@');
    named.then(|| {
        let tls = uri.scheme_str() == Some("https");
        (uri, tls)
    })
}

/// `name=value,name=value`, values percent-encoded.
fn headers(given: &str) -> Option<HeaderMap> {
    let mut out = HeaderMap::new();
    for item in given.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) = item.split_once('=')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let mut value = HeaderValue::from_bytes(&percent_decoded(value.trim())?).ok()?;
        value.set_sensitive(true);
        out.append(name, value);
    }
    Some(out)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        out.push(digit(bytes.next()?)? << 4 | digit(bytes.next()?)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn otel(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn target(form: Form, endpoint: &str, pairs: &[(&str, &str)]) -> Result<Target, TargetError> {
        Target::resolve(Signal::Traces, form, endpoint, &otel(pairs))
    }

    #[test]
    fn endpoints_as_knative_takes_them() {
        for (form, endpoint, tls, host, port, path) in [
            (Form::Http, "http://collector:4318/v1/traces", false, "collector", 4318, "/v1/traces"),
            (Form::Http, "http://collector:4318", false, "collector", 4318, "/v1/traces"),
            (Form::Http, "http://collector/own", false, "collector", 80, "/own"),
            (Form::Http, "collector:4318", true, "collector", 4318, "/v1/traces"),
            (Form::Http, "https://collector", true, "collector", 443, "/v1/traces"),
            (Form::Http, "http://[::1]:4318", false, "::1", 4318, "/v1/traces"),
            (Form::Grpc, "http://c:4317", false, "c", 4317, Signal::Traces.grpc_path()),
            (Form::Grpc, "https://c", true, "c", 443, Signal::Traces.grpc_path()),
        ] {
            let target = target(form, endpoint, &[]).unwrap();
            let given = (target.tls, target.host.as_str(), target.port, target.path.as_str());
            assert_eq!(given, (tls, host, port, path), "{endpoint}");
        }
        for endpoint in ["", "http://", "http:///v1/traces", "a b", "http://user:word@host"] {
            assert!(target(Form::Http, endpoint, &[]).is_err(), "{endpoint:?}");
        }
    }

    #[test]
    fn variables_override() {
        let shared = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://shared:4318/base/");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:4318/x");
        assert_eq!(target(Form::Http, "", &[shared]).unwrap().path, "/base/v1/traces");
        let both = target(Form::Http, "http://configured", &[shared, own]).unwrap();
        assert_eq!((both.host.as_str(), both.path.as_str()), ("own", "/x"));
        let rest = target(
            Form::Http,
            "http://configured",
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=y"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ],
        )
        .unwrap();
        assert_eq!(
            (rest.headers["api-key"].as_bytes(), rest.headers["x"].as_bytes()),
            (&b"a b"[..], &b"y"[..])
        );
        assert_eq!(
            (rest.timeout, rest.certificate.as_deref()),
            (Duration::from_millis(250), Some("/ca.pem"))
        );
        for wrong in [("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"), ("OTEL_EXPORTER_OTLP_HEADERS", "nothing")] {
            assert!(target(Form::Http, "http://configured", &[wrong]).is_err());
        }
    }
}
