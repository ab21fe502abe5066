//! The table of targets, filled from rows.

use serde::Serialize;

use super::rows::Row;

const MIB: f64 = 1024.0 * 1024.0;
/// What `get` on one host may take until the bytes can be read, and how much that may vary with their number.
const READABLE_US: f64 = 150.0;
const READABLE_SPREAD: f64 = 2.0;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Target {
    case: &'static str,
    what: String,
    limit: f64,
    at_least: bool,
    /// `null`: not measured in this run.
    value: Option<f64>,
    met: Option<bool>,
}

/// Finds rows of one kind.
struct Find<'a> {
    rows: &'a [Row],
}

impl<'a> Find<'a> {
    fn row(&self, system: &str, path: &str, shape: &str, bytes: u64, state: &str) -> Option<&'a Row> {
        self.rows.iter().find(|row| {
            row.case == "transfer"
                && (row.system, row.path, row.pattern, row.state) == (system, path, shape, state)
                && row.size_bytes == bytes
        })
    }

    fn one(&self, system: &str, path: &str, bytes: u64) -> Option<&'a Row> {
        self.row(system, path, "1-1", bytes, "warm")
    }

    fn figure(&self, case: &str, name: &str) -> Option<f64> {
        self.rows
            .iter()
            .find(|row| row.case == case && row.figures.contains_key(name))?
            .figures
            .get(name)
            .copied()
    }
}

/// How many times longer `theirs` took.
fn faster(ours: Option<&Row>, theirs: Option<&Row>) -> Option<f64> {
    Some(theirs?.median_seconds / ours?.median_seconds)
}

fn slower(ours: Option<&Row>, theirs: Option<&Row>) -> Option<f64> {
    faster(theirs, ours)
}

fn size(bytes: u64) -> &'static str {
    match bytes {
        10_000 => "10 KB",
        100_000 => "100 KB",
        1_000_000 => "1 MB",
        10_000_000 => "10 MB",
        100_000_000 => "100 MB",
        _ => "1 GB",
    }
}

/// Every line, measured or not.
pub(super) fn targets(rows: &[Row]) -> Vec<Target> {
    let find = Find { rows };
    let mut targets = Vec::new();
    network(&find, &mut targets);
    same_host(&find, &mut targets);
    functions(&find, &mut targets);
    many(&find, &mut targets);
    at_rest(&find, &mut targets);
    targets
}

fn add(
    targets: &mut Vec<Target>,
    case: &'static str,
    what: String,
    at_least: bool,
    limit: f64,
    value: Option<f64>,
) {
    let met = value.map(|value| if at_least { value >= limit } else { value <= limit });
    targets.push(Target { case, what, limit, at_least, value, met });
}

fn network(find: &Find<'_>, targets: &mut Vec<Target>) {
    let one = |system, bytes| find.one(system, "network", bytes);
    let case = "network 1-1, written in place";
    let median = |system, bytes| one(system, bytes).map(|row: &Row| row.median_seconds);
    let over =
        median("zipline", 10_000_000).zip(median("bare", 10_000_000)).map(|(ours, bare)| (ours - bare) * 1e6);
    add(targets, case, "10 MB: us over the bare pull".to_owned(), false, 250.0, over);
    let times = slower(one("zipline", 100_000_000), one("bare", 100_000_000));
    add(targets, case, "100 MB: times the bare pull".to_owned(), false, 1.10, times);
    for (bytes, limit) in [(10_000_000, 7.0), (100_000_000, 9.0)] {
        let value = faster(one("zipline", bytes), one("redis", bytes));
        add(targets, case, format!("{}: times faster than Redis", size(bytes)), true, limit, value);
    }
    for server in ["s3fs", "versitygw"] {
        for bytes in [10_000_000, 100_000_000] {
            let value = faster(one("zipline", bytes), one(server, bytes));
            add(targets, case, format!("{}: times faster than {server}", size(bytes)), true, 50.0, value);
        }
    }
    for bytes in [10_000_000, 100_000_000] {
        let value = faster(one("zipline-put", bytes), one("redis", bytes));
        let what = format!("{}: times faster than Redis", size(bytes));
        add(targets, "network 1-1, put copies", what, true, 4.0, value);
    }
    for bytes in [10_000, 100_000] {
        for (system, name, limit) in
            [("zipline-put", "synchronous", 1.6), ("zipline-preissued", "pre-issued", 1.0)]
        {
            let value = slower(one(system, bytes), one("redis", bytes));
            add(
                targets,
                "network 1-1, small, pinned",
                format!("{}, {name}: times Redis", size(bytes)),
                false,
                limit,
                value,
            );
        }
    }
    for bytes in [10_000_000, 100_000_000] {
        let value = slower(one("zipline", bytes), one("zipline-unprivileged", bytes));
        add(
            targets,
            "network 1-1, unprivileged",
            format!("{}: part of the privileged speed", size(bytes)),
            true,
            0.85,
            value,
        );
    }
    let python = [("zipline-python", "in place", 20.0), ("zipline-python-put", "put copies", 10.0)];
    for (system, name, limit) in python {
        let value = faster(one(system, 100_000_000), one("redis-py", 100_000_000));
        add(
            targets,
            "network 1-1, Python, NumPy",
            format!("100 MB, {name}: times faster than redis-py"),
            true,
            limit,
            value,
        );
    }
    let warm = one("zipline", 100_000_000);
    for (state, limit) in [("idle", 2.0), ("first", 4.0)] {
        let value = slower(find.row("zipline", "network", "1-1", 100_000_000, state), warm);
        add(
            targets,
            "network 1-1, written in place",
            format!("100 MB, {state}: times warm"),
            false,
            limit,
            value,
        );
    }
}

