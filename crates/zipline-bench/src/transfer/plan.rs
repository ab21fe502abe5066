//! What is measured, in what order: groups of systems whose processes live at the same time and take turns.

use super::options::{Options, Size};
use super::systems::{Path, Pattern, Shape, State, System};

/// Up to here a transfer is a handful of wake-ups, and on which cores they happen decides: roles and servers are pinned.
const PINNED_UP_TO: u64 = 100_000;
/// From here on systems are measured one after another, as memory for all of them at once is not there.
const ALONE_FROM: u64 = 500_000_000;

/// Systems that share path and shape.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) path: Path,
    pub(super) shape: Shape,
    pub(super) systems: Vec<System>,
    pub(super) cells: Vec<Cell>,
}

/// One size in one state, for all systems of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) bytes: u64,
    pub(super) state: State,
    /// In each round every system does so many runs.
    pub(super) runs: u32,
    pub(super) rounds: u32,
}

impl Cell {
    pub(super) fn is_pinned(&self, shape: Shape) -> bool {
        self.bytes <= PINNED_UP_TO && shape.pattern == Pattern::OneToOne
    }

    /// Runs before those that count.
    pub(super) fn warm_ups(&self) -> u32 {
        if self.runs > 1 { self.runs } else { 2 }
    }

    fn warm(bytes: u64, factor: f64) -> Self {
        let (rounds, runs) = match bytes {
            0..=100_000 => (10, 15),
            100_001..=1_000_000 => (10, 4),
            1_000_001..=10_000_000 => (15, 1),
            10_000_001..=200_000_000 => (9, 1),
            _ => (3, 1),
        };
        let rounds = (f64::from(rounds) * factor).ceil().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
        Self { bytes, state: State::Warm, runs, rounds: rounds as u32 }
    }
}

/// All groups that the options ask for.
pub(super) fn groups(options: &Options) -> Vec<Group> {
    if options.selects() {
        return selected(options);
    }
    if options.short {
        return short();
    }
    table(options)
}

/// What fills the table of targets.
fn table(options: &Options) -> Vec<Group> {
    use System::{
        Bare, Memcpy, Nginx, Nginx2, Ray, Redis, RedisPy, S3fs, Versitygw, Zipline, ZiplineHttp,
        ZiplineInvoke, ZiplinePreissued, ZiplinePut, ZiplinePython, ZiplinePythonPut, ZiplineUnprivileged,
    };
    let (quick, factor) = (options.quick, if options.quick { 0.34 } else { 1.0 });
    let warm = |sizes: &[u64]| sizes.iter().map(|bytes| Cell::warm(*bytes, factor)).collect::<Vec<_>>();
    let one = Pattern::OneToOne.shape(1);
    let mut groups = Vec::new();
    let mut add = |path, shape, systems: &[System], cells| {
        groups.push(Group { path, shape, systems: systems.to_vec(), cells });
    };
    let peers = [Bare, Redis, Zipline, ZiplinePut, ZiplineUnprivileged, ZiplineInvoke, Nginx, Nginx2];
    let others = [ZiplinePreissued, ZiplineHttp, RedisPy, ZiplinePython, ZiplinePythonPut, S3fs, Versitygw];
    let all: Vec<System> = peers.into_iter().chain(others).collect();
    add(Path::Network, one, &all, warm(&[10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]));
    add(
        Path::SameHost,
        one,
        &[Redis, Zipline, ZiplinePut, Memcpy, RedisPy, ZiplinePython, Ray],
        warm(&[1_000_000, 10_000_000, 100_000_000]),
    );
    let cell = |bytes, state, rounds| Cell { bytes, state, runs: 1, rounds };
    let starts = if quick { 2 } else { 5 };
    add(Path::Network, one, &[Zipline, ZiplinePut, Redis], vec![cell(100_000_000, State::First, starts)]);
    if !quick {
        add(Path::Network, one, &[Zipline, Redis, Bare], vec![cell(100_000_000, State::Idle, 3)]);
        add(Path::Network, one, &[Bare, Redis, Zipline, ZiplinePut], warm(&[1_000_000_000]));
        for pattern in [Pattern::Scatter, Pattern::Gather, Pattern::Shuffle] {
            add(Path::Network, pattern.shape(8), &[Redis, Zipline, ZiplinePut], warm(&[1_000_000]));
        }
        add(Path::Network, Pattern::Scatter.shape(32), &[Redis, Zipline], warm(&[100_000, 10_000_000]));
        add(Path::Network, Pattern::Gather.shape(32), &[Redis, Zipline], warm(&[100_000, 10_000_000]));
    }
    add(
        Path::SameHost,
        one,
        &[Zipline, Memcpy, Ray],
        vec![Cell { rounds: 3, ..Cell::warm(1_000_000_000, 1.0) }],
    );
    add(
        Path::Network,
        Pattern::Broadcast.shape(16),
        &[Redis, Zipline],
        vec![cell(100_000_000, State::Warm, if quick { 2 } else { 5 })],
    );
    let shuffle = Shape { pattern: Pattern::Shuffle, givers: 64, takers: 32 };
    add(
        Path::Network,
        shuffle,
        &[Redis, Zipline, S3fs],
        vec![cell(277_000, State::Warm, if quick { 2 } else { 5 })],
    );
    groups
}

