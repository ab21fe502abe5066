//! Memory that processes have touched: what is theirs alone, and the pages of memory files, each counted once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// Bytes that the kernel counts in a file's blocks.
const BLOCK: u64 = 512;

/// Anonymous memory of all these processes, and all pages of the memory files that any of them has open.
pub(super) fn touched_bytes(pids: &[u32]) -> u64 {
    anonymous_bytes(pids) + file_bytes(pids)
}

/// Anonymous resident memory.
pub(super) fn anonymous_bytes(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| status(*pid, "RssAnon:").unwrap_or(0) * 1024).sum()
}

/// Pages of memory files, mapped or not.
pub(super) fn file_bytes(pids: &[u32]) -> u64 {
    let mut files = BTreeMap::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if !target.to_string_lossy().starts_with("/memfd:") {
                continue;
            }
            if let Ok(found) = fs::metadata(entry.path()) {
                files.insert(found.ino(), found.blocks() * BLOCK);
            }
        }
    }
    files.values().sum()
}

/// All resident memory of one process, memory files as far as it has them mapped.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    status(pid, "VmRSS:").unwrap_or(0) * 1024
}

/// How often the threads of a process were put to run after they had waited by themselves.
pub(super) fn wake_ups(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .filter_map(|text| field(&text, "voluntary_ctxt_switches:"))
        .sum()
}

fn status(pid: u32, name: &str) -> Option<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, name)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    #[test]
    fn only_touched_pages_count() {
        let own = [std::process::id()];
        let before = file_bytes(&own);
        let file = memfd_create("touched", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 10 << 20).unwrap();
        assert_eq!(file_bytes(&own), before);
        let written = rustix::io::pwrite(&file, &[1; 8192], 1 << 20).unwrap();
        assert_eq!((written, file_bytes(&own)), (8192, before + 8192));
        assert!(resident_bytes(own[0]) >= anonymous_bytes(&own));
    }
}
