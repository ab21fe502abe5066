//! What is asked of a run.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Settings of a run.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Seconds until the weather ends for good; the last checks come on top
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(5..))]
    pub seconds: u64,
    /// Seed of everything random; a fresh one if not given
    #[arg(long)]
    pub seed: Option<u64>,
    /// Smallest payload in bytes
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub least_bytes: u64,
    /// Largest payload in bytes
    #[arg(long, default_value_t = 256_000_000, value_parser = clap::value_parser!(u64).range(1..=2_000_000_000))]
    pub most_bytes: u64,
    /// Operations at a time in each world
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Seconds of each storm
    #[arg(long, default_value_t = 40)]
    pub storm: u64,
    /// Seconds of each calm
    #[arg(long, default_value_t = 30)]
    pub calm: u64,
    /// Seconds of calm after which nothing may fail any more
    #[arg(long, default_value_t = 15)]
    pub settle: u64,
    /// A world of network namespaces besides the one on loopback: if root, always, or never
    #[arg(long, default_value = "auto")]
    pub namespaces: Namespaces,
    /// Seconds that memory, descriptors and threads may take to come to rest
    #[arg(long, default_value_t = 240)]
    pub rest: u64,
    /// Most resident memory of a queue-proxy at rest, in MiB
    #[arg(long, default_value_t = 64)]
    pub rest_mib: u64,
    /// Hold the ends of idle connections and warm memory to account too, which takes their time of some minutes
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub full_rest: bool,
    /// Also write the report as JSON to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Whether there is a world of network namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Namespaces {
    /// If this process may make them.
    Auto,
    /// Or fail.
    On,
    /// No.
    Off,
}

impl Options {
    /// How long the weather changes.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How long memory, descriptors and threads may take to come to rest.
    #[must_use]
    pub fn rest_time(&self) -> Duration {
        Duration::from_secs(self.rest)
    }
}
