//! One function: its manifest, its instances, and the loop that keeps their number right.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use zipline_runtime::Task;

use crate::activation::{Load, target};
use crate::context::Context;
use crate::instance::{BackOff, Ended, Failure, Instance, run};
use crate::manifest::ServiceManifest;
use crate::pool::Pool;

/// Failures remembered for requests that their instance took down; the oldest goes first.
const FAILURES: usize = 64;

/// A function that the engine runs.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) manifest: ServiceManifest,
    /// The manifest's program as an absolute path.
    pub(crate) program: PathBuf,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Counters,
    requested: watch::Sender<bool>,
    instances: Mutex<Vec<Arc<Instance>>>,
    failures: Mutex<VecDeque<(u64, Arc<Failure>)>>,
    failed: AtomicU64,
}

/// What the gateway counts per function.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    pub(crate) requests: Counter,
    /// Bytes of request bodies, towards the function.
    pub(crate) received: Counter,
    /// Bytes of response bodies, towards the caller.
    pub(crate) sent: Counter,
    /// Answers of the gateway itself.
    pub(crate) refused: Counter,
}

impl Function {
    pub(crate) fn new(
        manifest: ServiceManifest,
        program: PathBuf,
        held_max: usize,
        counters: Counters,
    ) -> Arc<Self> {
        let pool = Pool::new(manifest.container_concurrency, held_max);
        Arc::new(Self {
            manifest,
            program,
            pool,
            counters,
            requested: watch::Sender::new(false),
            instances: Mutex::new(Vec::new()),
            failures: Mutex::new(VecDeque::new()),
            failed: AtomicU64::new(0),
        })
    }

    /// A request came: from now on there is an instance.
    pub(crate) fn request(&self) {
        self.requested.send_if_modified(|requested| !std::mem::replace(requested, true));
    }

    /// How many instances there should be.
    pub(crate) fn target(&self) -> u32 {
        target(&self.manifest.scale, Load { requested: *self.requested.borrow() })
    }

    pub(crate) fn instances(&self) -> Vec<Arc<Instance>> {
        self.instances.lock().clone()
    }

    pub(crate) fn add(&self, instance: Arc<Instance>) {
        self.instances.lock().push(instance);
    }

    pub(crate) fn remove(&self, number: u64) {
        self.instances.lock().retain(|instance| instance.number != number);
    }

    /// Remembers a failure and tells those whom nobody can serve now. A lost race for a port tells nobody: another
    /// instance is on its way.
    pub(crate) fn failed(&self, instance: &Instance, failure: &Arc<Failure>, port_taken: bool) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock();
        if failures.len() >= FAILURES {
            failures.pop_front();
        }
        failures.push_back((instance.number, failure.clone()));
        drop(failures);
        if !port_taken && instance.facts().ready_since.is_none() {
            self.pool.fail_waiting(failure);
        }
    }

    /// Why an instance failed, if it did.
    pub(crate) fn failure_of(&self, number: u64) -> Option<Arc<Failure>> {
        self.failures.lock().iter().rev().find(|(id, _)| *id == number).map(|(_, failure)| failure.clone())
    }

    /// The latest failure of any instance.
    pub(crate) fn last_failure(&self) -> Option<Arc<Failure>> {
        self.failures.lock().back().map(|(_, failure)| failure.clone())
    }

    /// Instances that failed since the start.
    pub(crate) fn failed_count(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Keeps the number of instances at its target until `shutdown`, then retires all and waits for their ends.
    pub(crate) async fn keep(self: Arc<Self>, context: Arc<Context>, shutdown: CancellationToken) {
        let mut requested = self.requested.subscribe();
        let mut places: Vec<(CancellationToken, Task<()>)> = Vec::new();
        let mut retired: Vec<Task<()>> = Vec::new();
        while !shutdown.is_cancelled() {
            let wanted = usize::try_from(self.target()).unwrap_or(usize::MAX);
            while places.len() < wanted {
                let retire = CancellationToken::new();
                let place = keep_one(self.clone(), context.clone(), retire.clone());
                places.push((retire, context.tasks.spawn("instance", place)));
            }
            while places.len() > wanted {
                if let Some((retire, place)) = places.pop() {
                    retire.cancel();
                    retired.push(place);
                }
            }
            retired.retain(|place| !place.is_finished());
            tokio::select! {
                () = shutdown.cancelled() => {}
                changed = requested.changed() => if changed.is_err() { break },
            }
        }
        self.pool.close();
        for (retire, _) in &places {
            retire.cancel();
        }
        for place in retired.into_iter().chain(places.into_iter().map(|(_, place)| place)) {
            // A panic was logged by its owner.
            let _ = place.await;
        }
    }
}

/// Keeps one instance running: starts another one when it failed, after a back-off.
async fn keep_one(function: Arc<Function>, context: Arc<Context>, retire: CancellationToken) {
    let mut backoff = BackOff::default();
    while let Ended::Failed { up, port_taken } = run(&context, &function, &retire).await {
        if port_taken {
            continue;
        }
        let wait = backoff.after(up);
        tokio::select! {
            () = retire.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}
