//! What can be said on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::systems::{Path, Pattern, State, System};

/// From the sender's memory to the receiver's: Zipline, Redis, S3 servers, nginx, and what the machine allows, taking turns.
///
/// Without a selection (systems, paths, patterns, degrees, sizes or states) it measures all that the table of targets needs.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch on the command line")]
pub(crate) struct Options {
    /// The whole table of targets; what is done without any selection.
    #[arg(long)]
    pub(super) table: bool,
    /// Fewer rounds, no waiting for a minute of idleness.
    #[arg(long)]
    pub(super) quick: bool,
    /// Every path and pattern once with little: whether all works. No figures, no verdict.
    #[arg(long)]
    pub(super) short: bool,
    /// Systems [default of a selection: bare,redis,zipline,zipline-put]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) systems: Vec<System>,
    /// Paths [default: network]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) paths: Vec<Path>,
    /// Patterns [default: 1-1]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) patterns: Vec<Pattern>,
    /// Degrees of all patterns but 1-1 [default: 4]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) degrees: Vec<u32>,
    /// Payload sizes in bytes, or with KB, MB, GB (powers of ten) [default: 10KB,1MB,100MB]
    #[arg(long, value_delimiter = ',', value_name = "SIZE")]
    pub(super) sizes: Vec<Size>,
    /// States: after runs like it, with new processes, after a minute of nothing [default: warm]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) states: Vec<State>,
    /// Rounds; in each, every system does its runs of a case.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rounds: Option<u32>,
    /// Bytes of a packet on the cable between the two network namespaces.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(576..=65_535))]
    pub(super) mtu: u32,
    /// Congestion control of peers and limits; `system` leaves what the system has. Zipline chooses for itself.
    #[arg(long, default_value = "cubic")]
    pub(super) congestion: String,
    /// Queue-proxies run as a user who may only use the congestion control that the system allows everybody.
    #[arg(long)]
    pub(super) unprivileged: bool,
    /// Let the scheduler place small transfers, too.
    #[arg(long)]
    pub(super) no_pin: bool,
    /// Where scripts/setup-bench.sh put peers and Python.
    #[arg(long, default_value = "build/bench", value_name = "FOLDER")]
    pub(super) tools: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Also write the JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Draw charts into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub(super) charts: Option<PathBuf>,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(super) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, factor) = [("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("", 1)]
            .into_iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))
            .unwrap_or((text, 1));
        let number =
            number.parse::<u64>().map_err(|_| format!("{text:?} is not a size: write 10000, 10KB or 1MB"))?;
        let bytes = number.checked_mul(factor).filter(|bytes| (1..=4_000_000_000).contains(bytes));
        bytes.map(Self).ok_or_else(|| format!("{text} is not between 1 byte and 4 GB"))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (number, unit) = match self.0 {
            bytes if bytes % 1_000_000_000 == 0 => (bytes / 1_000_000_000, "GB"),
            bytes if bytes % 1_000_000 == 0 => (bytes / 1_000_000, "MB"),
            bytes if bytes % 1_000 == 0 => (bytes / 1_000, "KB"),
            bytes => (bytes, ""),
        };
        write!(f, "{number}{unit}")
    }
}

impl Options {
    /// Whether a selection was made.
    pub(super) fn selects(&self) -> bool {
        let named = !self.systems.is_empty() || !self.paths.is_empty() || !self.patterns.is_empty();
        let numbers = !self.degrees.is_empty() || !self.sizes.is_empty() || !self.states.is_empty();
        !self.table && (named || numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_written() {
        for (text, bytes) in [
            ("10000", 10_000),
            ("10KB", 10_000),
            ("1MB", 1_000_000),
            ("1GB", 1_000_000_000),
            ("277001", 277_001),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        for text in ["", "0", "MB", "1 MB", "-1", "5GB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
