//! One system with all its processes: servers or queue-proxies, givers and takers. It does one run after another.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path as FilePath, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::launch::{self, Owned};
use super::net::{self, Host, Network};
use super::queue_proxy::{QueueProxy, Settings};
use super::role::{Assignment, Endpoint, Means, Order, Put, Said, Side};
use super::servers::{self, Place};
use super::stop::Stop;
use super::systems::{Path, Pattern, Shape, System};
use crate::processes;

/// What a role may take for one order.
const ANSWER_SECONDS: usize = 120;
/// Ports that the kernel gives nobody by itself; each namespace has its own.
const PORTS_FROM: u16 = 10_000;

/// What all worlds share.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) network: Option<Network>,
    pub(super) folder: PathBuf,
    /// A folder on tmpfs.
    pub(super) memory: PathBuf,
    pub(super) tools: PathBuf,
    pub(super) python: Option<PathBuf>,
    pub(super) unprivileged: bool,
    pub(super) stop: Stop,
    pub(super) ports: AtomicU16,
    /// What could not be measured, and why.
    pub(super) left_out: Mutex<BTreeMap<System, String>>,
}

impl Ground {
    /// So many ports that no other world has.
    fn ports(&self, count: u16) -> u16 {
        PORTS_FROM + self.ports.fetch_add(count, Ordering::Relaxed)
    }

    /// A new folder, beside nothing else.
    pub(super) fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(format!("{}-{name}", self.ports(1)));
        fs::create_dir(&folder).context("folder")?;
        Ok(folder)
    }

    fn python(&self) -> anyhow::Result<&FilePath> {
        self.python.as_deref().context("no Python of the benchmark: scripts/setup-bench.sh makes it")
    }

    fn net(&self, host: Host) -> Option<PathBuf> {
        self.network.as_ref().map(|network| network.file(host))
    }
}

/// One run's figures, in seconds where no other unit is named.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// From the first giver's having the bytes to the last taker's having them.
    pub(super) seconds: f64,
    /// The longest taking itself.
    pub(super) taking: f64,
    /// The longest first reading, afterwards.
    pub(super) first_read: f64,
    /// Until the last giver knew that its part was done.
    pub(super) giving: f64,
    /// Processor time of the roles in the timed part.
    pub(super) roles_cpu: f64,
    /// What the giver's host put on the cable.
    pub(super) sent_bytes: u64,
}

/// A system at work.
#[derive(Debug)]
pub(super) struct World {
    pub(super) system: System,
    shape: Shape,
    givers: Vec<Role>,
    takers: Vec<Role>,
    servers: Vec<Owned>,
    proxies: Vec<QueueProxy>,
    seed: u64,
}

impl World {
    /// Starts all its processes and connects them.
    ///
    /// # Errors
    /// If a program is missing or does not start.
    pub(super) fn start(ground: &Ground, system: System, path: Path, shape: Shape) -> anyhow::Result<Self> {
        ensure!(
            shape.pattern == Pattern::OneToOne || system.has_patterns(),
            "{} moves payloads 1-1 only",
            system.as_str()
        );
        ensure!(
            path == Path::SameHost || system.has_network(),
            "{} is measured on one host only",
            system.as_str()
        );
        let mut world = Self {
            system,
            shape,
            givers: Vec::new(),
            takers: Vec::new(),
            servers: Vec::new(),
            proxies: Vec::new(),
            seed: 0,
        };
        world.fill(ground, path).with_context(|| format!("{}, {}", system.as_str(), path.as_str()))?;
        Ok(world)
    }

