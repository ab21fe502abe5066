//! What Prometheus' client for Go tells about its own process, told about this one.

use std::fs;

use super::exposition::write_plain;

/// Clock ticks per second in `/proc`: fixed by the kernel's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes the metrics of this process. What `/proc` does not show is left out.
///
/// # Source
/// `github.com/prometheus/client_golang` `prometheus/process_collector.go`. The metrics named `go_*` beside them describe
/// Go's own runtime and have no counterpart here.
pub(crate) fn write_process(out: &mut String) {
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)) else {
        return;
    };
    write_plain(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        "counter",
        stat.cpu_ticks / TICKS_PER_SECOND,
        out,
    );
    if let Some(limit) = open_file_limit() {
        write_plain("process_max_fds", "Maximum number of open file descriptors.", "gauge", limit, out);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        #[expect(clippy::cast_precision_loss, reason = "a process has few descriptors")]
        // Reading the directory opens one itself.
        let open = open.count().saturating_sub(1) as f64;
        write_plain("process_open_fds", "Number of open file descriptors.", "gauge", open, out);
    }
    if let Some(resident) = resident_bytes() {
        let help = "Resident memory size in bytes.";
        write_plain("process_resident_memory_bytes", help, "gauge", resident, out);
    }
    if let Some(boot) = boot_seconds() {
        let help = "Start time of the process since unix epoch in seconds.";
        let start = boot + stat.start_ticks / TICKS_PER_SECOND;
        write_plain("process_start_time_seconds", help, "gauge", start, out);
    }
    write_plain(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        "gauge",
        stat.virtual_bytes,
        out,
    );
}

struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
    virtual_bytes: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may hold anything.
        let fields: Vec<f64> =
            text.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        // The first of these is field 3 of proc(5).
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)?, virtual_bytes: field(23)? })
    }
}

fn resident_bytes() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

fn open_file_limit() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn boot_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told() {
        let mut out = String::new();
        write_process(&mut out);
        for name in [
            "process_cpu_seconds_total ",
            "process_max_fds ",
            "process_open_fds ",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
            "process_virtual_memory_bytes ",
        ] {
            assert!(out.lines().any(|line| line.starts_with(name)), "{name} missing in {out}");
        }
    }

    #[test]
    fn a_name_with_parentheses_is_no_trouble() {
        let rest: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        let stat = Stat::parse(&format!("1 (a) b) {}", rest.join(" "))).unwrap();
        assert_eq!((stat.cpu_ticks, stat.start_ticks, stat.virtual_bytes), (29.0, 22.0, 23.0));
    }
}
