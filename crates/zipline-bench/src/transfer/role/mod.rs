//! One function of a transfer: a process that gives payloads, or one that takes them, by the means of one system.
//!
//! It says one line when it is connected and then does what each line on standard input says ([`Order`]), answering each with one
//! ([`Said`]). What a giver hands over travels straight to the takers, as one datagram per payload on a Unix socket, which
//! network namespaces do not keep apart: no third process stands between the two. Both read the same clock.

mod bare;
mod content;
mod http;
mod local;
mod push;
mod redis;
mod rooms;
mod s3;
mod sigv4;
mod ticket;
mod zipline;

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use content::Content;
pub(super) use s3::make_bucket;
pub(super) use sigv4::{ACCESS, SECRET};
use ticket::{Desk, Ticket};

/// What a role is; the first line it reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Assignment {
    pub(super) side: Side,
    pub(super) means: Means,
    /// Which giver or taker.
    pub(super) index: u32,
    /// Where takers hear of payloads: `<folder>/<index>.sock`.
    pub(super) desk: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Side {
    Giver,
    Taker,
}

/// By what means payloads move.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Means {
    /// The SDK over its queue-proxy's socket.
    Zipline { socket: PathBuf, token: String, put: Put },
    /// The queue-proxy's local HTTP API.
    Local { api: SocketAddr, token: String },
    /// A plain Redis server.
    Redis { at: Endpoint },
    /// A Ray cluster of one node.
    Ray { at: SocketAddr },
    /// An S3 server with one bucket.
    S3 { at: SocketAddr },
    /// The giver's own data sockets: two connections, `sendfile`.
    Bare { at: SocketAddr },
    /// HTTP POST to `post`, arriving at the taker's `listen`.
    Push { post: SocketAddr, listen: SocketAddr, head: String },
}

/// How the giver's bytes become a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Put {
    /// Written in the payload's own memory.
    InPlace,
    /// Copied in by `put`.
    Copied,
    /// Copied in by `put`, its reference issued before.
    PreIssued,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What a role is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// Giver: write these payloads anew.
    Write { seed: u64, bytes: usize, payloads: Vec<Addressees> },
    /// Giver: give what was written.
    Give,
    /// Taker: take so many payloads, as they are told.
    Take { seed: u64, bytes: usize, payloads: usize },
    /// Let go of the payloads of the last run, and of what they leave behind.
    Forget,
    /// Give memory back.
    Release,
}

/// The takers of one payload.
pub(super) type Addressees = Vec<u32>;

/// What a role answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// Connected; or written, forgotten, released.
    Done,
    /// Taker: ready to be told.
    Waiting,
    /// Giver: given.
    Given { began_ns: u64, ended_ns: u64, cpu_ns: u64 },
    /// Taker: all payloads can be read, and their content was right.
    Taken {
        readable_ns: u64,
        /// Time within the taking itself, without waiting to be told.
        taking_ns: u64,
        /// The first reading of all bytes, after they could be read.
        first_read_ns: u64,
        cpu_ns: u64,
    },
}

/// The giving end of a system.
trait Giver {
    /// Makes room for `payloads` of `bytes` each and lets `write` fill them. Not timed.
    fn write(
        &mut self,
        payloads: usize,
        bytes: usize,
        write: &mut dyn FnMut(usize, &mut [u8]),
    ) -> anyhow::Result<()>;

    /// Gives one payload to so many takers; what they need to take it, unless it comes by itself.
    fn give(&mut self, payload: usize, takers: usize) -> anyhow::Result<Option<String>>;

    /// Removes what the last run left behind. Not timed.
    fn forget(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Gives memory back.
    fn release(&mut self) {}
}

/// The taking end of a system.
trait Taker {
    /// Makes room for `payloads` of `bytes` each. Not timed.
    fn make_ready(&mut self, payloads: usize, bytes: usize) -> anyhow::Result<()>;

    /// Takes payloads; on return every byte of them can be read. Those of earlier calls of the same run stay.
    fn take(&mut self, tickets: &[Ticket]) -> anyhow::Result<()>;

    /// The parts of the payload that was taken as the `nth` of this run.
    fn read(&self, nth: usize) -> Vec<&[u8]>;

    /// Lets go of what was taken. Not timed.
    fn forget(&mut self) {}

    /// Gives memory back.
    fn release(&mut self);

    /// Whether payloads come by themselves, without being told of.
    fn is_pushed(&self) -> bool {
        false
    }
}

/// Plays the role that the first line assigns, until standard input ends.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("standard input")?;
    let assignment: Assignment = serde_json::from_str(&line).context("the assignment")?;
    match assignment.side {
        Side::Giver => give(&assignment),
        Side::Taker => take(&assignment),
    }
}

