//! What Knative's configuration and the environment say about telemetry, resolved and checked.

use std::time::Duration;

use zipline_knative::Environment;
use zipline_knative::metrics::resource_attributes;
use zipline_knative::observability::{MetricsProtocol, TracingProtocol};
use zipline_knative::request_log::{Revision, Template, TemplateError};

use super::otlp::target::{Form, Signal, Target, TargetError};
use super::trace::sampler::Sampler;

/// Between pushes of metrics unless told otherwise: what Go's reader does.
const EXPORT_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);

/// What is recorded of requests, and where it goes.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    pub(super) metrics: MetricsExport,
    pub(super) tracing: Option<TracingConfig>,
    pub(super) log: Option<LogConfig>,
    /// Attributes of whoever exports, sorted by name.
    pub(super) resource: Vec<(String, String)>,
    /// Where the function listens, on loopback.
    pub(super) user_port: u16,
}

/// Where metrics go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MetricsExport {
    /// Nothing is counted.
    None,
    /// They are scraped.
    Prometheus,
    /// They are pushed.
    Push {
        /// Where to.
        target: Box<Target>,
        /// How often.
        every: Duration,
    },
}

/// Where spans go, and of which requests.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TracingConfig {
    pub(super) sampler: Sampler,
    /// `None`: standard output.
    pub(super) target: Option<Target>,
}

/// How requests are logged, and which.
#[derive(Debug, Clone)]
pub(super) struct LogConfig {
    pub(super) template: Template,
    pub(super) revision: Revision,
    /// Probes too.
    pub(super) probes: bool,
}

/// The configuration cannot be followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryConfigError {
    /// Where to push to.
    #[error("{signal}")]
    Target {
        /// Spans or metrics.
        signal: &'static str,
        /// What is wrong.
        source: TargetError,
    },
    /// The request log's template.
    #[error("requestLogTemplate")]
    Template(#[from] TemplateError),
    /// A variable does not hold what it must.
    #[error("{name} {given:?} is not {wanted}")]
    Variable {
        /// Which.
        name: &'static str,
        /// What it says.
        given: String,
        /// What it must say.
        wanted: &'static str,
    },
}

impl TelemetryConfig {
    /// Resolves what `environment` says.
    ///
    /// # Errors
    /// [`TelemetryConfigError`] names the first thing that is wrong.
    ///
    /// # Source
    /// `pkg/queue/sharedmain/otel.go`; `PKG observability/{metrics,tracing}/provider.go`.
    pub fn resolve(environment: &Environment) -> Result<Self, TelemetryConfigError> {
        let tracing = tracing(environment)?;
        let metrics = metrics(environment)?;
        let log = log(environment)?;
        Ok(Self { metrics, tracing, log, resource: resource(environment), user_port: environment.user_port })
    }
}

fn log(environment: &Environment) -> Result<Option<LogConfig>, TemplateError> {
    let observability = &environment.observability;
    if !observability.logs_requests() {
        return Ok(None);
    }
    let template = Template::parse(&observability.request_log_template)?;
    let (revision, probes) = (Revision::from(environment), observability.enable_probe_request_log);
    Ok(template.map(|template| LogConfig { template, revision, probes }))
}

fn metrics(environment: &Environment) -> Result<MetricsExport, TelemetryConfigError> {
    let metrics = &environment.observability.request_metrics;
    let form = match metrics.protocol {
        MetricsProtocol::None => return Ok(MetricsExport::None),
        MetricsProtocol::Prometheus => return Ok(MetricsExport::Prometheus),
        MetricsProtocol::Grpc => Form::Grpc,
        MetricsProtocol::HttpProtobuf => Form::Http,
    };
    let target = Target::resolve(Signal::Metrics, form, &metrics.endpoint, &environment.otel)
        .map_err(|source| TelemetryConfigError::Target { signal: "requestMetrics", source })?;
    let named = variable(environment, "OTEL_METRIC_EXPORT_INTERVAL", |text| {
        text.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis)
    });
    let every = named("a number of milliseconds above 0")?.or(metrics.export_interval);
    Ok(MetricsExport::Push { target: Box::new(target), every: every.unwrap_or(EXPORT_INTERVAL_DEFAULT) })
}

fn tracing(environment: &Environment) -> Result<Option<TracingConfig>, TelemetryConfigError> {
    let tracing = &environment.observability.tracing;
    let form = match tracing.protocol {
        TracingProtocol::None => return Ok(None),
        TracingProtocol::Stdout => None,
        TracingProtocol::Grpc => Some(Form::Grpc),
        TracingProtocol::HttpProtobuf => Some(Form::Http),
    };
    let rate =
        variable(environment, "OTEL_TRACES_SAMPLER_ARG", |text| text.parse().ok())("a number from 0 to 1")?;
    let named =
        variable(environment, "OTEL_TRACES_SAMPLER", |name| Sampler::of_name(name, rate.unwrap_or(1.0)))(
            "a sampler OpenTelemetry names",
        )?;
    let sampler = match (named, form) {
        (Some(named), _) => named,
        (None, None) => Sampler::Always,
        (None, Some(_)) => Sampler::of_rate(rate.unwrap_or(tracing.sampling_rate)),
    };
    let target = form.map(|form| Target::resolve(Signal::Traces, form, &tracing.endpoint, &environment.otel));
    let target =
        target.transpose().map_err(|source| TelemetryConfigError::Target { signal: "tracing", source })?;
    Ok(Some(TracingConfig { sampler, target }))
}

/// Reads one variable; what it gives is asked with the words for what is wanted.
fn variable<T>(
    environment: &Environment,
    name: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> impl Fn(&'static str) -> Result<Option<T>, TelemetryConfigError> {
    move |wanted| {
        let given = environment.otel.get(name).filter(|value| !value.is_empty());
        let read = given.map(|given| {
            read(given).ok_or_else(|| TelemetryConfigError::Variable { name, given: given.clone(), wanted })
        });
        read.transpose()
    }
}

/// Who exports: what Knative's queue-proxy says of itself, and with what.
fn resource(environment: &Environment) -> Vec<(String, String)> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let kit = [
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "zipline"),
        ("telemetry.sdk.version", VERSION),
    ];
    let own = resource_attributes(environment, VERSION).into_iter();
    let mut pairs: Vec<_> = own
        .map(|(name, value)| (name.to_owned(), value))
        .chain(kit.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    pairs.sort();
    pairs
}
