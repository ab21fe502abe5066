//! What a queue-proxy in a Knative pod is told: Knative's environment, and the pod's annotations for Zipline's own part.

use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zipline_knative::contract::{
    ADMIN_PORT, ANNOTATIONS_PATH, AUTOSCALER_METRICS_PORT, CERTIFICATE_PATH, CERTIFICATE_POLL, DRAIN_QUIET,
    PRIVATE_KEY_PATH, PROFILING_PORT, USER_METRICS_PORT,
};
use zipline_knative::{Environment, PodSettings, podinfo};
use zipline_protocol::{FunctionName, Mode, limits};

use super::probing::TrustFiles;
use super::timeouts::Timeouts;
use super::tls::CertificateFiles;
use crate::config::{Advertise, Budgets, Config, Destinations, KeySource, Ports, Token, Variables};

/// The local API and forward proxy, on loopback.
pub const LOCAL_API_PORT: u16 = 8030;
/// The local API's Unix socket, which SDKs use: in the abstract space, as the containers of a pod share a network and no folder.
pub const LOCAL_SOCKET: &str = "@zipline";
/// What other queue-proxies retrieve from.
pub const DATA_PORT: u16 = 8031;
/// Zipline's own health, metrics and status, on loopback.
pub const STATUS_PORT: u16 = 8032;

/// Ports that are the same in every pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedPorts {
    /// Where kubelet waits for the end of the drain.
    pub admin: u16,
    /// Where the autoscaler scrapes.
    pub stats: u16,
    /// [`LOCAL_API_PORT`].
    pub local_api: u16,
    /// [`DATA_PORT`].
    pub data: u16,
    /// [`STATUS_PORT`].
    pub status: u16,
    /// Where Prometheus scrapes, unless another port is configured.
    pub user_metrics: u16,
    /// Where profiles are asked for, unless another port is configured.
    pub profiling: u16,
}

impl Default for FixedPorts {
    fn default() -> Self {
        Self {
            admin: ADMIN_PORT,
            stats: AUTOSCALER_METRICS_PORT,
            local_api: LOCAL_API_PORT,
            data: DATA_PORT,
            status: STATUS_PORT,
            user_metrics: USER_METRICS_PORT,
            profiling: PROFILING_PORT,
        }
    }
}

/// The settings of one queue-proxy in a Knative pod. Tests change what a pod fixes.
#[derive(Debug, Clone)]
pub struct KnativeConfig {
    /// What Knative says.
    pub environment: Environment,
    /// What annotations say.
    pub pod: PodSettings,
    /// What stands where annotations name no budget.
    pub budgets: Budgets,
    /// Where all but loopback ports listen.
    pub listen_ip: IpAddr,
    /// The fixed ports; 0 is assigned.
    pub ports: FixedPorts,
    /// [`LOCAL_SOCKET`].
    pub socket: PathBuf,
    /// The certificate of the TLS port, which exists only with it.
    pub certificate: CertificateFiles,
    /// Whom HTTPS probes believe.
    pub trust: TrustFiles,
    /// How long no request may arrive until the drain ends.
    pub quiet: Duration,
}

impl KnativeConfig {
    /// What a pod fixes, for `environment`, and the annotations where they are mounted; `variables` say which
    /// certificates the machine trusts.
    ///
    /// Annotations that cannot be read are told and change nothing; `budgets` stand where they name none.
    #[must_use]
    pub fn read(environment: Environment, variables: &Variables, budgets: Budgets) -> Self {
        let text = |name: &str| variables.text.get(name).map(String::as_str);
        let trust = TrustFiles::new(text("SSL_CERT_FILE"), text("SSL_CERT_DIR"));
        Self {
            environment,
            pod: annotations(Path::new(ANNOTATIONS_PATH)),
            budgets,
            listen_ip: Ipv6Addr::UNSPECIFIED.into(),
            ports: FixedPorts::default(),
            socket: LOCAL_SOCKET.into(),
            certificate: CertificateFiles {
                certificate: CERTIFICATE_PATH.into(),
                key: PRIVATE_KEY_PATH.into(),
                every: CERTIFICATE_POLL,
            },
            trust,
            quiet: DRAIN_QUIET,
        }
    }

    /// The time limits of requests.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            whole: self.environment.revision_timeout,
            response_start: self.environment.response_start_timeout,
            idle: self.environment.idle_timeout,
        }
    }

    /// What the parts say that exist without Knative too.
    #[must_use]
    pub fn own(&self) -> Config {
        let Self { environment, pod, .. } = self;
        let advertise = environment.pod_ip.parse().ok().map(|ip| Advertise { ip, port: None });
        let held = pod.budget_bytes.unwrap_or(self.budgets.held);
        Config {
            user_port: Some(environment.user_port),
            container_concurrency: environment.container_concurrency,
            request_timeout: environment.revision_timeout,
            // Probed only when somebody asks.
            readiness_probe: None,
            function: function(environment),
            revision: environment.revision.clone(),
            instance: environment.pod.clone(),
            // Keys decide whether it is in force.
            mode: pod.mode.unwrap_or(Mode::On),
            threshold_bytes: pod.threshold_bytes.unwrap_or(limits::THRESHOLD_DEFAULT),
            budget_bytes: held,
            in_flight_bytes: pod.in_flight_bytes.unwrap_or_else(|| self.budgets.in_flight(held)),
            digest_max_bytes: pod.digest_max_bytes.unwrap_or(limits::DIGEST_MAX),
            destinations: Destinations::HostNames,
            // The pod's network namespace is the border.
            token: Token::any_value(),
            socket: Some(self.socket.clone()),
            host_directory: None,
            reuse_shared: false,
            listen_ip: self.listen_ip,
            advertise,
            data_tls: pod.data_tls.unwrap_or(false),
            keys: KeySource::None,
            needs_keys: true,
            ports: Ports {
                inbound: environment.serving_port,
                api: self.ports.local_api,
                data: self.ports.data,
                admin: self.ports.status,
            },
            log: String::new(),
        }
    }

    /// Where a port listens that others reach.
    pub(super) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.listen_ip, port)
    }
}

/// The function's name as the rest of Zipline has it; a revision without a service goes by its configuration or itself.
fn function(environment: &Environment) -> FunctionName {
    let namespace = environment.namespace.as_str();
    [&environment.service, &environment.configuration, &environment.revision]
        .into_iter()
        .find_map(|name| FunctionName::new(name, namespace).ok())
        .unwrap_or_else(|| FunctionName::new("unknown", "default").expect("both are DNS labels"))
}

fn annotations(path: &Path) -> PodSettings {
    let Ok(file) = std::fs::File::open(path) else { return PodSettings::default() };
    let mut content = String::new();
    if let Err(error) = file.take(podinfo::FILE_MAX as u64).read_to_string(&mut content) {
        tracing::warn!(%error, path = %path.display(), "the annotations cannot be read; defaults stand");
        return PodSettings::default();
    }
    let (settings, problems) = PodSettings::parse_file(&content);
    for problem in problems {
        tracing::warn!(%problem, "an annotation is not valid; its default stands");
    }
    settings
}
