//! How each measured system is started before the upstream at [`UPSTREAM_PORT`]; each lives in a network namespace of its
//! own, so ports are the ones that Knative fixes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::wire::Protocol;

/// The function's port.
pub(super) const UPSTREAM_PORT: u16 = 8080;

/// A system under measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    /// The upstream itself.
    Direct,
    /// Our queue-proxy.
    Zipline,
    /// Knative's queue-proxy.
    Knative,
    /// Debian's nginx.
    Nginx,
}

impl System {
    pub(super) const ALL: [Self; 4] = [Self::Direct, Self::Zipline, Self::Knative, Self::Nginx];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Zipline => "zipline",
            Self::Knative => "knative",
            Self::Nginx => "nginx",
        }
    }

    /// Where requests go.
    pub(super) fn address(self, protocol: Protocol) -> SocketAddr {
        let port = match (self, protocol) {
            (Self::Direct, _) => UPSTREAM_PORT,
            (_, Protocol::Http1) => 8012,
            (_, Protocol::H2c) => 8013,
        };
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// The command that starts it; `None` for the upstream itself. It writes nothing and reads nothing.
    ///
    /// # Errors
    /// If its binary is missing.
    pub(super) fn command(
        self,
        protocol: Protocol,
        knative: &Path,
        folder: &Path,
    ) -> anyhow::Result<Option<Command>> {
        let port = self.address(protocol).port();
        let mut command = match self {
            Self::Direct => return Ok(None),
            Self::Zipline => {
                let bench = std::env::current_exe().context("cannot find this binary")?;
                queue_proxy(&bench.with_file_name("zipline-queue-proxy"), port, "cargo build --release")?
            }
            Self::Knative => queue_proxy(knative, port, "make bench-proxy, which builds it")?,
            Self::Nginx => nginx(port, protocol, folder)?,
        };
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        let log = fs::File::create(folder.join("log")).context("cannot write the log")?;
        command.stderr(log);
        Ok(Some(command))
    }
}

/// Both queue-proxies get the environment that Knative gives one (knative/serving: `pkg/reconciler/revision/resources/queue.go`).
fn queue_proxy(binary: &Path, port: u16, way: &str) -> anyhow::Result<Command> {
    ensure!(binary.exists(), "{} is missing: {way}", binary.display());
    let binary = fs::canonicalize(binary).with_context(|| format!("{}", binary.display()))?;
    let mut command = Command::new(binary);
    command.env_clear().envs([
        ("CONTAINER_CONCURRENCY", "0"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_READINESS_PROBE", r#"{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}"#),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_SERVICE", "bench"),
        ("SERVING_CONFIGURATION", "bench"),
        ("SERVING_REVISION", "bench-00001"),
        ("SERVING_POD", "bench-00001-deployment"),
        ("SERVING_POD_IP", "127.0.0.1"),
        (
            "OBSERVABILITY_CONFIG",
            r#"{"tracing":{},"metrics":{},"runtime":{},"requestMetrics":{"protocol":"prometheus"}}"#,
        ),
    ]);
    command.env("USER_PORT", UPSTREAM_PORT.to_string()).env("QUEUE_SERVING_PORT", port.to_string());
    Ok(command)
}

fn nginx(port: u16, protocol: Protocol, folder: &Path) -> anyhow::Result<Command> {
    let binary = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .context("nginx is missing: make bench-proxy installs it")?;
    let http2 = if protocol == Protocol::H2c { " http2" } else { "" };
    // One worker: on two cores that generator and upstream share, a second one makes it slower. Nothing is written to disk.
    let settings = format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; keepalive_requests 1000000000; client_max_body_size 0; client_body_temp_path body;
            proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            upstream function {{ server 127.0.0.1:{UPSTREAM_PORT}; keepalive 512; keepalive_requests 1000000000; }}
            server {{
                listen 127.0.0.1:{port}{http2};
                location / {{
                    proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection \"\";
                    proxy_set_header Host $http_host; proxy_request_buffering off;
                }}
            }}
        }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, settings).context("cannot write nginx's settings")?;
    let mut command = Command::new(binary);
    command.arg("-p").arg(folder).arg("-c").arg(file).arg("-e").arg("stderr");
    Ok(command)
}
