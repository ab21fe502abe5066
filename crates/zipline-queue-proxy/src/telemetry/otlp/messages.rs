//! Spans and metrics as OTLP's messages.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as SpanMessage, Status, status};
use prost::Message as _;

use super::unix_nanos;
use crate::telemetry::metrics::table::{LabelPairs, LabelValue};
use crate::telemetry::metrics::{Family, HTTP_SCOPE, Point, QUEUE_SCOPE};
use crate::telemetry::trace::record::{Span, Value};

/// A parent is known to be in another process, or known not to be.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The resource of every message.
pub(crate) type ResourcePairs = [(String, String)];

/// The message that exports `spans`.
pub(crate) fn trace_request(spans: &[Span], resource: &ResourcePairs) -> Vec<u8> {
    let scope = |name: &'static str| {
        let spans: Vec<_> = spans.iter().filter(|span| span.scope == name).map(span_message).collect();
        ScopeSpans { scope: Some(scope_message(name)), spans, schema_url: String::new() }
    };
    let scope_spans: Vec<_> =
        [QUEUE_SCOPE, HTTP_SCOPE].map(scope).into_iter().filter(|scope| !scope.spans.is_empty()).collect();
    let resource_spans =
        ResourceSpans { resource: Some(resource_message(resource)), scope_spans, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// The message that exports `families`, counted since `start`.
pub(crate) fn metrics_request(
    families: &[Family],
    resource: &ResourcePairs,
    (start, now): (SystemTime, SystemTime),
) -> Vec<u8> {
    let period = (unix_nanos(start), unix_nanos(now));
    let scope = |name: &'static str| {
        let of_scope = families.iter().filter(|family| family.scope == name);
        let metrics: Vec<_> = of_scope.map(|family| metric_message(family, period)).collect();
        ScopeMetrics { scope: Some(scope_message(name)), metrics, schema_url: String::new() }
    };
    let scope_metrics: Vec<_> =
        [HTTP_SCOPE, QUEUE_SCOPE].map(scope).into_iter().filter(|scope| !scope.metrics.is_empty()).collect();
    let resource_metrics = ResourceMetrics {
        resource: Some(resource_message(resource)),
        scope_metrics,
        schema_url: String::new(),
    };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }.encode_to_vec()
}

fn span_message(span: &Span) -> SpanMessage {
    let remote = if span.remote_parent { IS_REMOTE } else { 0 };
    SpanMessage {
        trace_id: span.context.trace.to_vec(),
        span_id: span.context.span.to_vec(),
        trace_state: span.trace_state.clone(),
        parent_span_id: span.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        flags: u32::from(span.context.sampled) | HAS_IS_REMOTE | remote,
        name: span.name.clone(),
        kind: span.kind as i32,
        start_time_unix_nano: unix_nanos(span.start),
        end_time_unix_nano: unix_nanos(span.end),
        attributes: span
            .attributes
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Value::Text(text) => any_value::Value::StringValue(text.clone()),
                    Value::Number(number) => any_value::Value::IntValue(*number),
                };
                pair(name, value)
            })
            .collect(),
        status: Some(match &span.error {
            Some(message) => Status { message: message.clone(), code: status::StatusCode::Error.into() },
            None => Status::default(),
        }),
        ..SpanMessage::default()
    }
}

fn metric_message(family: &Family, period: (u64, u64)) -> Metric {
    let mut gauges = Vec::new();
    let mut histograms = Vec::new();
    for (labels, point) in &family.points {
        match point {
            Point::Gauge(level) => gauges.push(NumberDataPoint {
                attributes: label_message(labels),
                start_time_unix_nano: period.0,
                time_unix_nano: period.1,
                value: Some(number_data_point::Value::AsInt(*level)),
                ..NumberDataPoint::default()
            }),
            Point::Histogram(histogram) => histograms.push(HistogramDataPoint {
                attributes: label_message(labels),
                start_time_unix_nano: period.0,
                time_unix_nano: period.1,
                count: histogram.count(),
                sum: Some(histogram.sum()),
                bucket_counts: histogram.counts().to_vec(),
                explicit_bounds: histogram.bounds().to_vec(),
                min: histogram.range().map(|(min, _)| min),
                max: histogram.range().map(|(_, max)| max),
                ..HistogramDataPoint::default()
            }),
        }
    }
    let data = if gauges.is_empty() {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        metric::Data::Histogram(Histogram { data_points: histograms, aggregation_temporality })
    } else {
        metric::Data::Gauge(Gauge { data_points: gauges })
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: family.unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn label_message(labels: &LabelPairs) -> Vec<KeyValue> {
    let each = labels.iter().map(|(name, value)| {
        let value = match value {
            LabelValue::Text(text) => any_value::Value::StringValue(text.clone()),
            LabelValue::Number(number) => any_value::Value::IntValue(*number),
            LabelValue::Bool(truth) => any_value::Value::BoolValue(*truth),
        };
        pair(name, value)
    });
    each.collect()
}

fn resource_message(resource: &ResourcePairs) -> Resource {
    let pairs = resource.iter().map(|(name, value)| pair(name, any_value::Value::StringValue(value.clone())));
    Resource { attributes: pairs.collect(), ..Resource::default() }
}

fn scope_message(name: &str) -> InstrumentationScope {
    let version = if name == HTTP_SCOPE { env!("CARGO_PKG_VERSION") } else { "" };
    InstrumentationScope {
        name: name.to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    }
}

fn pair(name: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
