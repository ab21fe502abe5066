//! Whether a run counts, and what it says of the targets.

use super::rows::Row;

/// Requests per second of a baseline over those of `direct`, HTTP/1.1 without bodies, as once measured on a quiet machine
/// (nginx 1.22, Knative's queue-proxy of August 2026). A run in which a baseline reaches less than [`ENOUGH`] of it is void: it
/// would flatter us.
const BASELINES: [(&str, usize, f64); 4] = [
    ("nginx", 16, 94.0 / 227.0),
    ("nginx", 64, 99.0 / 219.0),
    ("knative", 16, 19.3 / 227.0),
    ("knative", 64, 20.0 / 219.0),
];
const ENOUGH: f64 = 0.75;

const MIB: f64 = 1024.0 * 1024.0;

/// One line per baseline and per target; what was not measured has none.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut void = false;
    for (system, connections, expected) in BASELINES {
        let rate = |system| value(rows, system, "http1", connections, 0, |row| row.requests_per_second);
        let Some((rate, direct)) = rate(system).zip(rate("direct")) else { continue };
        let ratio = rate / direct / expected;
        void |= ratio < ENOUGH;
        text += &format!(
            "baseline {system}, {connections} connections: {:.3} of direct, {:.0} % of what it was\n",
            rate / direct,
            ratio * 100.0
        );
    }
    if void {
        text += "VOID: a baseline reached less than 75 % of its ratio, so this run says nothing\n";
    }
    for target in targets(rows) {
        let Target { name, value, limit, at_least } = target;
        let met = if at_least { value >= limit } else { value <= limit };
        text += &format!(
            "{} {name}: {value:.3}, {} {limit}\n",
            if met { "met   " } else { "MISSED" },
            if at_least { "at least" } else { "at most" }
        );
    }
    text
}

struct Target {
    name: String,
    value: f64,
    limit: f64,
    at_least: bool,
}

fn targets(rows: &[Row]) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |name: String, value: Option<f64>, limit: f64, at_least: bool| {
        targets.extend(value.map(|value| Target { name, value, limit, at_least }));
    };
    for connections in [16, 64] {
        for (protocol, peer, limit) in
            [("http1", "knative", 3.0), ("http1", "nginx", 0.6), ("h2c", "knative", 2.0)]
        {
            let rate = |system| value(rows, system, protocol, connections, 0, |row| row.requests_per_second);
            let ratio = rate("zipline").zip(rate(peer)).map(|(ours, theirs)| ours / theirs);
            add(
                format!("requests/s over {peer}'s, {protocol}, {connections} connections"),
                ratio,
                limit,
                true,
            );
        }
    }
    type Latency = fn(&Row) -> Option<f64>;
    let latencies: [(&str, Latency); 2] = [("p50", |row| row.median_seconds), ("p99", |row| row.p99_seconds)];
    for connections in [1, 16] {
        for (name, of) in latencies {
            let latency = |system| value(rows, system, "http1", connections, 0, of);
            let added =
                |system| latency(system).zip(latency("direct")).map(|(through, direct)| through - direct);
            let ratio = added("zipline").zip(added("knative")).map(|(ours, theirs)| ours / theirs);
            add(format!("added {name} over knative's, http1, {connections} connections"), ratio, 0.4, false);
        }
    }
    let rest = |system: &str, of: fn(&Row) -> Option<f64>| {
        rows.iter().find(|row| row.case == "rest" && row.system == system).and_then(of)
    };
    let memory: fn(&Row) -> Option<f64> = |row| row.memory_bytes.map(|bytes| bytes as f64 / MIB);
    add("memory at rest, MiB".to_owned(), rest("zipline", memory), 12.0, false);
    for protocol in ["http1", "h2c"] {
        let under = |system| value(rows, system, protocol, 256, 0, memory);
        let ratio = under("zipline").zip(under("knative")).map(|(ours, theirs)| ours / theirs);
        add(format!("memory over knative's, {protocol}, 256 connections"), ratio, 0.5, false);
    }
    add(
        "start to ready, ms".to_owned(),
        rest("zipline", |row| row.ready_seconds.map(|s| s * 1e3)),
        20.0,
        false,
    );
    for (body, limit) in [(10_000, 0.25), (1_000_000, 2.0 / 3.0), (100_000_000, 0.75)] {
        let cpu = |system| value(rows, system, "http1", 1, body, |row| row.cpu_seconds_per_gib);
        let ratio = cpu("zipline").zip(cpu("knative")).map(|(ours, theirs)| ours / theirs);
        add(format!("cpu per byte over knative's, http1, 1 connection, {body} bytes"), ratio, limit, false);
    }
    targets
}

fn value(
    rows: &[Row],
    system: &str,
    protocol: &str,
    connections: usize,
    body_bytes: u64,
    of: impl Fn(&Row) -> Option<f64>,
) -> Option<f64> {
    let case = |row: &&Row| {
        row.system == system
            && row.protocol == Some(protocol)
            && row.connections == Some(connections)
            && row.body_bytes == Some(body_bytes)
    };
    rows.iter().find(case).and_then(of)
}
