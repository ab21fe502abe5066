//! What is measured, and what it is called in reports.

use serde::{Deserialize, Serialize};

/// A system under measurement, as rows name it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// The Rust SDK, payloads written in place.
    Zipline,
    /// The Rust SDK, payloads copied in by `put`.
    ZiplinePut,
    /// The Rust SDK, payloads copied in by `put` under references issued before.
    ZiplinePreissued,
    /// The Python SDK, NumPy arrays written in place.
    ZiplinePython,
    /// The Python SDK, NumPy arrays copied in by `put`.
    ZiplinePythonPut,
    /// Put and get over the local HTTP API, without an SDK.
    ZiplineHttp,
    /// A function posts to another one, both without an SDK.
    ZiplineInvoke,
    /// The Rust SDK with queue-proxies of a user without privilege.
    ZiplineUnprivileged,
    /// Redis with the least a client can do.
    Redis,
    /// Redis with redis-py and hiredis.
    RedisPy,
    /// Ray's object store, NumPy arrays.
    Ray,
    /// The S3 server s3s-fs on tmpfs.
    S3fs,
    /// The S3 server versitygw on tmpfs.
    Versitygw,
    /// A POST through one nginx.
    Nginx,
    /// A POST through two nginx, one on each host.
    #[value(name = "nginx-2")]
    #[serde(rename = "nginx-2")]
    Nginx2,
    /// A bare pull over two connections.
    Bare,
    /// A copy between two warm buffers.
    Memcpy,
    /// iperf3, one stream.
    Iperf3,
}

impl System {
    /// The name in rows.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Zipline => "zipline",
            Self::ZiplinePut => "zipline-put",
            Self::ZiplinePreissued => "zipline-preissued",
            Self::ZiplinePython => "zipline-python",
            Self::ZiplinePythonPut => "zipline-python-put",
            Self::ZiplineHttp => "zipline-http",
            Self::ZiplineInvoke => "zipline-invoke",
            Self::ZiplineUnprivileged => "zipline-unprivileged",
            Self::Redis => "redis",
            Self::RedisPy => "redis-py",
            Self::Ray => "ray",
            Self::S3fs => "s3fs",
            Self::Versitygw => "versitygw",
            Self::Nginx => "nginx",
            Self::Nginx2 => "nginx-2",
            Self::Bare => "bare",
            Self::Memcpy => "memcpy",
            Self::Iperf3 => "iperf3",
        }
    }

    /// Whether it is one of Zipline's own.
    pub(super) fn is_zipline(self) -> bool {
        self.as_str().starts_with("zipline")
    }

    /// Whether it can have more than one giver and taker.
    pub(super) fn has_patterns(self) -> bool {
        !matches!(self, Self::ZiplineInvoke | Self::Nginx | Self::Nginx2 | Self::Bare | Self::Ray)
    }

    /// Whether it moves payloads between hosts as well; what does not is measured on one.
    pub(super) fn has_network(self) -> bool {
        self != Self::Ray
    }

    /// Whether its roles are Python programs.
    pub(super) fn is_python(self) -> bool {
        matches!(self, Self::ZiplinePython | Self::ZiplinePythonPut | Self::RedisPy | Self::Ray)
    }

    /// Whether it moves payloads between roles; the others are measured by themselves.
    pub(super) fn has_roles(self) -> bool {
        !matches!(self, Self::Memcpy | Self::Iperf3)
    }
}

/// Between what hosts payloads move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Path {
    /// Two network namespaces joined by a virtual cable.
    Network,
    /// One host.
    SameHost,
}

impl Path {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::SameHost => "same-host",
        }
    }
}

/// Who gives what to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
pub(crate) enum Pattern {
    /// One payload from one giver to one taker.
    #[value(name = "1-1")]
    #[serde(rename = "1-1")]
    OneToOne,
    /// One giver, a payload for each taker.
    #[serde(rename = "scatter")]
    Scatter,
    /// Each giver has a payload for the one taker.
    #[serde(rename = "gather")]
    Gather,
    /// One payload for all takers.
    #[serde(rename = "broadcast")]
    Broadcast,
    /// Each giver has a payload for each taker.
    #[serde(rename = "shuffle")]
    Shuffle,
}

impl Pattern {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "1-1",
            Self::Scatter => "scatter",
            Self::Gather => "gather",
            Self::Broadcast => "broadcast",
            Self::Shuffle => "shuffle",
        }
    }

    /// Givers and takers of a degree.
    pub(super) fn shape(self, degree: u32) -> Shape {
        let (givers, takers) = match self {
            Self::OneToOne => (1, 1),
            Self::Scatter | Self::Broadcast => (1, degree),
            Self::Gather => (degree, 1),
            Self::Shuffle => (degree, degree),
        };
        Shape { pattern: self, givers, takers }
    }
}

/// A pattern with its number of givers and takers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shape {
    pub(super) pattern: Pattern,
    pub(super) givers: u32,
    pub(super) takers: u32,
}

impl Shape {
    pub(super) fn degree(self) -> u32 {
        self.givers.max(self.takers)
    }

    /// The takers of each payload of one giver.
    pub(super) fn payloads(self) -> Vec<Vec<u32>> {
        let all = 0..self.takers;
        match self.pattern {
            Pattern::Broadcast => vec![all.collect()],
            _ => all.map(|taker| vec![taker]).collect(),
        }
    }

    /// Payloads that each taker takes.
    pub(super) fn taken(self) -> usize {
        self.givers as usize
    }

    /// Deliveries of one run.
    pub(super) fn deliveries(self) -> u64 {
        u64::from(self.givers) * u64::from(self.takers)
    }
}

/// What has gone before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nothing: every process is new.
    First,
    /// Runs like it, a moment ago.
    Warm,
    /// Runs like it, and then a minute of nothing.
    Idle,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Warm => "warm",
            Self::Idle => "idle",
        }
    }
}
