//! `zipline bench transfer`: how long from the sender's memory to the receiver's?
//!
//! A *giver* has bytes, a *taker* is to have them; each is a process of its own, and so are servers and queue-proxies. The same
//! roles move the same payloads by every system, in turns. The time goes from the moment at which the giver has the bytes to the
//! moment at which the taker can read them; what names the payload goes from one to the other directly.

mod charts;
mod extra;
mod launch;
mod limits;
mod measure;
mod memory;
mod net;
mod options;
mod plan;
mod queue_proxy;
mod role;
mod rows;
mod servers;
mod setup;
mod stop;
mod systems;
mod targets;
mod verdict;
mod world;

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::sync::oneshot;
use zipline_runtime::signal::Signals;

use crate::report::{Report, progress};
use measure::Manner;
use rows::Row;
use stop::Stop;
use systems::System;

pub(crate) use launch::{Options as LaunchOptions, run as run_launch};
pub(crate) use options::Options;
pub(crate) use role::run as run_role;
pub(crate) use servers::{ReachOptions, run_reach};

/// Runs the benchmark. A signal ends it in order: processes, namespaces and files go before it does.
///
/// # Errors
/// If the ground cannot be made, or what may not fail does.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    setup::become_root_of_own()?;
    let stop = Stop::default();
    let asked = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("signals cannot be heard")?;
        let (done, mut finished) = oneshot::channel();
        // One thread starts every process: they end with the thread that started them.
        let worker = std::thread::Builder::new()
            .name("bench".to_owned())
            .spawn(move || {
                // Whoever waits for it has gone only if the process ends.
                let _ = done.send(measure_all(&options, &stop));
            })
            .context("thread")?;
        let outcome = loop {
            tokio::select! {
                outcome = &mut finished => break outcome.context("the measuring thread failed")?,
                signal = signals.next() => {
                    progress("ending what was started");
                    asked.ask(signal.exit_code());
                }
            }
        };
        // It has sent its last word.
        let _ = worker.join();
        match asked.asked() {
            Some(code) => Ok(ExitCode::from(code)),
            None => outcome,
        }
    })
}

fn measure_all(options: &Options, stop: &Stop) -> anyhow::Result<ExitCode> {
    let (ground, _folders) = setup::ground(options, stop)?;
    let manner = Manner { pins: !options.no_pin && !options.short, leaves_out: !options.short };
    let mut report: Report<Row> = Report::new();
    for group in plan::groups(options) {
        report.rows.extend(measure::group(&ground, &group, manner)?);
    }
    if !options.selects() && !options.short {
        let factor = if options.quick { 0.25 } else { 1.0 };
        let others = [
            (System::Iperf3, limits::iperf3(&ground).map(Vec::from_iter)),
            (System::ZiplineInvoke, extra::round_trips(&ground, factor)),
            (System::Zipline, extra::rest(&ground).map(Vec::from_iter)),
            (System::Zipline, extra::held(&ground, !options.quick).map(Vec::from_iter)),
        ];
        for (system, measured) in others {
            match measured {
                Ok(rows) => report.rows.extend(rows),
                // What was measured before is not lost for it.
                Err(error) => measure::leave_out(&ground, manner, system, error)?,
            }
        }
    }
    rows::compare(&mut report.rows);
    let baselines = verdict::baselines(&report.rows);
    let targets = targets::targets(&report.rows);
    let void = verdict::is_void(&baselines) && !options.short;
    let left_out = ground.left_out.lock();
    // A peer may be missing; Zipline may not.
    let failed = left_out.keys().any(|system| system.is_zipline());
    report.findings = Some(serde_json::json!({
        "void": void,
        "baselines": baselines,
        "targets": targets,
        "left_out": *left_out,
        "setup": setup::describe(options),
    }));
    if let Some(folder) = &options.charts {
        charts::draw(folder, &report.rows, &report.machine_line())?;
    }
    let judged = !options.selects() && !options.short;
    report.publish(options.json, options.output.as_deref(), |report| {
        let mut text = rows::table(&report.rows);
        if !options.short {
            text += &verdict::text(&baselines);
        }
        if judged {
            text += &targets::text(&targets);
        }
        text
    })?;
    Ok(if void || failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
