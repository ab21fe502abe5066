//! Spans as lines of JSON, for `tracing.protocol: stdout`.

use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::context::{TraceContext, push_hex};
use super::record::{Attributes, Span, Value};
use crate::telemetry::otlp::unix_nanos;

/// One line for `span`, with its line break.
///
/// # Source
/// The members are those of `go.opentelemetry.io/otel/exporters/stdout/stdouttrace`.
pub(crate) fn line(span: &Span, resource: &[(String, String)]) -> Vec<u8> {
    let kind = match span.kind {
        super::record::Kind::Internal => 1,
        super::record::Kind::Server => 2,
        super::record::Kind::Client => 3,
    };
    let parent = span.parent.unwrap_or_default();
    let parent_trace = if span.parent.is_some() { span.context.trace } else { [0; 16] };
    let parent_flags = span.parent.is_some();
    let parent = TraceContext { trace: parent_trace, span: parent, sampled: parent_flags };
    let resource: Vec<_> = resource.iter().map(|(name, value)| string(name, value)).collect();
    let scope = json!({ "Name": span.scope, "Version": "", "SchemaURL": "", "Attributes": null });
    let (code, description) = match &span.error {
        Some(description) => ("Error", description.as_str()),
        None => ("Unset", ""),
    };
    let value = json!({
        "Name": span.name,
        "SpanContext": context(&span.context, &span.trace_state, false),
        "Parent": context(&parent, if parent_flags { &span.trace_state } else { "" }, span.remote_parent),
        "SpanKind": kind,
        "StartTime": rfc3339(span.start),
        "EndTime": rfc3339(span.end),
        "Attributes": attributes(&span.attributes),
        "Events": null,
        "Links": null,
        "Status": { "Code": code, "Description": description },
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "ChildSpanCount": 0,
        "Resource": resource,
        "InstrumentationScope": scope,
        "InstrumentationLibrary": scope,
    });
    let mut line = serde_json::to_vec(&value).expect("strings and numbers always serialise");
    line.push(b'\n');
    line
}

fn context(context: &TraceContext, state: &str, remote: bool) -> Json {
    let (mut trace, mut span) = (String::new(), String::new());
    push_hex(&context.trace, &mut trace);
    push_hex(&context.span, &mut span);
    let flags = if context.sampled { "01" } else { "00" };
    json!({ "TraceID": trace, "SpanID": span, "TraceFlags": flags, "TraceState": state, "Remote": remote })
}

fn attributes(attributes: &Attributes) -> Json {
    if attributes.is_empty() {
        return Json::Null;
    }
    let each = attributes.iter().map(|(name, value)| match value {
        Value::Text(text) => string(name, text),
        Value::Number(number) => json!({ "Key": name, "Value": { "Type": "INT64", "Value": number } }),
    });
    each.collect()
}

fn string(name: &str, value: &str) -> Json {
    json!({ "Key": name, "Value": { "Type": "STRING", "Value": value } })
}

/// UTC, to the nanosecond.
fn rfc3339(at: SystemTime) -> String {
    let nanos = unix_nanos(at);
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The date `days` after 1970-01-01, by eras of 400 years that start on the first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn dates_are_right() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_795_472_127, "2026-11-23T22:15:27.000000007Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, 7)), text);
        }
    }
}
