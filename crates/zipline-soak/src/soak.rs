//! The run as a whole: worlds, workers, weather, and the checks at the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zipline_testkit::process::raise_open_files;

use crate::dice::Dice;
use crate::journal::{self, Sent};
use crate::node::Setting;
use crate::options::{Namespaces, Options};
use crate::report::{Report, Tally};
use crate::rest::{self, Footprint, Terms};
use crate::sdk::Functions;
use crate::trouble::{self, Weather};
use crate::work::{self, Worker};
use crate::world::World;

/// Runs as `options` ask, and counts in `tally`. `program` is this program, which is the function as well.
///
/// Dropped before its end, it ends all processes and removes the namespaces; `tally` has what was found by then.
///
/// # Errors
/// Something of the run itself does not work; promises that were broken stand in the report.
pub async fn run(options: Options, seed: u64, program: PathBuf, tally: Arc<Tally>) -> Result<Report> {
    raise_open_files()?;
    let (begun, options) = (Instant::now(), Arc::new(options));
    let directory = tempfile::Builder::new().prefix("zlsoak").tempdir()?;
    let setting = Setting {
        gateway: SocketAddr::from(([127, 0, 0, 1], 1)),
        functions: Vec::new(),
        program,
        directory: directory.path().to_owned(),
        host: directory.path().join("host"),
    };
    std::fs::create_dir(&setting.host)?;
    let mut worlds =
        vec![Arc::new(World::on_loopback(setting.clone()).await.context("the world on loopback")?)];
    match (options.namespaces, rustix::process::geteuid().is_root()) {
        (Namespaces::Off, _) | (Namespaces::Auto, false) => {}
        (Namespaces::On, _) | (Namespaces::Auto, true) => {
            let world = World::in_namespaces(setting).await;
            worlds.push(Arc::new(world.context("the world in namespaces (--namespaces off leaves it out)")?));
        }
    }
    let sent = Arc::new(Sent::default());
    let mut rest = BTreeMap::new();
    let mut worlds_running = JoinSet::new();
    for (index, world) in worlds.into_iter().enumerate() {
        let dice = Dice::new(seed, index as u64);
        let (options, tally, sent) = (Arc::clone(&options), Arc::clone(&tally), Arc::clone(&sent));
        worlds_running.spawn(in_world(world, dice, options, tally, sent));
    }
    while let Some(footprints) = worlds_running.join_next().await {
        rest.extend(footprints??);
    }
    if let Err(error) = rest::nothing_mapped(options.rest_time()).await {
        tally.violation(format!("{error:#}"));
    }
    Ok(tally.report(seed, begun.elapsed().as_secs_f64(), rest))
}

async fn in_world(
    world: Arc<World>,
    mut dice: Dice,
    options: Arc<Options>,
    tally: Arc<Tally>,
    sent: Arc<Sent>,
) -> Result<BTreeMap<String, Footprint>> {
    let until = Instant::now() + options.time();
    let weather = Arc::new(Weather::new(Duration::from_secs(options.settle)));
    let worker = |dice: &mut Dice| Worker {
        world: Arc::clone(&world),
        dice: Dice::new(dice.next(), 0),
        sent: Arc::clone(&sent),
        tally: Arc::clone(&tally),
        weather: Arc::clone(&weather),
        options: Arc::clone(&options),
        functions: Functions::default(),
    };
    let mut workers = JoinSet::new();
    for _ in 0..options.workers {
        workers.spawn(worker(&mut dice).run(until));
    }
    let (trouble_dice, mut last) = (Dice::new(dice.next(), 0), worker(&mut dice));
    let brewing = trouble::brew(
        Arc::clone(&world),
        trouble_dice,
        Arc::clone(&options),
        Arc::clone(&weather),
        Arc::clone(&tally),
        until,
    );
    brewing.await?;
    while let Some(ended) = workers.join_next().await {
        ended.context("a worker")?;
    }
    settle(&options, &weather).await;
    if let Err(error) = work::all_serve(&mut last).await {
        tally.violation(format!("after the last storm {error:#}"));
    }
    drop(last);
    let terms = Terms {
        patience: options.rest_time(),
        resident_bytes: options.rest_mib << 20,
        full: options.full_rest,
    };
    let mut rest = BTreeMap::new();
    for node in &world.nodes {
        match rest::wait(node, terms).await {
            Ok(footprint) => drop(rest.insert(node.name.clone(), footprint)),
            Err(error) => tally.violation(format!("{error:#}")),
        }
    }
    let journals = world.nodes.iter().map(crate::node::Node::journal).collect::<Result<Vec<_>>>()?;
    let prefix = world.name;
    for violation in journal::violations(&journals, &sent) {
        tally.violation(format!("{prefix}: {violation}"));
    }
    Ok(rest)
}

/// Waits until what the last storm left behind is over.
async fn settle(options: &Options, weather: &Weather) {
    while !weather.was_settled_since(Instant::now()) {
        tokio::time::sleep(Duration::from_millis(100).min(options.time())).await;
    }
}
