//! The peers' servers, each alone with a folder of its own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use tokio::time::{Duration, Instant};

use super::launch::{self, Owned, pause};
use super::role;

const READY_WITHIN: Duration = Duration::from_secs(20);
/// Room for some of the largest payloads.
const RAY_STORE_BYTES: u64 = 4 << 30;
const ASK_EVERY: Duration = Duration::from_millis(2);

/// Where a program is: in a folder of the benchmark's own, or where the system has it.
pub(super) fn program(tools: &Path, name: &str) -> Option<PathBuf> {
    let system = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let folders = [tools.join("bin")].into_iter().chain(system);
    folders.map(|folder| folder.join(name)).find(|path| path.exists())
}

/// How a server is started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The network namespace; none is this process's own.
    pub(super) net: Option<&'a Path>,
    /// An empty folder of its own.
    pub(super) folder: &'a Path,
    /// Where the benchmark's own programs are.
    pub(super) tools: &'a Path,
}

impl Place<'_> {
    fn command(&self, name: &str) -> anyhow::Result<Command> {
        let program = program(self.tools, name)
            .with_context(|| format!("{name} is missing: scripts/setup-bench.sh installs it"))?;
        launch::command(self.net, None, program)
    }

    /// Starts it with its log in the folder.
    fn start(&self, mut command: Command) -> anyhow::Result<Owned> {
        let log = fs::File::create(self.folder.join("log")).context("cannot write the log")?;
        let errors = log.try_clone().context("log")?;
        command.current_dir(self.folder).stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(Owned(command.spawn().context("cannot start it")?))
    }

    /// Waits until `ask` is answered.
    fn wait(&self, server: &mut Owned, mut ask: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        while let Err(error) = ask() {
            let ended = server.0.try_wait().context("the server")?;
            if ended.is_some() || Instant::now() > until {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("it does not answer ({error:#}); it says:\n{log}");
            }
            pause(ASK_EVERY);
        }
        Ok(())
    }
}

/// Redis without persistence; a Unix socket in its folder as well.
pub(super) fn redis(place: Place<'_>, at: SocketAddr) -> anyhow::Result<(Owned, PathBuf)> {
    let socket = place.folder.join("redis.sock");
    let mut command = place.command("redis-server")?;
    command
        .args(["--bind", &at.ip().to_string(), "--port", &at.port().to_string(), "--protected-mode", "no"])
        .args(["--save", "", "--appendonly", "no", "--proto-max-bulk-len", "4gb"])
        .args(["--client-query-buffer-limit", "4gb", "--client-output-buffer-limit", "normal 0 0 0"])
        .arg("--unixsocket")
        .arg(&socket);
    let mut server = place.start(command)?;
    place.wait(&mut server, || UnixStream::connect(&socket).map(drop).context("no socket"))?;
    Ok((server, socket))
}

/// s3s-fs over a folder on tmpfs.
pub(super) fn s3fs(place: Place<'_>, at: SocketAddr) -> anyhow::Result<Owned> {
    let root = root(place.folder)?;
    let mut command = place.command("s3s-fs")?;
    command
        .args(["--host", &at.ip().to_string(), "--port", &at.port().to_string()])
        .args(["--access-key", role::ACCESS, "--secret-key", role::SECRET])
        .arg(root)
        .env("RUST_LOG", "error");
    let mut server = place.start(command)?;
    reach(place, &mut server, at, true)?;
    Ok(server)
}

/// versitygw over a folder on tmpfs.
pub(super) fn versitygw(place: Place<'_>, at: SocketAddr) -> anyhow::Result<Owned> {
    let root = root(place.folder)?;
    let mut command = place.command("versitygw")?;
    command
        .args(["--access", role::ACCESS, "--secret", role::SECRET, "--port", &at.to_string(), "--quiet"])
        .args(["posix", "--sidecar"])
        .arg(root.with_file_name("metadata"))
        .arg(&root);
    fs::create_dir(root.with_file_name("metadata")).context("folder of metadata")?;
    let mut server = place.start(command)?;
    reach(place, &mut server, at, true)?;
    Ok(server)
}

/// A Ray cluster of one node without dashboard and without reports to its makers. It is many processes, which end with the
/// first one of a namespace of theirs.
pub(super) fn ray(place: Place<'_>, python: &Path, at: SocketAddr) -> anyhow::Result<Owned> {
    let ray = python.with_file_name("ray");
    ensure!(ray.exists(), "ray is missing: scripts/setup-bench.sh installs it");
    // Its sockets lie below, and a socket's path must be short.
    let sessions = place.folder.join("r");
    let mut command = place.command("unshare")?;
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(ray)
        .args(["start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false"])
        .args(["--node-ip-address", &at.ip().to_string(), "--port", &at.port().to_string()])
        // Of its own choice they may be ports of others here.
        .args(["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=1"])
        .args(["--object-store-memory", &RAY_STORE_BYTES.to_string()])
        .arg("--temp-dir")
        .arg(&sessions);
    let mut server = place.start(command)?;
    let socket = sessions.join("session_latest/sockets/raylet");
    place.wait(&mut server, || UnixStream::connect(&socket).map(drop).context("no socket"))?;
    Ok(server)
}

/// Whether a server answers, asked from where it is.
#[derive(Debug, Args)]
pub(crate) struct ReachOptions {
    #[arg(long)]
    at: SocketAddr,
    /// It speaks S3, and the bucket is to be made.
    #[arg(long)]
    bucket: bool,
}

/// Asks once.
///
/// # Errors
/// If it does not answer.
pub(crate) fn run_reach(options: &ReachOptions) -> anyhow::Result<()> {
    if options.bucket {
        return role::make_bucket(options.at);
    }
    TcpStream::connect(options.at).map(drop).context("nobody listens")
}

fn reach(place: Place<'_>, server: &mut Owned, at: SocketAddr, bucket: bool) -> anyhow::Result<()> {
    place.wait(server, || {
        let bench = std::env::current_exe().context("cannot find this binary")?;
        let mut command = launch::command(place.net, None, bench)?;
        command.args(["reach", "--at", &at.to_string()]).args(bucket.then_some("--bucket"));
        let output = command.output().context("reach")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    })
}

fn root(folder: &Path) -> anyhow::Result<PathBuf> {
    let root = folder.join("root");
    fs::create_dir(&root).context("folder of objects")?;
    Ok(root)
}

/// nginx that passes everything on; one process.
pub(super) fn nginx(place: Place<'_>, listen: SocketAddr, upstream: SocketAddr) -> anyhow::Result<Owned> {
    let settings = format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr error;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; keepalive_requests 1000000000; client_max_body_size 0; client_body_temp_path body;
            keepalive_timeout 3600; tcp_nodelay on;
            proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            upstream function {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; keepalive_timeout 3600; }}
            server {{
                listen {listen};
                location / {{
                    proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection \"\";
                    proxy_set_header Host $http_host; proxy_request_buffering off; proxy_buffering off;
                    client_body_buffer_size 256k; proxy_read_timeout 600;
                }}
            }}
        }}\n"
    );
    let file = place.folder.join("nginx.conf");
    fs::write(&file, settings).context("cannot write nginx's settings")?;
    let mut command = place.command("nginx")?;
    command.arg("-p").arg(place.folder).arg("-c").arg(file).arg("-e").arg("stderr");
    let mut server = place.start(command)?;
    reach(place, &mut server, listen, false)?;
    Ok(server)
}