fn same_host(find: &Find<'_>, targets: &mut Vec<Target>) {
    let one = |system, bytes| find.one(system, "same-host", bytes);
    let taking = |system, bytes| one(system, bytes).and_then(|row: &Row| row.taking_median_seconds);
    let case = "same host, get of what was written in place";
    let sizes = [1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
    for bytes in sizes {
        let value = taking("zipline", bytes).map(|seconds| seconds * 1e6);
        add(targets, case, format!("{}: us until readable", size(bytes)), false, READABLE_US, value);
    }
    let all: Option<Vec<f64>> = sizes.iter().map(|bytes| taking("zipline", *bytes)).collect();
    let spread = all.map(|all| {
        all.iter().fold(0.0, |most, one| one.max(most))
            / all.iter().fold(f64::MAX, |least, one| one.min(least))
    });
    add(targets, case, "1 MB to 1 GB: slowest over fastest".to_owned(), false, READABLE_SPREAD, spread);
    for bytes in sizes {
        let value = taking("zipline", bytes).zip(taking("ray", bytes)).map(|(ours, theirs)| ours / theirs);
        add(targets, case, format!("{}: times Ray's get", size(bytes)), false, 0.7, value);
    }
    for bytes in [10_000_000, 100_000_000] {
        let value = slower(one("zipline-put", bytes), one("memcpy", bytes));
        add(
            targets,
            "same host, put copies, and get",
            format!("{}: times one memcpy", size(bytes)),
            false,
            1.25,
            value,
        );
        let value = faster(one("zipline-put", bytes), one("redis", bytes));
        let what = format!("{}: times faster than Redis (Unix socket)", size(bytes));
        add(targets, "same host, put copies, and get", what, true, 5.0, value);
    }
}

fn functions(find: &Find<'_>, targets: &mut Vec<Target>) {
    let one = |system| find.one(system, "network", 100_000_000);
    let case = "function without SDK, invoke, network";
    let value = slower(one("zipline-invoke"), one("nginx-2"));
    add(targets, case, "100 MB: times two nginx hops".to_owned(), false, 1.0, value);
    let cpu = one("zipline-invoke").and_then(|row| row.servers_cpu_seconds_per_gib);
    add(targets, case, "100 MB: CPU s/GiB of both queue-proxies".to_owned(), false, 0.35, cpu);
    let round = |system| find.rows.iter().find(|row: &&Row| row.case == "round-trip" && row.system == system);
    let value = slower(round("zipline-invoke"), round("nginx"));
    add(targets, "invoke, standalone", "10 KB: times a POST through nginx".to_owned(), false, 1.2, value);
}

fn many(find: &Find<'_>, targets: &mut Vec<Target>) {
    let cast = |system| find.row(system, "network", "broadcast", 100_000_000, "warm");
    let case = "broadcast of 100 MB to 16, network";
    let sent = cast("zipline").and_then(|row| Some(row.sent_bytes? as f64 / row.size_bytes as f64));
    add(targets, case, "payloads that the sender's host sends".to_owned(), false, 5.0, sent);
    add(
        targets,
        case,
        "times as long as 16 Redis GETs".to_owned(),
        false,
        0.25,
        slower(cast("zipline"), cast("redis")),
    );
    let shuffled = |system| find.row(system, "network", "shuffle", 277_000, "warm");
    for (peer, limit) in [("redis", 1.5), ("s3fs", 10.0)] {
        let value = faster(shuffled("zipline"), shuffled(peer));
        add(
            targets,
            "shuffle 64 x 32 of 277 KB",
            format!("payloads per second over {peer}'s"),
            true,
            limit,
            value,
        );
    }
}

fn at_rest(find: &Find<'_>, targets: &mut Vec<Target>) {
    let per_byte = find.figure("memory", "touched_per_payload_byte");
    add(targets, "memory", "touched pages over payload bytes alive".to_owned(), false, 1.1, per_byte);
    let idle = find.figure("memory", "idle_touched_bytes").map(|bytes| bytes / MIB);
    add(targets, "memory", "MiB, 60 s idle".to_owned(), false, 64.0, idle);
    let resident = find.figure("rest", "resident_bytes").map(|bytes| bytes / MIB);
    add(targets, "queue-proxy at rest", "MiB resident".to_owned(), false, 12.0, resident);
    add(
        targets,
        "queue-proxy at rest",
        "wake-ups per second".to_owned(),
        false,
        5.0,
        find.figure("rest", "wake_ups_per_second"),
    );
}

/// The table for people.
pub(super) fn text(targets: &[Target]) -> String {
    let line = |target: &Target| {
        let verdict = match target.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "-",
        };
        let value = target.value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2}"));
        let direction = if target.at_least { ">=" } else { "<=" };
        format!(
            "{verdict:<7} {:<44} {:<46} {direction} {:<7} {value}\n",
            target.case, target.what, target.limit
        )
    };
    targets.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::systems::{Path, Pattern, State, System};
    use super::*;

    fn row(system: System, path: Path, bytes: u64, ms: f64) -> Row {
        let shape = Pattern::OneToOne.shape(1);
        Row::of_seconds("transfer", system, path, shape, bytes, State::Warm, &[ms / 1e3]).unwrap()
    }

    fn met(rows: &[Row], what: &str) -> Vec<Option<bool>> {
        targets(rows).iter().filter(|target| target.what == what).map(|target| target.met).collect()
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let all = targets(&[]);
        assert!(all.len() > 35 && all.iter().all(|target| target.met.is_none() && target.value.is_none()));
        assert!(text(&all).contains("not measured"));
    }

    #[test]
    fn limits_are_kept_to_either_side() {
        let big = 100_000_000;
        let rows = |ours| {
            [
                row(System::Bare, Path::Network, big, 10.0),
                row(System::Redis, Path::Network, big, 99.0),
                row(System::Zipline, Path::Network, big, ours),
            ]
        };
        assert_eq!(met(&rows(10.9), "100 MB: times the bare pull"), [Some(true)]);
        assert_eq!(met(&rows(11.1), "100 MB: times the bare pull"), [Some(false)]);
        assert_eq!(met(&rows(10.9), "100 MB: times faster than Redis"), [Some(true), None]);
        assert_eq!(met(&rows(11.1), "100 MB: times faster than Redis"), [Some(false), None]);
    }

    #[test]
    fn get_on_one_host_must_not_depend_on_the_size() {
        let rows = |largest_us: f64| {
            [(1_000_000, 50.0), (10_000_000, 60.0), (100_000_000, 70.0), (1_000_000_000, largest_us)].map(
                |(bytes, us)| {
                    let mut row = row(System::Zipline, Path::SameHost, bytes, 1.0);
                    row.taking_median_seconds = Some(us / 1e6);
                    row
                },
            )
        };
        assert_eq!(met(&rows(90.0), "1 MB to 1 GB: slowest over fastest"), [Some(true)]);
        assert_eq!(met(&rows(110.0), "1 MB to 1 GB: slowest over fastest"), [Some(false)]);
        assert_eq!(met(&rows(110.0), "1 GB: us until readable"), [Some(true)]);
    }
}
