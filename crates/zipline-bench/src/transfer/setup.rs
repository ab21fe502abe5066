//! What a run stands on: rights, folders, the network.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path as FilePath;
use std::process::Command;
use std::sync::atomic::AtomicU16;

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::net::Network;
use super::options::Options;
use super::stop::Stop;
use super::world::Ground;

/// The roles that are Python programs.
const ROLE: &str = include_str!("role.py");
/// The kernel's name of tmpfs in statfs.
const TMPFS: u64 = 0x0102_1994;

/// Without root, this program begins again in a namespace of users in which it is root, which is enough for the rest.
///
/// # Errors
/// If the system does not allow that.
pub(super) fn become_root_of_own() -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let bench = std::env::current_exe().context("cannot find this binary")?;
    let error = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(bench)
        .args(std::env::args_os().skip(1))
        .exec();
    bail!("network namespaces need root, or unshare (util-linux) and namespaces of users: {error}")
}

/// The ground, and the folders that go when they are dropped.
///
/// # Errors
/// If one cannot be made.
pub(super) fn ground(options: &Options, stop: &Stop) -> anyhow::Result<(Ground, [TempDir; 2])> {
    let folder = tempfile::Builder::new().prefix("zipline-bench").tempdir().context("temporary folder")?;
    // Processes of other users have to come through.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).context("permissions")?;
    fs::write(folder.path().join("role.py"), ROLE).context("cannot write role.py")?;
    let memory = tempfile::Builder::new()
        .prefix("zipline-bench")
        .tempdir_in("/dev/shm")
        .context("folder in /dev/shm")?;
    let found = rustix::fs::statfs(memory.path()).context("/dev/shm")?;
    ensure!(u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS), "/dev/shm is no tmpfs");
    let congestion = Some(options.congestion.as_str()).filter(|name| *name != "system");
    let tools = std::path::absolute(&options.tools).context("path of the tools")?;
    let python = Some(tools.join("python/bin/python")).filter(|path| path.exists());
    let ground = Ground {
        network: Some(Network::make(options.mtu, congestion)?),
        folder: folder.path().to_owned(),
        memory: memory.path().to_owned(),
        tools,
        python,
        unprivileged: options.unprivileged,
        stop: stop.clone(),
        ports: AtomicU16::new(0),
        left_out: Mutex::default(),
    };
    Ok((ground, [folder, memory]))
}

/// What the figures depend on beside the machine.
pub(super) fn describe(options: &Options) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    json!({
        "mtu": options.mtu,
        "peers_congestion_control": options.congestion,
        "allowed_congestion_control": read("/proc/sys/net/ipv4/tcp_allowed_congestion_control"),
        "available_congestion_control": read("/proc/sys/net/ipv4/tcp_available_congestion_control"),
        "unprivileged": options.unprivileged,
        "shmem_huge_pages": chosen(&read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        "hugetlb_pages": read("/proc/sys/vm/nr_hugepages"),
        "load_average": read("/proc/loadavg"),
        "redis": version("redis-server", "--version", &options.tools),
        "nginx": version("nginx", "-v", &options.tools),
        "ray": ray_version(&options.tools),
        "s3fs": version("s3s-fs", "--version", &options.tools),
        "versitygw": version("versitygw", "--version", &options.tools),
        "iperf3": version("iperf3", "--version", &options.tools),
    })
}

/// The word in brackets.
fn chosen(text: &str) -> String {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(text, |(word, _)| word).to_owned()
}

fn ray_version(tools: &FilePath) -> Option<String> {
    let ask = "from importlib.metadata import version; print(version('ray'))";
    let output = Command::new(tools.join("python/bin/python")).args(["-c", ask]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

fn version(name: &str, flag: &str, tools: &FilePath) -> Option<String> {
    let output = Command::new(super::servers::program(tools, name)?).arg(flag).output().ok()?;
    // nginx tells it on standard error.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}
