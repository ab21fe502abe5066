//! The gateway's metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use zipline_protocol::FunctionName;
use zipline_runtime::Metrics;

use crate::function::Counters;
use crate::gateway::Functions;
use crate::instance::InstanceState;

/// A function: as many as manifests name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: String,
    namespace: String,
}

impl From<&FunctionName> for Labels {
    fn from(name: &FunctionName) -> Self {
        Self { service: name.service().into(), namespace: name.namespace().into() }
    }
}

/// Counters of the gateway, and gauges that are read when they are asked for.
#[derive(Debug)]
pub(crate) struct GatewayMetrics {
    registry: Metrics,
    requests: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    received: Family<Labels, Counter>,
    sent: Family<Labels, Counter>,
    failures: Family<Labels, Gauge>,
    held: Family<Labels, Gauge>,
    in_flight: Family<Labels, Gauge>,
    ready: Family<Labels, Gauge>,
}

impl GatewayMetrics {
    pub(crate) fn new() -> Self {
        let registry = Metrics::new();
        let metrics = Self {
            registry: registry.clone(),
            requests: Family::default(),
            refused: Family::default(),
            received: Family::default(),
            sent: Family::default(),
            failures: Family::default(),
            held: Family::default(),
            in_flight: Family::default(),
            ready: Family::default(),
        };
        registry.register(|registry| {
            let bytes = || Unit::Bytes;
            registry.register(
                "zipline_gateway_requests",
                "Requests for a function",
                metrics.requests.clone(),
            );
            registry.register(
                "zipline_gateway_refused",
                "Requests that the gateway answered itself",
                metrics.refused.clone(),
            );
            registry.register_with_unit(
                "zipline_gateway_received",
                "Request bodies towards functions",
                bytes(),
                metrics.received.clone(),
            );
            registry.register_with_unit(
                "zipline_gateway_sent",
                "Response bodies towards callers",
                bytes(),
                metrics.sent.clone(),
            );
            registry.register(
                "zipline_engine_instance_failures",
                "Instances that failed since the start",
                metrics.failures.clone(),
            );
            registry.register(
                "zipline_gateway_held",
                "Requests that wait for an instance",
                metrics.held.clone(),
            );
            registry.register(
                "zipline_gateway_in_flight",
                "Requests at instances",
                metrics.in_flight.clone(),
            );
            registry.register(
                "zipline_engine_instances_ready",
                "Instances that are ready",
                metrics.ready.clone(),
            );
        });
        metrics
    }

    /// Counters of one function.
    pub(crate) fn of(&self, name: &FunctionName) -> Counters {
        let labels = Labels::from(name);
        Counters {
            requests: self.requests.get_or_create(&labels).clone(),
            received: self.received.get_or_create(&labels).clone(),
            sent: self.sent.get_or_create(&labels).clone(),
            refused: self.refused.get_or_create(&labels).clone(),
        }
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn encode(&self, functions: &Functions) -> String {
        let set = |gauge: &Family<Labels, Gauge>, labels: &Labels, value: usize| {
            gauge.get_or_create(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        for (name, function) in functions.iter() {
            let labels = Labels::from(name);
            let instances = function.instances();
            let ready =
                instances.iter().filter(|instance| instance.facts().state == InstanceState::Ready).count();
            let in_flight = instances.iter().map(|instance| function.pool.in_flight(instance.number)).sum();
            set(&self.failures, &labels, usize::try_from(function.failed_count()).unwrap_or(usize::MAX));
            set(&self.held, &labels, function.pool.held());
            set(&self.in_flight, &labels, in_flight);
            set(&self.ready, &labels, ready);
        }
        self.registry.encode()
    }
}
