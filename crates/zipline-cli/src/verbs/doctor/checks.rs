//! What `doctor` looks at, one function each.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use zipline_engine::control::Status;
use zipline_engine::{StateDir, StateError};
use zipline_runtime::limits;

use crate::control::Control;
use crate::environment::Environment;
use crate::findings::Finding;
use crate::place::Place;
use crate::programs;
use crate::quantity::{show_measured, show_size};
use crate::settings::{self, FileValues, Settings};

/// Fewer descriptors than this run out with some hundred requests at a time.
const OPEN_FILES_ENOUGH: u64 = 8192;
/// The oldest kernel on which the system calls in use are there (pidfd).
const KERNEL: (u32, u32) = (5, 3);
/// Congestion control that is fastest for short distances.
const CONGESTION_CONTROL: &str = "cubic";
/// Loopback answers at once or not at all.
const LOOPBACK_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn all(place: &Place, environment: &Environment) -> Vec<Finding> {
    let mut findings = vec![kernel(&read("/proc/sys/kernel/osrelease"))];
    findings.push(congestion_control(
        &read("/proc/sys/net/ipv4/tcp_available_congestion_control"),
        &read("/proc/sys/net/ipv4/tcp_allowed_congestion_control"),
        rustix::process::geteuid().is_root(),
    ));
    findings.push(open_files(limits::open_files().maximum));
    findings.push(loopback().await);
    findings.extend(binaries());
    let settings = read_settings(place, environment);
    let status = running(place, environment).await;
    findings.push(match &settings {
        Ok(_) => Finding::ok("settings", "every setting is understood"),
        Err(message) => {
            Finding::error("settings", message, "correct it; `zipline config show` lists every setting")
        }
    });
    findings.push(state_dir(&place.state_dir(environment).path));
    findings.push(engine(&status));
    if let Ok(settings) = &settings {
        if !matches!(status, Ok(Some(_))) {
            findings.push(gateway(settings.gateway).await);
        }
        findings.push(memory(
            &read("/proc/meminfo"),
            settings,
            status.as_ref().ok().and_then(Option::as_ref),
        ));
    }
    findings.push(users(rustix::process::geteuid().is_root()));
    findings
}

/// A file of the kernel; empty if it is not there.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let found = format!("Linux {release}");
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL => Finding::ok("kernel", found),
        _ => Finding::error("kernel", found, format!("use Linux {}.{} or newer", KERNEL.0, KERNEL.1)),
    }
}

fn congestion_control(available: &str, allowed: &str, root: bool) -> Finding {
    let check = "congestion control";
    let has = |list: &str| list.split_whitespace().any(|name| name == CONGESTION_CONTROL);
    if has(allowed) || (root && has(available)) {
        return Finding::ok(check, format!("{CONGESTION_CONTROL} can be set for data connections"));
    }
    let found = format!("{CONGESTION_CONTROL} cannot be set, data connections use the system's default");
    let todo = format!(
        "as root: sysctl net.ipv4.tcp_allowed_congestion_control=\"{allowed} {CONGESTION_CONTROL}\"; it matters most where the default is bbr"
    );
    Finding::warning(check, found, todo)
}

fn open_files(maximum: u64) -> Finding {
    let found = match maximum {
        u64::MAX => "as many as are asked for".to_owned(),
        limit => format!("up to {limit} per process"),
    };
    if maximum >= OPEN_FILES_ENOUGH {
        return Finding::ok("open files", found);
    }
    Finding::warning(
        "open files",
        found,
        format!("raise the hard limit to {OPEN_FILES_ENOUGH} or more (ulimit -Hn)"),
    )
}

async fn loopback() -> Finding {
    let attempt = async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        TcpStream::connect(listener.local_addr()?).await
    };
    let todo =
        "all of Zipline's processes talk over 127.0.0.1: bring the interface lo up (ip link set lo up)";
    match timeout(LOOPBACK_TIMEOUT, attempt).await {
        Ok(Ok(_)) => Finding::ok("loopback", "127.0.0.1 works"),
        Ok(Err(error)) => Finding::error("loopback", error.to_string(), todo),
        Err(_) => Finding::error("loopback", "127.0.0.1 does not answer", todo),
    }
}

fn binaries() -> Vec<Finding> {
    let check = |name, needed_for: &str, needed: bool| {
        let path = match programs::sibling(name) {
            Ok(path) => path,
            Err(failure) => return Finding::error("binaries", failure.to_string(), "install zipline again"),
        };
        if fs::metadata(&path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0) {
            return Finding::ok("binaries", path.display().to_string());
        }
        let found = format!("{} is not there, or cannot be run", path.display());
        let todo =
            format!("{needed_for} needs it: `cargo build --release -p {name}`, or install it beside zipline");
        if needed {
            Finding::error("binaries", found, todo)
        } else {
            Finding::warning("binaries", found, todo)
        }
    };
    vec![check("zipline-queue-proxy", "`zipline up`", true), check("zipline-bench", "`zipline bench`", false)]
}

fn read_settings(place: &Place, environment: &Environment) -> Result<Settings, String> {
    let file = FileValues::read(place.config(environment).as_deref()).map_err(|error| error.to_string())?;
    let resolved = settings::resolve(&[], environment, &file).map_err(|error| error.to_string())?;
    Settings::parse(&resolved).map_err(|error| error.to_string())
}

fn state_dir(path: &Path) -> Finding {
    match StateDir::existing(path) {
        Ok(dir) => Finding::ok("state directory", dir.path().display().to_string()),
        Err(StateError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok("state directory", format!("{} will be made by `zipline up`", path.display()))
        }
        Err(error) => Finding::error(
            "state directory",
            error.to_string(),
            "remove it, or choose another with --state-dir",
        ),
    }
}

