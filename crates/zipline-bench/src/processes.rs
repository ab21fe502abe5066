//! Processor time and memory of process trees, by /proc.

use std::collections::{HashMap, HashSet};
use std::fs;

/// What a process tree has used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time so far, to the microsecond.
    pub(crate) cpu_seconds: f64,
    /// Resident memory now.
    pub(crate) memory_bytes: u64,
}

/// What the living processes of some trees have used.
pub(crate) fn usage(roots: &[u32]) -> Usage {
    own_usage(&tree(roots))
}

/// What these processes have used, without those that they started.
pub(crate) fn own_usage(pids: &[u32]) -> Usage {
    let mut all = Usage::default();
    for pid in pids {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let statistics = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = statistics.split(' ').next().and_then(|first| first.parse::<u64>().ok());
            all.cpu_seconds += nanoseconds.unwrap_or(0) as f64 / 1e9;
        }
        let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages = pages.split(' ').nth(1).and_then(|resident| resident.parse::<u64>().ok()).unwrap_or(0);
        all.memory_bytes += pages * rustix::param::page_size() as u64;
    }
    all
}

/// Processor time, user and system, that the living processes of some trees have used, in seconds.
///
/// Processes that have ended are not counted, so measure between two points at which the same ones live.
pub(crate) fn cpu_seconds(roots: &[u32]) -> f64 {
    let members: HashSet<u32> = tree(roots).into_iter().collect();
    let ticks: u64 = processes().filter(|(pid, ..)| members.contains(pid)).map(|(_, _, ticks)| ticks).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// The roots and their descendants, as far as they live.
pub(crate) fn tree(roots: &[u32]) -> Vec<u32> {
    let parents: HashMap<u32, u32> = processes().map(|(pid, parent, _)| (pid, parent)).collect();
    let belongs = |mut pid: u32| {
        // Bounded by the depth of a process tree; a parent is gone at worst, which ends the walk.
        for _ in 0..64 {
            if roots.contains(&pid) {
                return true;
            }
            match parents.get(&pid) {
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|pid| belongs(*pid)).collect()
}

fn processes() -> impl Iterator<Item = (u32, u32, u64)> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses may hold anything, so fields are counted from its end.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some((pid, u32::try_from(number(1)?).ok()?, number(11)? + number(12)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time() {
        let before = cpu_seconds(&[std::process::id()]);
        let mut sum = 0_u64;
        while cpu_seconds(&[std::process::id()]) - before < 0.05 {
            sum = std::hint::black_box((0..1_000_000).fold(sum, u64::wrapping_add));
        }
        assert!(before >= 0.0);
        assert_eq!(cpu_seconds(&[]), 0.0);
        let used = usage(&[std::process::id()]);
        assert!(used.cpu_seconds >= 0.04 && used.memory_bytes > 100_000);
    }
}