/// Every path and pattern once, with little: whether it works, never how fast.
fn short() -> Vec<Group> {
    let cells = |sizes: &[u64]| {
        sizes
            .iter()
            .map(|bytes| Cell { bytes: *bytes, state: State::Warm, runs: 1, rounds: 1 })
            .collect::<Vec<_>>()
    };
    let mut groups = Vec::new();
    for path in [Path::Network, Path::SameHost] {
        for pattern in
            [Pattern::OneToOne, Pattern::Scatter, Pattern::Gather, Pattern::Broadcast, Pattern::Shuffle]
        {
            let mut systems = vec![System::Zipline, System::ZiplinePut, System::ZiplineHttp, System::Redis];
            if pattern == Pattern::OneToOne {
                systems.extend([System::ZiplinePreissued, System::ZiplineInvoke]);
                systems.extend([System::Bare, System::Nginx, System::Nginx2]);
            }
            let degree = if pattern == Pattern::OneToOne { 1 } else { 3 };
            groups.push(Group {
                path,
                shape: pattern.shape(degree),
                systems,
                cells: cells(&[10_001, 3_000_000]),
            });
        }
    }
    groups
}

/// Every combination of what was named; what was not has its default.
fn selected(options: &Options) -> Vec<Group> {
    let systems =
        first_or(&options.systems, &[System::Bare, System::Redis, System::Zipline, System::ZiplinePut]);
    let factor = if options.quick { 0.34 } else { 1.0 };
    let mut groups = Vec::new();
    for &path in first_or(&options.paths, &[Path::Network]) {
        for &pattern in first_or(&options.patterns, &[Pattern::OneToOne]) {
            let degrees = if pattern == Pattern::OneToOne { &[1] } else { first_or(&options.degrees, &[4]) };
            for &degree in degrees {
                for &state in first_or(&options.states, &[State::Warm]) {
                    let sizes = first_or(&options.sizes, &[Size(10_000), Size(1_000_000), Size(100_000_000)]);
                    let cell = |size: &Size| {
                        let warm = Cell::warm(size.0, factor);
                        let runs = if state == State::Warm { warm.runs } else { 1 };
                        let rounds =
                            options.rounds.unwrap_or(if state == State::Warm { warm.rounds } else { 3 });
                        Cell { state, runs, rounds, ..warm }
                    };
                    let cells = sizes.iter().map(cell).collect();
                    groups.push(Group {
                        path,
                        shape: pattern.shape(degree),
                        systems: systems.to_vec(),
                        cells,
                    });
                }
            }
        }
    }
    groups
}

fn first_or<'a, T>(named: &'a [T], default: &'a [T]) -> &'a [T] {
    if named.is_empty() { default } else { named }
}

impl Group {
    /// Whether systems are measured one after another.
    pub(super) fn is_alone(&self) -> bool {
        self.cells
            .iter()
            .any(|cell| cell.bytes * self.shape.deliveries() >= ALONE_FROM && cell.state != State::Idle)
    }
}
