use prometheus_client::encoding::text::encode;
use zipline_protocol::{InlineReason, ReferenceKind};

use super::*;
use crate::edges::Zones;

/// The exposition after `move_it`.
fn exposed(move_it: impl FnOnce(&ProxyMetrics)) -> String {
    let mut registry = Registry::default();
    let metrics = ProxyMetrics::new(&mut registry);
    move_it(&metrics);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

#[track_caller]
fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|present| present == line), "no line {line:?} in\n{text}");
}

#[test]
fn transfers_count_payloads_and_bytes_by_way_and_reason() {
    let text = exposed(|metrics| {
        metrics.transferred(&Transfer {
            direction: Direction::Sent,
            kind: ReferenceKind::Request,
            peer: Some("recog.default".parse().unwrap()),
            way: Way::Inline,
            reason: Some(InlineReason::BelowThreshold),
            zones: Zones::Unknown,
            bytes: 7,
            elapsed: Duration::ZERO,
        });
    });
    let labels = r#"{direction="sent",kind="request",way="inline",reason="below-threshold"}"#;
    assert_line(&text, &format!("zipline_transfers_total{labels} 1"));
    assert_line(&text, &format!("zipline_transfer_bytes_total{labels} 7"));
    assert!(!text.contains("recog"), "peers are no label");
}

#[test]
fn what_was_retrieved_is_counted_by_zones() {
    let text = exposed(|metrics| {
        for (zones, way, bytes) in [
            (Zones::Same, Way::Network, 1),
            (Zones::Other, Way::Network, 2),
            (Zones::Unknown, Way::Inline, 4),
        ] {
            metrics.transferred(&Transfer {
                direction: Direction::Received,
                kind: ReferenceKind::Put,
                peer: None,
                way,
                reason: None,
                zones,
                bytes,
                elapsed: Duration::ZERO,
            });
        }
    });
    assert_line(&text, r#"zipline_retrieved_bytes_total{zones="same"} 1"#);
    assert_line(&text, r#"zipline_retrieved_bytes_total{zones="other"} 2"#);
    assert!(!text.contains("zones=\"\""), "what came inline was not retrieved");
}

#[test]
fn durations_are_histograms_in_seconds() {
    let text = exposed(|metrics| {
        metrics.retrieved(Duration::from_millis(500));
        metrics.held(Duration::from_secs(2));
        metrics.request_served(StatusCode::BAD_GATEWAY, Duration::from_millis(250));
    });
    assert_line(&text, "zipline_retrieval_duration_seconds_sum 0.5");
    assert_line(&text, "zipline_retrieval_duration_seconds_count 1");
    assert_line(&text, "zipline_hold_seconds_sum 2.0");
    assert_line(&text, r#"http_server_request_duration_seconds_sum{status="5xx"} 0.25"#);
}

#[test]
fn levels_show_what_was_set_last() {
    let text = exposed(|metrics| {
        metrics.set_buffer(BufferLevels { bytes: 9, payloads: 9, peak_bytes: 9, waiters: 9 });
        metrics.set_buffer(BufferLevels { bytes: 1, payloads: 2, peak_bytes: 3, waiters: 4 });
        metrics.set_breaker(5, 6);
    });
    assert_line(&text, "zipline_buffer_usage_bytes 1");
    assert_line(&text, "zipline_buffer_payloads 2");
    assert_line(&text, "zipline_buffer_peak_bytes 3");
    assert_line(&text, "zipline_buffer_waiters 4");
    assert_line(&text, "zipline_breaker_in_flight 5");
    assert_line(&text, "zipline_breaker_queue_length 6");
}

#[test]
fn stripped_headers_and_errors_are_counted() {
    let text = exposed(|metrics| {
        metrics.stripped_headers(2);
        metrics.stripped_headers(1);
        metrics.error(ErrorCode::BufferFull);
    });
    assert_line(&text, "zipline_stripped_headers_total 3");
    assert_line(&text, r#"zipline_errors_total{error_type="buffer-full"} 1"#);
}

#[test]
fn the_data_port_shows_what_it_sends_and_who_waits() {
    let text = exposed(|metrics| {
        let stats = DataPortStats {
            sends: 9,
            relayed: 5,
            copy_sends: 6,
            refused_sends: 1,
            large_sends: 2,
            waiting_sends: 3,
            ..DataPortStats::default()
        };
        metrics.set_data_port(&stats, 4);
        metrics.set_data_port(&stats, 4);
    });
    for line in [
        "zipline_sends_total 9",
        "zipline_sends_refused_total 1",
        "zipline_sends_relayed_total 5",
        "zipline_copy_sends_total 6",
        "zipline_copies 4",
        "zipline_large_sends 2",
        "zipline_sends_waiting 3",
    ] {
        assert_line(&text, line);
    }
}
