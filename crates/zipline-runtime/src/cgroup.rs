//! How much memory the control group of this process may use.
//!
//! The limit that counts is the smallest on the way from the process's own group to the root. Inside a container the kernel
//! may show a path that exists only outside; then only the groups that can be seen count, and the container's own is among
//! them, since it is the root of what is mounted.
use std::fs;
use std::path::{Path, PathBuf};

/// Version 1 writes "no limit" as the largest multiple of a page; whatever is this large limits nothing.
const UNLIMITED: u64 = 1 << 60;

/// The memory limit in bytes, of version 2 or 1; `None` where there is none, or none can be seen.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_limit_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// The limit of a process whose `/proc/<pid>/cgroup` reads `groups`, with the hierarchies mounted under `mount`.
fn memory_limit_of(groups: &str, mount: &Path) -> Option<u64> {
    groups.lines().filter_map(|line| limit_of_line(line, mount)).min()
}

/// A line is `hierarchy:controllers:path`; version 2 is hierarchy 0 without controllers.
fn limit_of_line(line: &str, mount: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, file) = if hierarchy == "0" && controllers.is_empty() {
        // Beside version 1 version 2 is mounted one folder further down, and has no memory controller then.
        (mount.to_path_buf(), "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (mount.join("memory"), "memory.limit_in_bytes")
    } else {
        return None;
    };
    let own: PathBuf = Path::new(path)
        .components()
        .filter(|component| matches!(component, std::path::Component::Normal(_)))
        .collect();
    own.ancestors().filter_map(|group| read_limit(&root.join(group).join(file))).min()
}

fn read_limit(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.trim().parse().ok().filter(|limit| *limit < UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, path: &str, text: &str) {
        let file = folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn the_smallest_limit_on_the_way_to_the_root_counts() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path(), "memory.max", "max\n");
        write(mount.path(), "pods/memory.max", "1000\n");
        write(mount.path(), "pods/one/memory.max", "4000\n");
        let limit = |groups| memory_limit_of(groups, mount.path());
        assert_eq!(limit("0::/pods/one\n"), Some(1000));
        assert_eq!(limit("0::/\n"), None, "max is no limit");
        assert_eq!(limit("0::/pods/../../pods/one"), Some(1000), "parents of the mount are not looked at");
        assert_eq!(limit(""), None);
        assert_eq!(limit("nonsense"), None);
    }

    #[test]
    fn version_1_has_its_own_files_and_its_own_word_for_none() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path(), "memory/memory.limit_in_bytes", "2000\n");
        write(mount.path(), "memory/free/memory.limit_in_bytes", "9223372036854771712\n");
        let limit = |groups| memory_limit_of(groups, mount.path());
        assert_eq!(limit("5:cpu,cpuacct:/\n4:memory:/kubepods/outside\n0::/x"), Some(2000));
        write(mount.path(), "memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("4:memory:/free"), None);
    }
}