fn give(assignment: &Assignment) -> anyhow::Result<()> {
    let mut giver: Box<dyn Giver> = match &assignment.means {
        Means::Zipline { socket, token, put } => Box::new(zipline::Giver::open(socket, token, *put)?),
        Means::Local { api, token } => Box::new(local::Giver::open(*api, token)?),
        Means::Redis { at } => Box::new(redis::Giver::open(at, assignment.index)?),
        Means::Ray { .. } => bail!("Ray's roles are Python programs"),
        Means::S3 { at } => Box::new(s3::Giver::open(*at, assignment.index)?),
        Means::Bare { at } => Box::new(bare::Giver::open(*at)?),
        Means::Push { post, head, .. } => Box::new(push::Giver::new(*post, head)),
    };
    let desk = Desk::of_giver(&assignment.desk)?;
    say(&Said::Done)?;
    let mut addressees: Vec<Addressees> = Vec::new();
    for order in orders() {
        match order? {
            Order::Write { seed, bytes, payloads } => {
                giver.write(payloads.len(), bytes, &mut |payload, memory| {
                    Content::new(seed, assignment.index, payload).write(memory);
                })?;
                addressees = payloads;
                say(&Said::Done)?;
            }
            Order::Give => {
                let cpu = cpu_ns();
                let began_ns = now_ns();
                for (payload, takers) in addressees.iter().enumerate() {
                    let Some(text) = giver.give(payload, takers.len())? else { continue };
                    for taker in takers {
                        desk.tell(*taker, &Ticket { giver: assignment.index, payload, text: text.clone() })?;
                    }
                }
                say(&Said::Given { began_ns, ended_ns: now_ns(), cpu_ns: cpu_ns() - cpu })?;
            }
            Order::Forget => {
                giver.forget()?;
                say(&Said::Done)?;
            }
            Order::Release => {
                giver.release();
                say(&Said::Done)?;
            }
            Order::Take { .. } => bail!("a giver takes nothing"),
        }
    }
    Ok(())
}

fn take(assignment: &Assignment) -> anyhow::Result<()> {
    let desk = Desk::of_taker(&assignment.desk, assignment.index)?;
    let mut taker: Box<dyn Taker> = match &assignment.means {
        Means::Zipline { socket, token, .. } => Box::new(zipline::Taker::open(socket, token)?),
        Means::Local { api, token } => Box::new(local::Taker::open(*api, token)?),
        Means::Redis { at } => Box::new(redis::Taker::open(at)?),
        Means::Ray { .. } => bail!("Ray's roles are Python programs"),
        Means::S3 { at } => Box::new(s3::Taker::open(*at)?),
        Means::Bare { at } => Box::new(bare::Taker::open(*at)?),
        Means::Push { listen, .. } => Box::new(push::Taker::open(*listen)?),
    };
    say(&Said::Done)?;
    for order in orders() {
        match order? {
            Order::Take { seed, bytes, payloads } => {
                taker.make_ready(payloads, bytes)?;
                say(&Said::Waiting)?;
                let cpu = cpu_ns();
                let mut taking_ns = 0;
                let mut taken: Vec<Ticket> = Vec::with_capacity(payloads);
                let mut readable_ns = 0;
                while taken.len() < payloads {
                    let tickets = match taker.is_pushed() {
                        true => vec![Ticket { giver: 0, payload: taken.len(), text: String::new() }],
                        false => desk.hear(payloads - taken.len())?,
                    };
                    let began = now_ns();
                    taker.take(&tickets)?;
                    readable_ns = now_ns();
                    // Of what comes by itself, most of this would be waiting.
                    taking_ns += if taker.is_pushed() { 0 } else { readable_ns - began };
                    taken.extend(tickets);
                }
                let cpu_ns = cpu_ns() - cpu;
                let first = now_ns();
                for (nth, ticket) in taken.iter().enumerate() {
                    let content = Content::new(seed, ticket.giver, ticket.payload);
                    content.verify(&taker.read(nth), bytes).with_context(|| {
                        format!("payload {} of giver {} arrived damaged", ticket.payload, ticket.giver)
                    })?;
                }
                let first_read_ns = now_ns() - first;
                say(&Said::Taken { readable_ns, taking_ns, first_read_ns, cpu_ns })?;
            }
            Order::Forget => {
                taker.forget();
                say(&Said::Done)?;
            }
            Order::Release => {
                taker.release();
                say(&Said::Done)?;
            }
            Order::Write { .. } | Order::Give => bail!("a taker gives nothing"),
        }
    }
    Ok(())
}

fn orders() -> impl Iterator<Item = anyhow::Result<Order>> {
    std::io::stdin().lock().lines().map(|line| {
        let line = line.context("standard input")?;
        serde_json::from_str(&line).with_context(|| format!("not understood: {line:?}"))
    })
}

fn say(said: &Said) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(said)?)?;
    out.flush().context("standard output")
}

/// The clock that all processes of a machine share.
pub(super) fn now_ns() -> u64 {
    nanoseconds(rustix::time::ClockId::Monotonic)
}

/// Processor time of this process so far.
fn cpu_ns() -> u64 {
    nanoseconds(rustix::time::ClockId::ProcessCPUTime)
}

fn nanoseconds(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
