//! Does the runs of a group: systems take turns, round by round, so that what else the machine does falls on all alike.

use anyhow::Context as _;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::time::Duration;

use super::limits;
use super::plan::Group;
use super::rows::{Measured, Row};
use super::systems::{State, System};
use super::world::{Ground, World};
use crate::report::progress;

/// How long nothing happens before a run counts as one after idleness.
const IDLE: Duration = Duration::from_secs(60);

/// How a group is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Small transfers are pinned.
    pub(super) pins: bool,
    /// What is missing or fails is told and left out; without it, it is an error.
    pub(super) leaves_out: bool,
}

/// Measures all cells of a group.
///
/// # Errors
/// If a system fails that may not be left out.
pub(super) fn group(ground: &Ground, group: &Group, manner: Manner) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if group.is_alone() || group.cells.iter().any(|cell| cell.state == State::First) {
        for &system in &group.systems {
            let alone = Group { systems: vec![system], ..group.clone() };
            together(ground, &alone, manner, &mut rows)?;
        }
    } else {
        together(ground, group, manner, &mut rows)?;
    }
    Ok(rows)
}

fn together(ground: &Ground, group: &Group, manner: Manner, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let mut worlds = Vec::new();
    for &system in group.systems.iter().filter(|system| system.has_roles()) {
        ground.stop.check()?;
        match World::start(ground, system, group.path, group.shape) {
            Ok(world) => worlds.push(world),
            Err(error) => leave_out(ground, manner, system, error)?,
        }
    }
    for cell in &group.cells {
        let bytes = usize::try_from(cell.bytes).context("size")?;
        let pinned = manner.pins && cell.is_pinned(group.shape) && cpus() > 1;
        for world in &worlds {
            pin(world, pinned);
        }
        let mut measured: Vec<Measured> = worlds.iter().map(|_| Measured::default()).collect();
        let mut failed = Vec::new();
        if cell.state != State::First {
            for (place, world) in worlds.iter_mut().enumerate() {
                let warmed = (0..cell.warm_ups()).try_for_each(|_| world.run(ground, bytes).map(drop));
                if let Err(error) = warmed {
                    leave_out(ground, manner, world.system, error)?;
                    failed.push(place);
                }
            }
        }
        for round in 0..cell.rounds {
            if cell.state == State::Idle {
                ground.stop.wait(IDLE)?;
            }
            for (place, world) in worlds.iter_mut().enumerate() {
                if failed.contains(&place) {
                    continue;
                }
                if cell.state == State::First && round > 0 {
                    *world = World::start(ground, world.system, group.path, group.shape)?;
                }
                let cpu = world.servers_cpu();
                for _ in 0..cell.runs {
                    ground.stop.check()?;
                    match world.run(ground, bytes) {
                        Ok(sample) => measured[place].samples.push(sample),
                        Err(error) => {
                            leave_out(ground, manner, world.system, error)?;
                            failed.push(place);
                            measured[place].samples.clear();
                            break;
                        }
                    }
                }
                measured[place].servers_cpu += world.servers_cpu() - cpu;
            }
        }
        let before = rows.len();
        for (world, measured) in worlds.iter_mut().zip(&mut measured) {
            measured.touched_bytes = world.touched_bytes();
            rows.extend(Row::of_transfer(world.system, group.path, group.shape, cell, pinned, measured));
        }
        for system in group.systems.iter().filter(|system| !system.has_roles()) {
            rows.extend(limits::row(ground, *system, group, cell)?);
        }
        for row in &rows[before..] {
            progress(&row.line());
        }
        let mut place = 0;
        worlds.retain(|_| {
            place += 1;
            !failed.contains(&(place - 1))
        });
        for world in &mut worlds {
            world.release(ground)?;
        }
    }
    Ok(())
}

/// Tells of a system that cannot be measured, or gives its error.
pub(super) fn leave_out(
    ground: &Ground,
    manner: Manner,
    system: System,
    error: anyhow::Error,
) -> anyhow::Result<()> {
    if !manner.leaves_out {
        return Err(error);
    }
    progress(&format!("left out: {error:#}"));
    ground.left_out.lock().insert(system, format!("{error:#}"));
    Ok(())
}

pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Roles on the first core and servers on the second, or all on all.
fn pin(world: &World, apart: bool) {
    let all = 0..cpus();
    let (roles, servers) = if apart { (0..1, 1..2) } else { (all.clone(), all) };
    for (pids, cores) in [(world.role_ids(), roles), (world.server_ids(), servers)] {
        let mut set = CpuSet::new();
        cores.for_each(|core| set.set(core));
        let tasks =
            pids.iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
        for task in tasks.flatten() {
            let task = task.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            // A thread that has just ended needs no core.
            let _ = task.map(|task| sched_setaffinity(Some(task), &set));
        }
    }
}