    fn fill(&mut self, ground: &Ground, path: Path) -> anyhow::Result<()> {
        let far = match path {
            Path::Network => Host::B,
            Path::SameHost => Host::A,
        };
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let peer = |host| if path == Path::Network { net::peer_address(host) } else { loopback };
        let desk = ground.place("desk")?;
        let assignment =
            |side, index, means: &Means| Assignment { side, means: means.clone(), index, desk: desk.clone() };
        // A storage service is a host of its own: both its ways cross the cable.
        let stored =
            matches!(self.system, System::Redis | System::RedisPy | System::S3fs | System::Versitygw);
        let (giver_host, taker_host) = if stored { (Host::A, Host::A) } else { (Host::A, far) };
        let server_host = far;
        let folder = ground.place(self.system.as_str())?;
        let server_net = ground.net(server_host);
        let place = Place { net: server_net.as_deref(), folder: &folder, tools: &ground.tools };
        let shape = self.shape;
        let mut means = Vec::new();
        match self.system {
            System::Redis | System::RedisPy => {
                let at = SocketAddr::new(peer(server_host), ground.ports(1));
                let (server, socket) = servers::redis(place, at)?;
                self.servers.push(server);
                let at = if path == Path::SameHost { Endpoint::Unix(socket) } else { Endpoint::Tcp(at) };
                means.push(Means::Redis { at });
            }
            System::Ray => {
                let at = SocketAddr::new(peer(server_host), ground.ports(1));
                self.servers.push(servers::ray(place, ground.python()?, at)?);
                means.push(Means::Ray { at });
            }
            System::S3fs | System::Versitygw => {
                let at = SocketAddr::new(peer(server_host), ground.ports(1));
                let folder = ground.memory.join(format!("{}-{}", self.system.as_str(), at.port()));
                fs::create_dir(&folder).context("folder on tmpfs")?;
                let place = Place { folder: &folder, ..place };
                let start = if self.system == System::S3fs { servers::s3fs } else { servers::versitygw };
                self.servers.push(start(place, at)?);
                means.push(Means::S3 { at });
            }
            System::Bare => {
                means.push(Means::Bare { at: SocketAddr::new(peer(Host::A), ground.ports(1)) });
            }
            System::Nginx | System::Nginx2 => {
                let ports = ground.ports(3);
                let listen = SocketAddr::new(loopback, ports);
                let near = SocketAddr::new(peer(far), ports + 1);
                self.servers.push(servers::nginx(place, near, listen)?);
                let mut post = near;
                if self.system == System::Nginx2 {
                    post = SocketAddr::new(loopback, ports + 2);
                    let folder = ground.place("nginx-near")?;
                    let net = ground.net(Host::A);
                    let place = Place { net: net.as_deref(), folder: &folder, ..place };
                    self.servers.push(servers::nginx(place, post, near)?);
                }
                let head = "POST / HTTP/1.1\r\nHost: taker\r\n".to_owned();
                means.push(Means::Push { post, listen, head });
            }
            _ => self.zipline(ground, path, far, &folder, &mut means)?,
        }
        let of = |place: u32| means.get(place as usize).or(means.first()).context("no means");
        // Takers first: they are told by socket.
        for index in 0..shape.takers {
            let means = of(shape.givers + index)?;
            let net = ground.net(taker_host);
            self.takers.push(Role::start(
                ground,
                self.system,
                net.as_deref(),
                &assignment(Side::Taker, index, means),
            )?);
        }
        for index in 0..shape.givers {
            let net = ground.net(giver_host);
            self.givers.push(Role::start(
                ground,
                self.system,
                net.as_deref(),
                &assignment(Side::Giver, index, of(index)?),
            )?);
        }
        for role in self.takers.iter_mut().chain(&mut self.givers) {
            role.expect_done(&ground.stop).with_context(|| format!("a role of {}", self.system.as_str()))?;
        }
        Ok(())
    }

