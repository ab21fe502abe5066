//! `OBSERVABILITY_CONFIG`: what the controller tells of logs, metrics, traces and profiles, laid over the defaults.
//!
//! # Source
//! `pkg/observability/config.go`, `PKG observability/{metrics,tracing,runtime}/config.go`. The queue-proxy there decodes
//! without validating, so only what it cannot work with is refused here: JSON that does not fit, and a protocol that no
//! exporter speaks. The member `metrics` is of no use to a queue-proxy: its metrics follow `requestMetrics`.

use std::time::Duration;

use crate::go::json::{Json, KindError, names};

/// The template of the request log unless another is configured.
pub const DEFAULT_REQUEST_LOG_TEMPLATE: &str = concat!(
    r#"{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", "#,
    r#""requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "#,
    r#""responseSize": "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", "#,
    r#""remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", "#,
    r#""referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "#,
    r#""protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}"#,
);

/// How often runtime metrics are read at most, unless configured.
const RUNTIME_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

/// The configuration of one queue-proxy's telemetry.
#[derive(Debug, Clone, PartialEq)]
pub struct Observability {
    /// Where spans go.
    pub tracing: Tracing,
    /// Where request metrics go.
    pub request_metrics: Metrics,
    /// Profiles and metrics of the process itself.
    pub runtime: Runtime,
    /// Whether requests are logged; the template must not be empty then.
    pub enable_request_log: bool,
    /// How a request is logged: see [`crate::request_log`]. Empty: not at all.
    pub request_log_template: String,
    /// Whether probes are logged too.
    pub enable_probe_request_log: bool,
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// How.
    pub protocol: TracingProtocol,
    /// Where to, as configured; may be empty.
    pub endpoint: String,
    /// Share of traces that are recorded: from 1 on all, at 0 and below none.
    pub sampling_rate: f64,
}

/// How spans are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TracingProtocol {
    /// Not at all; an incoming trace context still reaches the function.
    None,
    /// As JSON on standard output.
    Stdout,
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP.
    HttpProtobuf,
}

/// Where request metrics go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// How.
    pub protocol: MetricsProtocol,
    /// Where to, or for Prometheus `host:port` to listen on; may be empty.
    pub endpoint: String,
    /// Between exports; `None`: the exporter's own default, 60 s.
    pub export_interval: Option<Duration>,
}

/// How metrics are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsProtocol {
    /// Not at all; nothing listens.
    None,
    /// Scraped from port 9091.
    Prometheus,
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP.
    HttpProtobuf,
}

/// Profiles and metrics of the process itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Whether the profiling port is open.
    pub profiling: bool,
    /// Metrics of the process are read at most this often.
    pub export_interval: Duration,
}

/// The text is not a configuration a queue-proxy can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObservabilityError {
    /// Not JSON.
    #[error("is not JSON: {0}")]
    Json(String),
    /// JSON of another kind where a field is expected.
    #[error("{0}")]
    Kind(String),
    /// A protocol nobody speaks.
    #[error("{field}: unsupported protocol {given:?}; {allowed} are supported")]
    Protocol {
        /// Which member.
        field: &'static str,
        /// What it says.
        given: String,
        /// What it may say.
        allowed: &'static str,
    },
}

impl From<KindError> for ObservabilityError {
    fn from(error: KindError) -> Self {
        Self::Kind(error.to_string())
    }
}

impl Default for Observability {
    fn default() -> Self {
        Self {
            tracing: Tracing { protocol: TracingProtocol::None, endpoint: String::new(), sampling_rate: 0.0 },
            request_metrics: Metrics {
                protocol: MetricsProtocol::None,
                endpoint: String::new(),
                export_interval: None,
            },
            runtime: Runtime { profiling: false, export_interval: RUNTIME_INTERVAL_DEFAULT },
            enable_request_log: false,
            request_log_template: DEFAULT_REQUEST_LOG_TEMPLATE.to_owned(),
            enable_probe_request_log: false,
        }
    }
}