async fn running(place: &Place, environment: &Environment) -> Result<Option<Status>, String> {
    match Control::find(place, environment).await {
        Ok(Some(mut control)) => {
            control.get("/v1/status").await.map(Some).map_err(|failure| failure.to_string())
        }
        Ok(None) => Ok(None),
        Err(failure) => Err(failure.to_string()),
    }
}

fn engine(status: &Result<Option<Status>, String>) -> Finding {
    let status = match status {
        Ok(Some(status)) => status,
        Ok(None) => return Finding::ok("engine", "none runs; start one with `zipline up FILE`"),
        Err(error) => {
            return Finding::error(
                "engine",
                error,
                "look at the output of `zipline up`, or end it: `zipline down`",
            );
        }
    };
    let failing: Vec<_> = status.functions.iter().filter(|function| function.failures > 0).collect();
    let found = format!("runs as process {} with gateway {}", status.engine.pid, status.engine.gateway);
    if failing.is_empty() {
        return Finding::ok("engine", found);
    }
    let names: Vec<_> =
        failing.iter().map(|function| format!("{}.{}", function.service, function.namespace)).collect();
    let todo = format!("look at `zipline status` and `zipline logs {}`", names[0]);
    Finding::warning("engine", format!("{found}; instances have failed of {}", names.join(", ")), todo)
}

async fn gateway(address: SocketAddr) -> Finding {
    match TcpListener::bind(address).await {
        Ok(_) => Finding::ok("gateway", format!("{address} is free")),
        Err(error) => {
            let todo =
                format!("choose another with --gateway {}:PORT, or end what listens there", address.ip());
            Finding::error("gateway", format!("cannot listen on {address}: {error}"), todo)
        }
    }
}

/// Budgets are what may be used, not what is used; instances beyond the memory would still fail at a bad time.
fn memory(meminfo: &str, settings: &Settings, status: Option<&Status>) -> Finding {
    let available = meminfo.lines().find_map(|line| {
        let kibibytes = line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?;
        kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let Some(available) = available else {
        return Finding::warning("memory", "the kernel does not say how much is free", "mount /proc");
    };
    let of_instances = status.map(|status| {
        let each = status.functions.iter().map(|function| {
            let instances = function.instances.len() as u64;
            let in_flight = settings.in_flight_bytes(function.budget_bytes);
            instances.saturating_mul(function.budget_bytes.saturating_add(in_flight))
        });
        (status.functions.iter().map(|function| function.instances.len()).sum::<usize>(), each.sum::<u64>())
    });
    let (instances, needed) = match of_instances {
        Some((instances, needed)) if instances > 0 => (instances, needed),
        _ => (1, settings.budget_bytes.saturating_add(settings.in_flight_bytes(settings.budget_bytes))),
    };
    let found = format!(
        "{} are free; {instances} instance(s) may use up to {} for payloads",
        show_measured(available),
        show_size(needed)
    );
    if needed <= available {
        return Finding::ok("memory", found);
    }
    Finding::warning("memory", found, "lower --budget or --in-flight, or the number of instances")
}

fn users(root: bool) -> Finding {
    let found = if root {
        "running as root: `up` can give each instance a user of its own"
    } else {
        "not root: all functions of an engine are one trust domain (fine if they are all yours)"
    };
    Finding::ok("users", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Level;

    fn settings(budget: &str) -> Settings {
        let flags = [("budget", budget.to_owned())];
        let resolved = settings::resolve(&flags, &Environment::default(), &FileValues::default()).unwrap();
        Settings::parse(&resolved).unwrap()
    }

    #[test]
    fn kernels() {
        assert_eq!(kernel("6.18.5-fc").level, Level::Ok);
        assert_eq!(kernel("5.3.0").level, Level::Ok);
        for old in ["5.2.0", "4.19.1-amd64", ""] {
            assert_eq!(kernel(old).level, Level::Error, "{old}");
        }
    }

    #[test]
    fn congestion_control_depends_on_who_asks() {
        assert_eq!(congestion_control("reno bbr cubic", "reno bbr", true).level, Level::Ok);
        let finding = congestion_control("reno bbr cubic", "reno bbr", false);
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.todo.unwrap().contains("\"reno bbr cubic\""));
        assert_eq!(congestion_control("reno", "reno cubic", false).level, Level::Ok);
    }

    #[test]
    fn limits_and_memory_against_what_is_wanted() {
        assert_eq!(open_files(1024).level, Level::Warning);
        assert_eq!(open_files(u64::MAX), Finding::ok("open files", "as many as are asked for"));
        let meminfo = "MemTotal:       99 kB\nMemAvailable:    1048576 kB\n";
        assert_eq!(memory(meminfo, &settings("256MiB"), None).level, Level::Ok);
        let finding = memory(meminfo, &settings("1GiB"), None);
        assert_eq!(finding.level, Level::Warning);
        assert_eq!(finding.found, "1.0 GiB are free; 1 instance(s) may use up to 2GiB for payloads");
        assert_eq!(memory("", &settings("1GiB"), None).level, Level::Warning);
    }

    #[test]
    fn a_state_directory_that_others_can_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(state_dir(folder.path()).level, Level::Error);
        assert_eq!(state_dir(&folder.path().join("none")).level, Level::Ok);
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let finding = gateway(taken.local_addr().unwrap()).await;
        assert_eq!(finding.level, Level::Error);
        assert!(finding.found.contains(&taken.local_addr().unwrap().to_string()));
    }
}
