//! Cases that are no transfers: a queue-proxy at rest, what holding costs in memory, and a small POST and its answer.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::time::{Duration, Instant};

use super::launch::{self, Owned, pause};
use super::memory;
use super::queue_proxy::{QueueProxy, Settings};
use super::rows::Row;
use super::servers::{self, Place};
use super::systems::{Path, Pattern, State, System};
use super::world::Ground;
use crate::engine::Engine;

/// How long a queue-proxy's wake-ups are counted.
const REST: Duration = Duration::from_secs(10);
/// Until it has done what it does once after its start.
const SETTLE: Duration = Duration::from_secs(2);
/// Payloads alive at once when memory is measured.
const HELD: usize = 24;
const HELD_BYTES: usize = 8_000_000;
/// Within which everything falls once nothing is held.
const IDLE: Duration = Duration::from_secs(60);
const ROUND_TRIP_BYTES: u64 = 10_000;
const ROUND_TRIPS: usize = 200;
const ROUND_TRIP_ROUNDS: usize = 5;

fn guest(ground: &Ground, name: &str) -> anyhow::Result<QueueProxy> {
    QueueProxy::start(&Settings {
        net: None,
        folder: ground.place(name)?,
        ip: Ipv4Addr::LOCALHOST.into(),
        // Assigned by the kernel: these are in nobody's namespace.
        ports: 0,
        function: None,
        gateway: None,
        budget_bytes: 1 << 30,
        unprivileged: ground.unprivileged,
        host: None,
    })
}

/// A queue-proxy nobody asks anything of.
///
/// # Errors
/// If it does not start.
pub(super) fn rest(ground: &Ground) -> anyhow::Result<Option<Row>> {
    let proxy = guest(ground, "rest")?;
    let pid = proxy.process.id();
    ground.stop.wait(SETTLE)?;
    let before = memory::wake_ups(pid);
    ground.stop.wait(REST)?;
    let figures = BTreeMap::from([
        ("resident_bytes", memory::resident_bytes(pid) as f64),
        ("wake_ups_per_second", (memory::wake_ups(pid) - before) as f64 / REST.as_secs_f64()),
    ]);
    Ok(Row::of_figures("rest", System::Zipline, Path::SameHost, figures))
}

/// What a queue-proxy has touched for payloads it holds, and what it keeps a while after they went.
///
/// # Errors
/// If it refuses them.
pub(super) fn held(ground: &Ground, waits: bool) -> anyhow::Result<Option<Row>> {
    let proxy = guest(ground, "held")?;
    let pid = proxy.process.id();
    ground.stop.wait(SETTLE)?;
    let pages = || memory::touched_bytes(&[pid]) as f64;
    let rest = pages();
    let references = (0..HELD).map(|_| proxy.hold(HELD_BYTES)).collect::<anyhow::Result<Vec<_>>>()?;
    let alive = (HELD * HELD_BYTES) as f64;
    let with_warm = pages();
    let mut figures = BTreeMap::from([
        ("payload_bytes", alive),
        ("touched_bytes", with_warm - rest),
        ("touched_per_payload_byte", (with_warm - rest) / alive),
    ]);
    for reference in &references {
        proxy.free(reference)?;
    }
    figures.insert("touched_after_release_bytes", pages());
    if waits {
        let until = Instant::now() + IDLE;
        let limit = 64.0 * 1024.0 * 1024.0;
        let mut fallen_after = IDLE;
        while Instant::now() < until {
            ground.stop.check()?;
            if pages() <= limit {
                fallen_after = IDLE.saturating_sub(until.saturating_duration_since(Instant::now()));
                break;
            }
            pause(Duration::from_millis(500));
        }
        figures.insert("idle_touched_bytes", pages());
        figures.insert("idle_fallen_after_seconds", fallen_after.as_secs_f64());
    }
    Ok(Row::of_figures("memory", System::Zipline, Path::SameHost, figures))
}

/// POSTs of 10 KB and their answers, through a standalone engine and through nginx, by the same two programs.
///
/// # Errors
/// If one of them fails.
pub(super) fn round_trips(ground: &Ground, rounds_factor: f64) -> anyhow::Result<Vec<Row>> {
    let mut engine = Engine::start("on", 1 << 20, 64 << 20).context("standalone engine")?;
    let mut one = Nginx::start(ground, 1)?;
    let mut two = Nginx::start(ground, 2)?;
    let mut seconds: [Vec<f64>; 3] = Default::default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
    let runs = (ROUND_TRIPS as f64 * rounds_factor).max(10.0) as usize;
    for round in 0..=ROUND_TRIP_ROUNDS {
        ground.stop.check()?;
        let measured = [
            engine.post(ROUND_TRIP_BYTES, runs)?,
            one.source.post(ROUND_TRIP_BYTES, runs)?,
            two.source.post(ROUND_TRIP_BYTES, runs)?,
        ];
        // The first round warms up.
        if round > 0 {
            seconds.iter_mut().zip(measured).for_each(|(all, some)| all.extend(some));
        }
    }
    let shape = Pattern::OneToOne.shape(1);
    let systems = [System::ZiplineInvoke, System::Nginx, System::Nginx2];
    let rows = systems.into_iter().zip(&seconds).filter_map(|(system, seconds)| {
        Row::of_seconds("round-trip", system, Path::SameHost, shape, ROUND_TRIP_BYTES, State::Warm, seconds)
    });
    Ok(rows.collect())
}

/// The sending program before one nginx or two, and the receiving one behind.
struct Nginx {
    source: Source,
    _processes: Vec<Owned>,
}

impl Nginx {
    fn start(ground: &Ground, hops: u16) -> anyhow::Result<Self> {
        let ports = free_ports(usize::from(hops) + 1)?;
        let bench = std::env::current_exe().context("cannot find this binary")?;
        let at = |place: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[place]));
        let sink = launch::command(None, None, &bench)?
            .arg("sink")
            .env("PORT", ports[0].to_string())
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the function")?;
        let mut processes = vec![Owned(sink)];
        for hop in 1..=usize::from(hops) {
            let folder = ground.place("nginx")?;
            let place = Place { net: None, folder: &folder, tools: &ground.tools };
            processes.push(servers::nginx(place, at(hop), at(hop - 1))?);
        }
        let source = Source::start(at(usize::from(hops)))?;
        Ok(Self { source, _processes: processes })
    }
}

/// So many ports that nobody had a moment ago.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners = (0..count)
        .map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<Vec<_>, _>>()
        .context("no free port")?;
    listeners.iter().map(|listener| Ok(listener.local_addr().context("port")?.port())).collect()
}

struct Source {
    process: Owned,
    answers: BufReader<std::process::ChildStdout>,
}

impl Source {
    fn start(at: SocketAddr) -> anyhow::Result<Self> {
        let bench = std::env::current_exe().context("cannot find this binary")?;
        let mut child = launch::command(None, None, bench)?
            .arg("source")
            .env("ZIPLINE_API", format!("http://{at}"))
            .env("ZIPLINE_TOKEN", "none")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the sender")?;
        let answers = BufReader::new(child.stdout.take().context("standard output of the sender")?);
        Ok(Self { process: Owned(child), answers })
    }

    fn post(&mut self, bytes: u64, runs: usize) -> anyhow::Result<Vec<f64>> {
        let orders = self.process.0.stdin.as_mut().context("the sender has ended")?;
        writeln!(orders, "{bytes} {runs}").context("the sender has ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the sender has ended")?;
        ensure!(!line.is_empty(), "the sender has ended; what it said stands above");
        serde_json::from_str(&line).context("the sender's answer")
    }
}
