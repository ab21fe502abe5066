//! What is counted during a run, and what is told in the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::rest::Footprint;
use crate::work::Kind;

/// Violations kept; further ones are only counted.
const KEPT: usize = 100;

/// How an operation ended.
#[derive(Debug)]
pub enum Outcome {
    /// Well; this many bytes were checked.
    Done(u64),
    /// With an error, as it may in a storm.
    Failed(String),
    /// As it never may.
    Wrong(String),
}

/// Counts of one kind of operation.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Count {
    /// Ended well.
    pub done: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// Ended with an error.
    pub failed: u64,
    /// The longest, in seconds.
    pub longest_seconds: f64,
}

#[derive(Debug, Default)]
struct Counts {
    kinds: BTreeMap<&'static str, Count>,
    failures: BTreeMap<String, u64>,
    troubles: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
    violations_count: u64,
}

/// Counts what happens.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    /// An operation has ended.
    pub fn add(&self, kind: Kind, took: Duration, outcome: Outcome) {
        let name = Kind::ALL.iter().find(|(each, _)| *each == kind).map_or("", |(_, name)| name);
        let mut counts = self.0.lock();
        let count = counts.kinds.entry(name).or_default();
        count.longest_seconds = count.longest_seconds.max(took.as_secs_f64());
        match outcome {
            Outcome::Done(bytes) => {
                count.done += 1;
                count.bytes += bytes;
            }
            Outcome::Failed(why) => {
                count.failed += 1;
                *counts.failures.entry(sort_of(&why)).or_default() += 1;
            }
            Outcome::Wrong(what) => {
                count.failed += 1;
                drop(counts);
                self.violation(format!("{name}: {what}"));
            }
        }
    }

    /// Something was broken on purpose.
    pub fn trouble(&self, name: &'static str) {
        *self.0.lock().troubles.entry(name).or_default() += 1;
    }

    /// Something happened that never may.
    pub fn violation(&self, what: String) {
        let mut counts = self.0.lock();
        counts.violations_count += 1;
        if counts.violations.len() < KEPT {
            counts.violations.push(what);
        }
    }

    /// What there is to tell before the end.
    #[must_use]
    pub fn so_far(&self) -> SoFar {
        let counts = self.0.lock();
        let sum = |of: fn(&Count) -> u64| counts.kinds.values().map(of).sum();
        SoFar {
            done: sum(|count| count.done),
            failed: sum(|count| count.failed),
            bytes: sum(|count| count.bytes),
            troubles: counts.troubles.values().sum(),
            violations_count: counts.violations_count,
            violations: counts.violations.clone(),
        }
    }

    /// The report so far.
    #[must_use]
    pub fn report(&self, seed: u64, seconds: f64, rest: BTreeMap<String, Footprint>) -> Report {
        let counts = self.0.lock();
        Report {
            seed,
            seconds,
            operations: counts
                .kinds
                .iter()
                .map(|(name, count)| ((*name).to_owned(), count.clone()))
                .collect(),
            failures: counts.failures.clone(),
            troubles: counts.troubles.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            rest,
            violations_count: counts.violations_count,
            violations: counts.violations.clone(),
        }
    }
}

/// An error without what differs from one time to the next, so that its like can be counted; there are few sorts.
fn sort_of(why: &str) -> String {
    let digits_apart: String =
        why.chars().take(80).map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).collect();
    // Statuses are worth telling apart, and so are the SDK's codes.
    match why.split_once(' ') {
        Some((status, code))
            if status == "sdk" || status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            let code = code.split([' ', ':', '(']).next().unwrap_or_default();
            format!("{status} {code}")
        }
        _ => digits_apart,
    }
}

/// A run in the middle.
#[derive(Debug)]
pub struct SoFar {
    /// Operations that ended well.
    pub done: u64,
    /// Operations that ended with an error.
    pub failed: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// How often something was broken on purpose.
    pub troubles: u64,
    /// How often something happened that never may.
    pub violations_count: u64,
    /// The first of them.
    pub violations: Vec<String>,
}

impl fmt::Display for SoFar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, failed, bytes, troubles, violations_count, .. } = self;
        write!(f, "{done} operations done, {failed} failed, {bytes} bytes checked; ")?;
        write!(f, "broken on purpose: {troubles}; promises broken: {violations_count}")
    }
}

/// What a run has found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Repeats what was tried.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    /// By kind.
    pub operations: BTreeMap<String, Count>,
    /// Errors in storms, by what they said.
    pub failures: BTreeMap<String, u64>,
    /// What was broken on purpose.
    pub troubles: BTreeMap<String, u64>,
    /// What every queue-proxy takes of the system in the end.
    pub rest: BTreeMap<String, Footprint>,
    /// How often something happened that never may.
    pub violations_count: u64,
    /// The first of them.
    pub violations: Vec<String>,
}

impl Report {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations_count == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {:.0} s", self.seed, self.seconds)?;
        writeln!(f, "\n{:<10} {:>9} {:>9} {:>12} {:>10}", "operation", "done", "failed", "bytes", "longest")?;
        for (name, count) in &self.operations {
            let Count { done, failed, bytes, longest_seconds } = count;
            writeln!(f, "{name:<10} {done:>9} {failed:>9} {bytes:>12} {longest_seconds:>8.1} s")?;
        }
        for (title, counts) in [("broken on purpose", &self.troubles), ("errors in storms", &self.failures)] {
            writeln!(f, "\n{title}")?;
            for (name, count) in counts {
                writeln!(f, "{count:>9}  {name}")?;
            }
        }
        writeln!(f, "\nat rest")?;
        for (name, footprint) in &self.rest {
            let Footprint { resident_bytes, descriptors, threads } = footprint;
            let (mib, open) = (resident_bytes >> 20, descriptors.values().sum::<usize>());
            writeln!(f, "  {name:<22} {mib:>4} MiB {open:>4} descriptors {threads:>3} threads")?;
        }
        if self.is_clean() {
            return writeln!(f, "\nevery promise was kept");
        }
        writeln!(f, "\n{} promises broken", self.violations_count)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_sort_are_counted_together() {
        let sorts =
            ["502 payload-lost: a", "502 payload-lost: b", "connect 127.0.0.1:4711: refused"].map(sort_of);
        assert_eq!(sorts, ["502 payload-lost", "502 payload-lost", "connect ###.#.#.#:####: refused"]);
    }

    #[test]
    fn one_violation_spoils_a_report() {
        let tally = Tally::default();
        tally.add(Kind::PutGet, Duration::ZERO, Outcome::Done(3));
        tally.add(Kind::PutGet, Duration::ZERO, Outcome::Failed("502 payload-lost".to_owned()));
        assert!(tally.report(1, 0.0, BTreeMap::new()).is_clean());
        tally.add(Kind::PutGet, Duration::ZERO, Outcome::Wrong("short".to_owned()));
        let report = tally.report(1, 0.0, BTreeMap::new());
        assert!(!report.is_clean());
        assert_eq!(report.operations["put-get"].failed, 2);
        assert!(report.to_string().contains("put-get: short"), "{report}");
        let so_far = tally.so_far().to_string();
        let wanted = "1 operations done, 2 failed, 3 bytes checked; broken on purpose: 0; promises broken: 1";
        assert_eq!(so_far, wanted);
    }
}