    /// A queue-proxy for each role, and what the role needs to use it.
    fn zipline(
        &mut self,
        ground: &Ground,
        path: Path,
        far: Host,
        folder: &FilePath,
        means: &mut Vec<Means>,
    ) -> anyhow::Result<()> {
        let host = folder.join("host");
        fs::create_dir(&host).context("folder of the host")?;
        let unprivileged = ground.unprivileged || self.system == System::ZiplineUnprivileged;
        let ip = |host| if path == Path::Network { net::address(host) } else { Ipv4Addr::LOCALHOST.into() };
        let settings = |host: Host, index: usize| Settings {
            net: ground.net(host),
            folder: folder.join(index.to_string()),
            ip: ip(host),
            ports: ground.ports(4),
            function: None,
            gateway: None,
            budget_bytes: 4 << 30,
            unprivileged,
            host: None,
        };
        if self.system == System::ZiplineInvoke {
            let function = ground.ports(1);
            let taker = QueueProxy::start(&Settings { function: Some(function), ..settings(far, 1) })?;
            let giver =
                QueueProxy::start(&Settings { gateway: Some(taker.inbound), ..settings(Host::A, 0) })?;
            means.push(Means::Push {
                post: giver.api,
                listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), function),
                head: format!(
                    "POST /v1/invoke/taker.default/ HTTP/1.1\r\nHost: localhost\r\nZipline-Token: {}\r\n",
                    giver.token
                ),
            });
            self.proxies.extend([giver, taker]);
            return Ok(());
        }
        let put = match self.system {
            System::ZiplinePut | System::ZiplinePythonPut => Put::Copied,
            System::ZiplinePreissued => Put::PreIssued,
            _ => Put::InPlace,
        };
        let (givers, all) = (self.shape.givers as usize, (self.shape.givers + self.shape.takers) as usize);
        for index in 0..all {
            let at = if index < givers { Host::A } else { far };
            let shared = (path == Path::SameHost).then_some(host.as_path());
            let proxy = QueueProxy::start(&Settings { host: shared, ..settings(at, index) })?;
            means.push(match self.system {
                System::ZiplineHttp => Means::Local { api: proxy.api, token: proxy.token.clone() },
                _ => Means::Zipline { socket: proxy.socket.clone(), token: proxy.token.clone(), put },
            });
            self.proxies.push(proxy);
        }
        Ok(())
    }

    /// One run: payloads are written, given, taken, verified and forgotten.
    ///
    /// # Errors
    /// If a role fails, or a payload arrives damaged.
    pub(super) fn run(&mut self, ground: &Ground, bytes: usize) -> anyhow::Result<Sample> {
        self.one_run(ground, bytes).with_context(|| format!("{}, {bytes} bytes", self.system.as_str()))
    }

    fn one_run(&mut self, ground: &Ground, bytes: usize) -> anyhow::Result<Sample> {
        self.seed += 1;
        let (seed, shape) = (self.seed, self.shape);
        let Self { givers, takers, .. } = self;
        for giver in &mut *givers {
            giver.tell(&Order::Write { seed, bytes, payloads: shape.payloads() })?;
        }
        for taker in &mut *takers {
            taker.tell(&Order::Take { seed, bytes, payloads: shape.taken() })?;
        }
        for giver in &mut *givers {
            giver.expect_done(&ground.stop)?;
        }
        for taker in &mut *takers {
            ensure!(matches!(taker.hear(&ground.stop)?, Said::Waiting), "a taker is not ready");
        }
        let sent =
            |ground: &Ground| ground.network.as_ref().map_or(Ok(0), |network| network.sent_bytes(Host::A));
        let before = sent(ground)?;
        for giver in &mut *givers {
            giver.tell(&Order::Give)?;
        }
        let mut sample = Sample::default();
        let (mut began, mut given, mut readable) = (u64::MAX, 0, 0);
        for giver in &mut *givers {
            let Said::Given { began_ns, ended_ns, cpu_ns } = giver.hear(&ground.stop)? else {
                bail!("a giver has not given");
            };
            began = began.min(began_ns);
            given = given.max(ended_ns);
            sample.roles_cpu += seconds(cpu_ns);
        }
        for taker in &mut *takers {
            let Said::Taken { readable_ns, taking_ns, first_read_ns, cpu_ns } = taker.hear(&ground.stop)?
            else {
                bail!("a taker has not taken");
            };
            readable = readable.max(readable_ns);
            sample.taking = sample.taking.max(seconds(taking_ns));
            sample.first_read = sample.first_read.max(seconds(first_read_ns));
            sample.roles_cpu += seconds(cpu_ns);
        }
        sample.seconds = seconds(readable.saturating_sub(began));
        sample.giving = seconds(given.saturating_sub(began));
        sample.sent_bytes = sent(ground)?.saturating_sub(before);
        self.all(ground, &Order::Forget)?;
        Ok(sample)
    }

    /// Lets all roles give memory back.
    ///
    /// # Errors
    /// If one has ended.
    pub(super) fn release(&mut self, ground: &Ground) -> anyhow::Result<()> {
        self.all(ground, &Order::Release)
    }

    fn all(&mut self, ground: &Ground, order: &Order) -> anyhow::Result<()> {
        // Takers first: what they let go of may be what givers wait for.
        for roles in [&mut self.takers, &mut self.givers] {
            for role in roles.iter_mut() {
                role.tell(order)?;
            }
            for role in roles.iter_mut() {
                role.expect_done(&ground.stop)?;
            }
        }
        Ok(())
    }

    /// Processor time so far of servers or queue-proxies.
    pub(super) fn servers_cpu(&self) -> f64 {
        processes::own_usage(&self.server_ids()).cpu_seconds
    }

    /// Bytes of memory that all its processes have touched and keep, memory files counted once.
    pub(super) fn touched_bytes(&self) -> u64 {
        let roles = self.givers.iter().chain(&self.takers).map(|role| role.process.id());
        super::memory::touched_bytes(&roles.chain(self.server_ids()).collect::<Vec<_>>())
    }

    /// Servers and queue-proxies with what they started.
    pub(super) fn server_ids(&self) -> Vec<u32> {
        let proxies = self.proxies.iter().map(|proxy| proxy.process.id());
        processes::tree(&self.servers.iter().map(Owned::id).chain(proxies).collect::<Vec<_>>())
    }

    pub(super) fn role_ids(&self) -> Vec<u32> {
        self.givers.iter().chain(&self.takers).map(|role| role.process.id()).collect()
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[derive(Debug)]
struct Role {
    process: Owned,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Role {
    fn start(
        ground: &Ground,
        system: System,
        net: Option<&FilePath>,
        assignment: &Assignment,
    ) -> anyhow::Result<Self> {
        let bench = std::env::current_exe().context("cannot find this binary")?;
        let mut command = if system.is_python() {
            let mut command = launch::command(net, None, ground.python()?)?;
            command.arg(ground.folder.join("role.py")).arg(system.as_str());
            command
        } else {
            let mut command = launch::command(net, None, bench)?;
            command.arg("role");
            command
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a role")?;
        let orders = child.stdin.take().context("standard input of a role")?;
        let said = BufReader::new(child.stdout.take().context("standard output of a role")?);
        let mut role = Self { process: Owned(child), orders, said };
        role.write(assignment)?;
        Ok(role)
    }

    fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        self.write(order)
    }

    fn write(&mut self, message: &impl serde::Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(message)? + "\n";
        self.orders.write_all(line.as_bytes()).context("a role has ended; what it said stands above")
    }

    fn hear(&mut self, stop: &Stop) -> anyhow::Result<Said> {
        let mut left = ANSWER_SECONDS;
        while self.said.buffer().is_empty() {
            stop.check()?;
            ensure!(left > 0, "a role has not answered within {ANSWER_SECONDS} s");
            let mut wait = [PollFd::new(self.said.get_ref(), PollFlags::IN)];
            match poll(&mut wait, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })) {
                Ok(0) | Err(rustix::io::Errno::INTR) => left -= 1,
                Ok(_) => break,
                Err(error) => return Err(error).context("poll"),
            }
        }
        let mut line = String::new();
        self.said.read_line(&mut line).context("a role has ended")?;
        ensure!(!line.is_empty(), "a role has ended; what it said stands above");
        serde_json::from_str(&line).with_context(|| format!("not understood: {line:?}"))
    }

    fn expect_done(&mut self, stop: &Stop) -> anyhow::Result<()> {
        ensure!(matches!(self.hear(stop)?, Said::Done), "a role did something else");
        Ok(())
    }
}
