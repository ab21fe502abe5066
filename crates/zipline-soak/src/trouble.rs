//! What happens to functions, queue-proxies and links.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};
use zipline_testkit::relay::{Direction, Fault, Rule, Then};

use crate::dice::Dice;
use crate::options::Options;
use crate::report::Tally;
use crate::world::World;

/// Longest time that something is stopped or cut: longer than the product waits for progress.
const LONGEST: Duration = Duration::from_secs(5);
/// Between two troubles of one world.
const PAUSE: Duration = Duration::from_secs(2);

/// Storm or calm.
#[derive(Debug)]
pub struct Weather {
    /// Since when it is calm; none in a storm.
    calm_since: Mutex<Option<Instant>>,
    settle: Duration,
}

impl Weather {
    /// Calm, from now on.
    #[must_use]
    pub fn new(settle: Duration) -> Self {
        Self { calm_since: Mutex::new(Some(Instant::now())), settle }
    }

    /// Whether all was calm at `time` and has been so since, and the storm before it was long enough ago for everything it
    /// left behind (leases, doubts about destinations) to be over.
    #[must_use]
    pub fn was_settled_since(&self, time: Instant) -> bool {
        self.calm_since.lock().is_some_and(|since| since + self.settle <= time)
    }

    fn set(&self, calm: bool) {
        *self.calm_since.lock() = calm.then(Instant::now);
    }
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    QueueProxyKilled,
    QueueProxyDrained,
    QueueProxyStopped,
    FunctionKilled,
    FunctionStopped,
    LinkCut(Rule),
    LinkDown,
}

impl Trouble {
    fn any(dice: &mut Dice, has_relays: bool) -> Self {
        match dice.below(100) {
            0..15 => Self::QueueProxyKilled,
            15..22 => Self::QueueProxyDrained,
            22..37 => Self::QueueProxyStopped,
            37..47 => Self::FunctionKilled,
            47..57 => Self::FunctionStopped,
            _ if has_relays => Self::LinkCut(Rule {
                fault: [Fault::Fin, Fault::Reset, Fault::Stall][dice.index(3)],
                direction: [Direction::ToTarget, Direction::FromTarget][usize::from(dice.percent(80))],
                after_bytes: dice.size(1, 8 << 20),
                then: [Then::Pass, Then::Again, Then::Dead][dice.index(3)],
            }),
            _ => Self::LinkDown,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::QueueProxyKilled => "queue-proxy killed",
            Self::QueueProxyDrained => "queue-proxy drained",
            Self::QueueProxyStopped => "queue-proxy stopped",
            Self::FunctionKilled => "function killed",
            Self::FunctionStopped => "function stopped",
            Self::LinkCut(Rule { fault: Fault::Fin, .. }) => "link closed",
            Self::LinkCut(Rule { fault: Fault::Reset, .. }) => "link reset",
            Self::LinkCut(Rule { fault: Fault::Stall, .. }) => "link stalled",
            Self::LinkDown => "link down",
        }
    }
}

/// Lets storms and calms follow each other in `world` until `until`; ends in calm with everything running.
///
/// # Errors
/// Something that was killed does not come back: the run is over.
pub async fn brew(
    world: Arc<World>,
    mut dice: Dice,
    options: Arc<Options>,
    weather: Arc<Weather>,
    tally: Arc<Tally>,
    until: Instant,
) -> Result<()> {
    while Instant::now() < until {
        weather.set(false);
        let end = (Instant::now() + Duration::from_secs(options.storm)).min(until);
        while Instant::now() < end {
            sleep(dice.time(Duration::ZERO, PAUSE)).await;
            let trouble = Trouble::any(&mut dice, world.network.is_none());
            tally.trouble(trouble.name());
            happen(&world, &mut dice, trouble).await.with_context(|| trouble.name())?;
        }
        weather.set(true);
        sleep_until((Instant::now() + Duration::from_secs(options.calm)).min(until)).await;
    }
    Ok(())
}

async fn happen(world: &World, dice: &mut Dice, trouble: Trouble) -> Result<()> {
    let node = &world.nodes[dice.index(world.nodes.len())];
    let time = dice.time(Duration::from_millis(1), LONGEST);
    match trouble {
        Trouble::QueueProxyKilled | Trouble::QueueProxyDrained => {
            node.renew_queue_proxy(trouble == Trouble::QueueProxyDrained).await?;
            world.route(node);
        }
        Trouble::QueueProxyStopped => {
            node.signal_queue_proxy(Signal::STOP).await?;
            sleep(time).await;
            node.signal_queue_proxy(Signal::CONT).await?;
        }
        Trouble::FunctionKilled => node.renew_function().await?,
        Trouble::FunctionStopped => {
            node.signal_function(Signal::STOP).await?;
            sleep(time).await;
            node.signal_function(Signal::CONT).await?;
        }
        Trouble::LinkCut(rule) => {
            let relay = node.relay.as_ref().context("this world's links are relays")?;
            relay.set_rule(Some(rule));
            sleep(time).await;
            relay.set_rule(None);
        }
        Trouble::LinkDown => {
            let network = world.network.as_ref().context("this world has a link")?;
            network.set_link(false)?;
            sleep(time).await;
            network.set_link(true)?;
        }
    }
    Ok(())
}
