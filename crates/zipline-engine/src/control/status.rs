//! `GET /v1/status`.

use serde::{Deserialize, Serialize};
use zipline_protocol::Mode;

use crate::function::Function;
use crate::instance::{Addresses, Instance, InstanceState, Trust};

use super::Control;

/// The whole engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// 1.
    pub schema: u32,
    /// The engine itself.
    pub engine: EngineStatus,
    /// By name.
    pub functions: Vec<FunctionStatus>,
    /// Queue-proxies of `zipline run`.
    pub guests: Vec<InstanceStatus>,
}

/// The engine itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its start, Unix time in milliseconds.
    pub started_unix_ms: u64,
    /// Whether it is about to end.
    pub draining: bool,
    /// Where functions are reached on this machine.
    pub gateway: String,
    /// Its state directory.
    pub state_dir: String,
    /// Whether each instance has a user of its own.
    pub user_per_instance: bool,
    /// What that means, for people.
    pub trust: String,
}

/// One function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionStatus {
    /// Service.
    pub service: String,
    /// Namespace.
    pub namespace: String,
    /// Revision.
    pub revision: String,
    /// Its host name.
    pub host: String,
    /// Manifest file.
    pub file: String,
    /// Mode in force.
    pub mode: Mode,
    /// Threshold in force, in bytes.
    pub threshold_bytes: u64,
    /// Budget in force, per instance, in bytes.
    pub budget_bytes: u64,
    /// Requests per instance at a time; 0: no limit.
    pub container_concurrency: u32,
    /// Number of instances.
    pub scale: ScaleStatus,
    /// Requests that wait for an instance.
    pub held_requests: usize,
    /// Requests of the gateway to it so far.
    pub requests: u64,
    /// Requests that the gateway answered itself.
    pub refused: u64,
    /// Bytes of request bodies that went through the gateway.
    pub received_bytes: u64,
    /// Bytes of response bodies that went through the gateway.
    pub sent_bytes: u64,
    /// Instances that failed so far.
    pub failures: u64,
    /// The latest failure.
    pub last_failure: Option<String>,
    /// Those that run or are about to end.
    pub instances: Vec<InstanceStatus>,
    /// What the manifest says without effect.
    pub notes: Vec<String>,
}

/// Bounds and aim.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ScaleStatus {
    /// `min-scale`.
    pub min: u32,
    /// `max-scale`; 0: no limit.
    pub max: u32,
    /// `initial-scale`.
    pub initial: Option<u32>,
    /// How many there should be now.
    pub target: u32,
}

/// One instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// `<revision>-<number>`.
    pub name: String,
    /// Where it stands.
    pub state: InstanceState,
    /// Since its start, in seconds.
    pub age_seconds: f64,
    /// Since it became ready, in seconds.
    pub ready_seconds: Option<f64>,
    /// Requests of the gateway at it.
    pub in_flight: usize,
    /// Its user, if it has one of its own.
    pub uid: Option<u32>,
    /// Process id of its queue-proxy.
    pub queue_proxy_pid: Option<i32>,
    /// Process id of its function.
    pub function_pid: Option<i32>,
    /// Port of its function.
    pub function_port: Option<u16>,
    /// Addresses of its queue-proxy.
    pub addresses: Option<Addresses>,
    /// Its log file.
    pub log: String,
    /// Why it is over.
    pub failure: Option<String>,
}

pub(super) fn status(control: &Control) -> Status {
    let context = &control.context;
    Status {
        schema: 1,
        engine: EngineStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started_unix_ms: control.started_unix_ms,
            draining: control.shutdown.is_cancelled(),
            gateway: context.gateway.to_string(),
            state_dir: context.state.path().display().to_string(),
            user_per_instance: context.trust == Trust::UserPerInstance,
            trust: context.trust.sentence(),
        },
        functions: control.functions.values().map(|function| of_function(control, function)).collect(),
        guests: context.guests.lock().iter().map(|guest| of_instance(&guest.instance, 0)).collect(),
    }
}

fn of_function(control: &Control, function: &Function) -> FunctionStatus {
    let (manifest, config) = (&function.manifest, &control.context.config);
    let counters = &function.counters;
    FunctionStatus {
        service: manifest.name.service().into(),
        namespace: manifest.name.namespace().into(),
        revision: manifest.revision.clone(),
        host: manifest.name.host(),
        file: manifest.file.display().to_string(),
        mode: manifest.settings.mode.unwrap_or(config.mode),
        threshold_bytes: manifest.settings.threshold_bytes.unwrap_or(config.threshold_bytes),
        budget_bytes: manifest.settings.budget_bytes.unwrap_or(config.budget_bytes),
        container_concurrency: manifest.container_concurrency,
        scale: ScaleStatus {
            min: manifest.scale.min,
            max: manifest.scale.max,
            initial: manifest.scale.initial,
            target: function.target(),
        },
        held_requests: function.pool.held(),
        requests: counters.requests.get(),
        refused: counters.refused.get(),
        received_bytes: counters.received.get(),
        sent_bytes: counters.sent.get(),
        failures: function.failed_count(),
        last_failure: function.last_failure().map(|failure| failure.message.clone()),
        instances: function
            .instances()
            .iter()
            .map(|instance| of_instance(instance, function.pool.in_flight(instance.number)))
            .collect(),
        notes: manifest.notes.clone(),
    }
}

fn of_instance(instance: &Instance, in_flight: usize) -> InstanceStatus {
    let facts = instance.facts();
    InstanceStatus {
        name: instance.name.clone(),
        state: facts.state,
        age_seconds: instance.started.elapsed().as_secs_f64(),
        ready_seconds: facts.ready_since.map(|since| since.elapsed().as_secs_f64()),
        in_flight,
        uid: instance.user,
        queue_proxy_pid: facts.queue_proxy_pid,
        function_pid: facts.function_pid,
        function_port: facts.function_port,
        addresses: facts.addresses,
        log: instance.log.path().display().to_string(),
        failure: facts.failure.map(|failure| failure.message.clone()),
    }
}
