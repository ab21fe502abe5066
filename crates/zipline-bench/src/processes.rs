//! Processor time of process trees, by /proc.

use std::collections::{HashMap, HashSet};
use std::fs;

/// Processor time, user and system, that the living processes of some trees have used, in seconds.
///
/// Processes that have ended are not counted, so measure between two points at which the same ones live.
pub(crate) fn cpu_seconds(roots: &[u32]) -> f64 {
    let all: HashMap<u32, (u32, u64)> =
        processes().map(|(pid, parent, ticks)| (pid, (parent, ticks))).collect();
    let roots: HashSet<u32> = roots.iter().copied().collect();
    let belongs = |mut pid: u32| {
        // Bounded by the depth of a process tree; a parent is gone at worst, which ends the walk.
        for _ in 0..64 {
            if roots.contains(&pid) {
                return true;
            }
            match all.get(&pid) {
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    let ticks: u64 = all.iter().filter(|(pid, _)| belongs(**pid)).map(|(_, (_, ticks))| ticks).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
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
    }
}
