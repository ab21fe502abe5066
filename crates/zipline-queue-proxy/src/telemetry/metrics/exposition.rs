//! Prometheus' text format, version 0.0.4, written as the exporter in Knative's queue-proxy writes it.
//!
//! # Source
//! `go.opentelemetry.io/otel/exporters/prometheus` and `github.com/prometheus/common/expfmt`, seen in what the queue-proxy
//! of `knative.dev/serving` v0.50.0 answers.

use std::fmt::Write as _;

use zipline_knative::metrics::{Kind, prometheus_label, prometheus_name};

use super::table::{LabelPairs, LabelValue};
use super::{Family, HTTP_SCOPE, Point};

/// The media type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Writes `families`.
pub(crate) fn write_families(families: &[Family], out: &mut String) {
    for family in families {
        let (kind, word) = match family.points.first() {
            Some((_, Point::Gauge(_))) => (Kind::Gauge, "gauge"),
            _ => (Kind::Histogram, "histogram"),
        };
        let name = prometheus_name(family.name, family.unit, kind);
        head(&name, family.help, word, out);
        for (labels, point) in &family.points {
            let labels = label_text(labels, family.scope);
            match point {
                Point::Gauge(level) => line(&name, "", &labels, None, &level.to_string(), out),
                Point::Histogram(histogram) => {
                    let mut below = 0;
                    for (bound, count) in histogram.bounds().iter().zip(histogram.counts()) {
                        below += count;
                        line(&name, "_bucket", &labels, Some(&number(*bound)), &below.to_string(), out);
                    }
                    let count = histogram.count().to_string();
                    line(&name, "_bucket", &labels, Some("+Inf"), &count, out);
                    line(&name, "_sum", &labels, None, &number(histogram.sum()), out);
                    line(&name, "_count", &labels, None, &count, out);
                }
            }
        }
    }
}

/// Writes the resource as the metric `target_info`.
pub(crate) fn write_target_info(resource: &[(String, String)], out: &mut String) {
    head("target_info", "Target metadata", "gauge", out);
    let mut pairs: Vec<_> = resource.iter().map(|(name, value)| (prometheus_label(name), value)).collect();
    pairs.sort();
    let labels: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    line("target_info", "", &labels.join(","), None, "1", out);
}

/// Writes a metric of one series without labels.
pub(crate) fn write_plain(name: &str, help: &str, kind: &str, value: f64, out: &mut String) {
    head(name, help, kind, out);
    line(name, "", "", None, &number(value), out);
}

/// Appends a text in OpenMetrics' form: counters are named with their `_total` here, and there is no end mark. The family
/// `http_server_request_duration_seconds` is left out, as Knative's own has that name.
pub(crate) fn append_open_metrics(text: &str, out: &mut String) {
    const TAKEN: &str = "http_server_request_duration_seconds";
    let mut help: Option<(&str, &str)> = None;
    for text in text.lines() {
        if let Some(rest) = text.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((family, kind)) =
            text.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let help = help.take().map_or("", |(_, help)| help);
            if family != TAKEN {
                let name = if kind == "counter" { format!("{family}_total") } else { family.to_owned() };
                head(&name, help, kind, out);
            }
        } else if !text.starts_with('#') && !text.starts_with(TAKEN) {
            out.push_str(text);
            out.push('\n');
        }
    }
}

fn head(name: &str, help: &str, kind: &str, out: &mut String) {
    // Writing to a String does not fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(name: &str, suffix: &str, labels: &str, bound: Option<&str>, value: &str, out: &mut String) {
    let _ = write!(out, "{name}{suffix}");
    match (labels.is_empty(), bound) {
        (true, None) => {}
        (true, Some(bound)) => drop(write!(out, "{{le=\"{bound}\"}}")),
        (false, None) => drop(write!(out, "{{{labels}}}")),
        (false, Some(bound)) => drop(write!(out, "{{{labels},le=\"{bound}\"}}")),
    }
    let _ = writeln!(out, " {value}");
}

/// Labels in the text form, sorted by name, with those of the scope among them.
fn label_text(labels: &LabelPairs, scope: &str) -> String {
    let version = if scope == HTTP_SCOPE { env!("CARGO_PKG_VERSION") } else { "" };
    let mut pairs: Vec<(String, String)> = labels
        .iter()
        .map(|(name, value)| {
            let value = match value {
                LabelValue::Text(text) => escaped(text),
                LabelValue::Number(number) => number.to_string(),
                LabelValue::Bool(truth) => truth.to_string(),
            };
            (prometheus_label(name), value)
        })
        .collect();
    pairs.push(("otel_scope_name".to_owned(), scope.to_owned()));
    pairs.push(("otel_scope_schema_url".to_owned(), String::new()));
    pairs.push(("otel_scope_version".to_owned(), version.to_owned()));
    pairs.sort();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    pairs.join(",")
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// A number as Go's `%g` writes it: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (0.005, "0.005"),
            (0.00005, "5e-05"),
            (7500.0, "7500"),
            (123_456.0, "123456"),
            (2_759_884.0, "2.759884e+06"),
            (0.000_791_481, "0.000791481"),
            (1e21, "1e+21"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(f64::NAN), "NaN");
    }

    #[test]
    fn open_metrics_are_turned_into_text() {
        let mut out = String::new();
        append_open_metrics(
            "# HELP zipline_transfers Payloads.\n# TYPE zipline_transfers counter\n\
             zipline_transfers_total{way=\"inline\"} 3\n# HELP http_server_request_duration_seconds R.\n\
             # TYPE http_server_request_duration_seconds histogram\n\
             http_server_request_duration_seconds_sum{status=\"2xx\"} 1\n# HELP zipline_buffer_usage_bytes B.\n\
             # TYPE zipline_buffer_usage_bytes gauge\nzipline_buffer_usage_bytes 0\n# EOF\n",
            &mut out,
        );
        assert_eq!(
            out,
            "# HELP zipline_transfers_total Payloads.\n# TYPE zipline_transfers_total counter\n\
             zipline_transfers_total{way=\"inline\"} 3\n# HELP zipline_buffer_usage_bytes B.\n\
             # TYPE zipline_buffer_usage_bytes gauge\nzipline_buffer_usage_bytes 0\n"
        );
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
