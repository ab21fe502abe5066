//! What the kernel tells about processes: enough to end exactly those that were started here, and none else.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal};

/// One line of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// Ended, but not yet waited for.
    pub(crate) zombie: bool,
    /// Clock ticks from the machine's start to the process's: with the process id and the boot id it names one process
    /// for good, while ids alone are used again.
    pub(crate) start_ticks: u64,
}

/// Looks a process up.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
    let pid = line.split_once(' ')?.0.parse().ok()?;
    let rest: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Stat {
        pid,
        parent: rest.get(1)?.parse().ok()?,
        zombie: matches!(*rest.first()?, "Z" | "X"),
        start_ticks: rest.get(19)?.parse().ok()?,
    })
}

/// The running kernel's id; start times of another boot mean nothing.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Every process below `root`, zombies left out, `root` itself not included.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<Stat>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some(found) = pid.and_then(stat) {
            children.entry(found.parent).or_default().push(found);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if !child.zombie {
                found.push(child.pid);
            }
            next.push(child.pid);
        }
    }
    found
}

/// Processes that run with the environment of a function whose socket lies below `folder`: those that left their group
/// and session, and whose parents are gone, still carry it. Guests' processes do not count: they have no `K_SERVICE`.
pub(crate) fn with_function_environment(folder: &Path) -> Vec<i32> {
    let mut socket = b"ZIPLINE_SOCKET=".to_vec();
    socket.extend_from_slice(folder.as_os_str().as_bytes());
    socket.push(b'/');
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| *name != own).and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // Those of other users cannot be read, and were not started here.
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        let has = |start: &[u8]| environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(start));
        if has(&socket) && has(b"K_SERVICE=") {
            found.push(pid);
        }
    }
    found
}

/// Sends a signal to one process; one that is gone already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 1) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Sends a signal to a whole process group; one that is gone already is no error.
pub(crate) fn signal_group(group: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(group).filter(|_| group > 1) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_blanks() {
        let tail = "S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1000 1";
        let found = parse_stat(&format!("42 (a) b (c)) {tail}")).unwrap();
        assert_eq!(found, Stat { pid: 42, parent: 7, zombie: false, start_ticks: 98765 });
        assert_eq!(parse_stat("42 (short) S 7"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = stat(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.start_ticks > 0 && !own.zombie);
        assert_eq!(boot_id().len(), 36);
    }
}
