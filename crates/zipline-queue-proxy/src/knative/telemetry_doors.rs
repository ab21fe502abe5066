//! Telemetry of a pod: what records requests, who carries the records away, and the ports for user metrics and profiles.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use zipline_http::{ServeLimits, serve};
use zipline_knative::contract::{CERTIFICATE_POLL, PROFILING_PORT, USER_METRICS_PORT};
use zipline_knative::observability::MetricsProtocol;
use zipline_knative::prometheus::{Listener, ListenerError, ListenerTls};
use zipline_runtime::Tasks;

use super::servers::{Bound, KnativeBindError, must};
use super::settings::KnativeConfig;
use super::tls::{self, Certificate, CertificateFiles, TlsError};
use super::tls_door;
use crate::admin;
use crate::server::spawn;
use crate::state::Shared;
use crate::telemetry::{
    Exporters, Profiling, PusherError, Scrape, Telemetry, TelemetryConfig, TelemetryConfigError,
};

/// Why telemetry cannot be as it is configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryBindError {
    /// What `OBSERVABILITY_CONFIG` and the `OTEL_*` variables say.
    #[error("failed to set up telemetry")]
    Config(#[from] TelemetryConfigError),
    /// A collector that no TLS can be spoken with.
    #[error("failed to set up the exporter")]
    Pusher(#[from] PusherError),
    /// Where user metrics are to be served.
    #[error("failed to set up the server for user metrics")]
    Listener(#[from] ListenerError),
    /// The TLS of user metrics.
    #[error("failed to set up TLS for user metrics")]
    Tls(#[from] TlsError),
    /// An address that is none.
    #[error("METRICS_PROMETHEUS_HOST {0:?} is no IP address")]
    Host(String),
    /// Certificates of those who scrape.
    #[error(
        "METRICS_PROMETHEUS_TLS_CLIENT_AUTH is not supported; leave it empty or \"none\" and use a NetworkPolicy"
    )]
    ClientAuth,
    /// A port that is none.
    #[error("PROFILING_PORT {0:?} is no port")]
    ProfilingPort(String),
}

/// Telemetry whose ports listen.
#[derive(Debug)]
pub(super) struct TelemetryDoors {
    pub(super) telemetry: Telemetry,
    exporters: Exporters,
    scrape: Option<(Bound, Option<Secured>)>,
    profiling: Option<Bound>,
}

struct Secured {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured").finish_non_exhaustive()
    }
}

impl TelemetryDoors {
    /// Takes the ports that are configured.
    ///
    /// # Errors
    /// [`KnativeBindError`].
    pub(super) fn bind(config: &KnativeConfig) -> Result<Self, KnativeBindError> {
        let environment = &config.environment;
        let resolved = TelemetryConfig::resolve(environment).map_err(TelemetryBindError::from)?;
        let (telemetry, exporters) = Telemetry::new(resolved).map_err(TelemetryBindError::from)?;
        let metrics = &environment.observability.request_metrics;
        let scrape = (metrics.protocol == MetricsProtocol::Prometheus).then(|| scrape(config)).transpose()?;
        let profiling = environment.observability.runtime.profiling.then(|| profiling(config)).transpose()?;
        Ok(Self { telemetry, exporters, scrape, profiling })
    }

    /// Where user metrics and profiles are, if anywhere.
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let scrape = self.scrape.as_ref().map(|(bound, _)| bound.1);
        (scrape, self.profiling.as_ref().map(|bound| bound.1))
    }

    /// Serves the ports and starts to export; what is given back exports the rest at the end.
    pub(super) fn run(self, shared: &Arc<Shared>, doors: &Tasks) -> Exporters {
        let Self { telemetry, mut exporters, scrape, profiling } = self;
        exporters.start();
        let limits = ServeLimits::default();
        if let Some(((listener, _), secured)) = scrape {
            let shared = Arc::clone(shared);
            let answers = Scrape::new(telemetry, Arc::new(move || admin::exposition(&shared)));
            match secured {
                None => {
                    drop(doors.spawn("user metrics", serve(listener, answers, limits.clone(), doors.clone())))
                }
                Some(Secured { acceptor, certificate }) => {
                    spawn(doors, "certificate for user metrics", certificate.follow());
                    let door = tls_door::serve(listener, acceptor, answers, limits.clone(), doors.clone());
                    drop(doors.spawn("user metrics", door));
                }
            }
        }
        if let Some((listener, _)) = profiling {
            drop(doors.spawn("profiling", serve(listener, Profiling, limits, doors.clone())));
        }
        exporters
    }
}

fn scrape(config: &KnativeConfig) -> Result<(Bound, Option<Secured>), KnativeBindError> {
    let environment = &config.environment;
    let endpoint = &environment.observability.request_metrics.endpoint;
    let listener = Listener::resolve(endpoint, &environment.prometheus).map_err(TelemetryBindError::from)?;
    let ip = match listener.host.as_str() {
        "" => config.listen_ip,
        host => host.parse::<IpAddr>().map_err(|_| TelemetryBindError::Host(host.to_owned()))?,
    };
    let port = if listener.port == USER_METRICS_PORT { config.ports.user_metrics } else { listener.port };
    let secured = listener.tls.map(secured).transpose()?;
    Ok((must("user metrics", SocketAddr::new(ip, port))?, secured))
}

fn secured(tls: ListenerTls) -> Result<Secured, TelemetryBindError> {
    if tls.clients.is_some() {
        return Err(TelemetryBindError::ClientAuth);
    }
    let files = CertificateFiles {
        certificate: tls.certificate.into(),
        key: tls.key.into(),
        every: CERTIFICATE_POLL,
    };
    let certificate = Certificate::load(files)?;
    let acceptor = tls::acceptor(&tls.settings, Arc::clone(&certificate))?;
    Ok(Secured { acceptor, certificate })
}

fn profiling(config: &KnativeConfig) -> Result<Bound, KnativeBindError> {
    let given = config.environment.profiling_port.as_str();
    let port = match given {
        "" => PROFILING_PORT,
        given => given.parse().map_err(|_| TelemetryBindError::ProfilingPort(given.to_owned()))?,
    };
    let port = if port == PROFILING_PORT { config.ports.profiling } else { port };
    must("profile", config.at(port))
}

#[cfg(test)]
mod tests;
