//! Zipline's queue-proxies, started as an engine would start them, but with their keys in a file.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use tokio::time::{Duration, Instant};

use super::launch::{self, Owned, pause};

/// A user without privilege and without anything that is its own.
pub(super) const NOBODY: u32 = 65_534;
const READY_WITHIN: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(2);
/// The key of every queue-proxy here; nothing that is secret passes.
const KEYRING: &str = r#"{"tenant":"default","keys":[{"serial":1,"secret":"YmVuY2hiZW5jaGJlbmNoYmVuY2hiZW5jaGJlbmNoYmU"}],"seal_with":1}"#;

/// How to start one.
#[derive(Debug, Clone)]
pub(super) struct Settings<'a> {
    /// The network namespace; none is this process's own.
    pub(super) net: Option<PathBuf>,
    /// An empty folder of its own.
    pub(super) folder: PathBuf,
    /// Where the data port listens.
    pub(super) ip: IpAddr,
    /// First of four ports.
    pub(super) ports: u16,
    /// The function's port; none is a guest.
    pub(super) function: Option<u16>,
    /// Where every function is reached.
    pub(super) gateway: Option<SocketAddr>,
    pub(super) budget_bytes: u64,
    /// Runs without privilege.
    pub(super) unprivileged: bool,
    /// Where queue-proxies of one host find each other.
    pub(super) host: Option<&'a Path>,
}

/// A running one.
#[derive(Debug)]
pub(super) struct QueueProxy {
    pub(super) process: Owned,
    pub(super) socket: PathBuf,
    pub(super) token: String,
    pub(super) api: SocketAddr,
    pub(super) inbound: SocketAddr,
}

impl QueueProxy {
    /// Starts one and waits until its socket answers.
    ///
    /// # Errors
    /// With its log, if it ends before.
    pub(super) fn start(settings: &Settings<'_>) -> anyhow::Result<Self> {
        let bench = std::env::current_exe().context("cannot find this binary")?;
        let binary = bench.with_file_name("zipline-queue-proxy");
        ensure!(
            binary.exists(),
            "{} is missing: build all binaries with cargo build --release",
            binary.display()
        );
        let folder = &settings.folder;
        fs::create_dir_all(folder).context("folder of a queue-proxy")?;
        let keyring = folder.join("keyring.json");
        fs::write(&keyring, KEYRING).context("cannot write the keyring")?;
        let uid = settings.unprivileged.then_some(NOBODY);
        if let Some(uid) = uid {
            for path in [folder, &keyring] {
                std::os::unix::fs::chown(path, Some(uid), Some(uid))
                    .context("cannot give the folder away")?;
            }
        } else {
            fs::set_permissions(&keyring, fs::Permissions::from_mode(0o600)).context("permissions")?;
        }
        let socket = folder.join("api.sock");
        let token = "token-of-the-benchmark".to_owned();
        let port = |place: u16| settings.ports + place;
        let log = folder.join("log");
        let file = fs::File::create(&log).context("cannot write the log")?;
        let mut command = launch::command(settings.net.as_deref(), uid, &binary)?;
        command
            .env_clear()
            .env("SERVING_NAMESPACE", "default")
            .env("ZIPLINE_KEYRING_FILE", &keyring)
            .env("ZIPLINE_SOCKET", &socket)
            .env("ZIPLINE_TOKEN", &token)
            .env("ZIPLINE_LISTEN_IP", settings.ip.to_string())
            .env("ZIPLINE_BUDGET_BYTES", settings.budget_bytes.to_string())
            .env("ZIPLINE_INFLIGHT_BYTES", settings.budget_bytes.to_string())
            .env("ZIPLINE_LOG", "warn");
        for (place, name) in (0_u16..).zip(["INBOUND", "API", "DATA", "ADMIN"]) {
            command.env(format!("ZIPLINE_{name}_PORT"), port(place).to_string());
        }
        if let Some(gateway) = settings.gateway {
            command.env("ZIPLINE_GATEWAY", gateway.to_string());
        }
        if let Some(folder) = settings.host {
            command.env("ZIPLINE_HOST_DIR", folder);
        }
        match settings.function {
            Some(function) => {
                let probe = format!(
                    r#"{{"tcpSocket":{{"port":{function},"host":"127.0.0.1"}},"successThreshold":1}}"#
                );
                command
                    .env("USER_PORT", function.to_string())
                    .env("SERVING_SERVICE", "taker")
                    .env("SERVING_READINESS_PROBE", probe);
            }
            None => {
                command.env("ZIPLINE_GUEST", "1");
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut process = Owned(command.spawn().context("cannot start the queue-proxy")?);
        let mut retried = settings.host.is_none();
        let until = Instant::now() + READY_WITHIN;
        while UnixStream::connect(&socket).is_err() {
            let ended = process.0.try_wait().context("the queue-proxy")?.is_some();
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if ended && !retried && said().contains("ZIPLINE_HOST_DIR: no such setting") {
                // One from before there was a same-host path; measured as it is.
                retried = true;
                command.env_remove("ZIPLINE_HOST_DIR");
                process = Owned(command.spawn().context("cannot start the queue-proxy")?);
                continue;
            }
            if ended || Instant::now() > until {
                bail!("the queue-proxy does not answer; it says:\n{}", said());
            }
            pause(ASK_EVERY);
        }
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        Ok(Self {
            process,
            socket,
            token,
            api: SocketAddr::new(loopback, port(1)),
            inbound: SocketAddr::new(settings.ip, port(0)),
        })
    }

    /// Holds `bytes` under a reference that nobody uses; for what memory is measured with.
    ///
    /// # Errors
    /// If it is refused.
    pub(super) fn hold(&self, bytes: usize) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(&self.socket).context("socket of the queue-proxy")?;
        write!(
            stream,
            "POST /v1/payloads?ttl=10m HTTP/1.1\r\nHost: localhost\r\nZipline-Token: {}\r\nConnection: close\r\n\
             Content-Length: {bytes}\r\n\r\n",
            self.token
        )?;
        let piece = vec![7; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(piece.len());
            stream.write_all(&piece[..now]).context("put")?;
            left -= now;
        }
        let text = answer(&mut stream)?;
        ensure!(text.starts_with("HTTP/1.1 201"), "a put was refused: {text}");
        crate::proxy::field(&text, "zipline-reference").map(str::to_owned).context("no reference")
    }

    /// Lets go of it.
    ///
    /// # Errors
    /// If it is refused.
    pub(super) fn free(&self, reference: &str) -> anyhow::Result<()> {
        let mut stream = UnixStream::connect(&self.socket).context("socket of the queue-proxy")?;
        write!(
            stream,
            "DELETE /v1/payload HTTP/1.1\r\nHost: localhost\r\nZipline-Token: {}\r\nZipline-Reference: {reference}\r\n\
             Connection: close\r\n\r\n",
            self.token
        )?;
        let text = answer(&mut stream)?;
        ensure!(text.starts_with("HTTP/1.1 204"), "a release was refused: {text}");
        Ok(())
    }
}

fn answer(stream: &mut UnixStream) -> anyhow::Result<String> {
    let mut text = String::new();
    stream.take(64 * 1024).read_to_string(&mut text).context("no answer of the queue-proxy")?;
    Ok(text)
}