impl Observability {
    /// Lays the JSON `text` over the defaults; an empty text changes nothing. Durations in it are whole nanoseconds.
    ///
    /// # Errors
    /// [`ObservabilityError`] says which member is wrong and what it may be.
    pub fn parse(text: &str) -> Result<Self, ObservabilityError> {
        let mut out = Self::default();
        if text.is_empty() {
            return Ok(out);
        }
        let json = Json::parse(text).map_err(|error| ObservabilityError::Json(error.to_string()))?;
        let mut tracing = "none".to_owned();
        let mut metrics = "none".to_owned();
        for (name, value) in json.object("the configuration")? {
            if names(name, "tracing") {
                read_tracing(value, &mut out.tracing, &mut tracing)?;
            } else if names(name, "requestmetrics") {
                read_metrics("requestMetrics", value, &mut out.request_metrics, &mut metrics)?;
            } else if names(name, "metrics") {
                // Of no use here, but its kinds must fit all the same.
                read_metrics("metrics", value, &mut Self::default().request_metrics, &mut String::new())?;
            } else if names(name, "runtime") {
                read_runtime(value, &mut out.runtime)?;
            } else if names(name, "enablerequestlog") {
                value.bool_into("enableRequestLog", &mut out.enable_request_log)?;
            } else if names(name, "requestlogtemplate") {
                value.text_into("requestLogTemplate", &mut out.request_log_template)?;
            } else if names(name, "enableproberequestlog") {
                value.bool_into("enableProbeRequestLog", &mut out.enable_probe_request_log)?;
            } else if names(name, "enablevarlogcollection") {
                value.bool_into("EnableVarLogCollection", &mut false)?;
            } else if names(name, "loggingurltemplate") {
                value.text_into("LoggingURLTemplate", &mut String::new())?;
            }
        }
        out.tracing.protocol = tracing_protocol(&tracing)?;
        out.request_metrics.protocol = metrics_protocol(&metrics)?;
        Ok(out)
    }

    /// Whether requests are to be logged at all.
    #[must_use]
    pub fn logs_requests(&self) -> bool {
        self.enable_request_log && !self.request_log_template.is_empty()
    }
}

fn read_tracing(value: &Json, out: &mut Tracing, protocol: &mut String) -> Result<(), KindError> {
    for (name, value) in value.object("tracing")? {
        if names(name, "protocol") {
            value.text_into("tracing.protocol", protocol)?;
        } else if names(name, "endpoint") {
            value.text_into("tracing.endpoint", &mut out.endpoint)?;
        } else if names(name, "samplingrate") {
            value.float_into("tracing.samplingRate", &mut out.sampling_rate)?;
        }
    }
    Ok(())
}

fn read_metrics(
    field: &str,
    value: &Json,
    out: &mut Metrics,
    protocol: &mut String,
) -> Result<(), KindError> {
    for (name, value) in value.object(field)? {
        if names(name, "protocol") {
            value.text_into(&format!("{field}.protocol"), protocol)?;
        } else if names(name, "endpoint") {
            value.text_into(&format!("{field}.endpoint"), &mut out.endpoint)?;
        } else if names(name, "exportinterval") {
            let mut nanoseconds = 0;
            value.int_into(&format!("{field}.exportInterval"), &mut nanoseconds)?;
            out.export_interval = positive(nanoseconds);
        }
    }
    Ok(())
}

fn read_runtime(value: &Json, out: &mut Runtime) -> Result<(), KindError> {
    for (name, value) in value.object("runtime")? {
        if names(name, "profiling") {
            let mut word = String::new();
            value.text_into("runtime.profiling", &mut word)?;
            if *value != Json::Null {
                out.profiling = word == "enabled";
            }
        } else if names(name, "exportinterval") {
            let mut nanoseconds = i64::try_from(out.export_interval.as_nanos()).unwrap_or(i64::MAX);
            value.int_into("runtime.exportInterval", &mut nanoseconds)?;
            // Zero and less mean the reader's own default, which is the same number.
            out.export_interval = positive(nanoseconds).unwrap_or(RUNTIME_INTERVAL_DEFAULT);
        }
    }
    Ok(())
}

fn positive(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().filter(|value| *value > 0).map(Duration::from_nanos)
}

fn tracing_protocol(word: &str) -> Result<TracingProtocol, ObservabilityError> {
    match word {
        "none" => Ok(TracingProtocol::None),
        "stdout" => Ok(TracingProtocol::Stdout),
        "grpc" => Ok(TracingProtocol::Grpc),
        "http/protobuf" => Ok(TracingProtocol::HttpProtobuf),
        _ => Err(ObservabilityError::Protocol {
            field: "tracing.protocol",
            given: word.to_owned(),
            allowed: "none, stdout, grpc and http/protobuf",
        }),
    }
}

fn metrics_protocol(word: &str) -> Result<MetricsProtocol, ObservabilityError> {
    match word {
        "none" => Ok(MetricsProtocol::None),
        "prometheus" => Ok(MetricsProtocol::Prometheus),
        "grpc" => Ok(MetricsProtocol::Grpc),
        "http/protobuf" => Ok(MetricsProtocol::HttpProtobuf),
        _ => Err(ObservabilityError::Protocol {
            field: "requestMetrics.protocol",
            given: word.to_owned(),
            allowed: "none, prometheus, grpc and http/protobuf",
        }),
    }
}

#[cfg(test)]
mod tests;
