//! Marks on pods that hold payloads, for whoever removes pods and nodes.
//!
//! | holding | `controller.kubernetes.io/pod-deletion-cost` | `safe-to-evict: "false"`, `do-not-disrupt: "true"` |
//! |---|---|---|
//! | nothing | removed | removed |
//! | some | set | as before |
//! | much | set | set |
//!
//! They are hints. Each mark has a field manager of its own and is applied without force, so the API server itself refuses
//! to overwrite what somebody else has set, and removing ours removes nothing of theirs. A mark that was refused is left
//! alone until the next edge. Per pod there is at most one change per [`HOLDING_PAUSE`]; the latest report wins.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use zipline_protocol::controller::{HOLDING_PAUSE, Holding};

use crate::kubernetes::Kubernetes;
use crate::metrics::{ControllerMetrics, GuardOutcome};
use crate::verify::Admitted;

/// Pods remembered. When full, those with nothing left to write are forgotten, which only means that their next report is
/// written whole; if all wait to be written, further ones are told to report later.
const PODS_MAX: usize = 16_384;
/// Shortest time between two pods, so that a burst of reports does not become a burst of writes to the API server.
const SPACING: Duration = Duration::from_millis(50);
/// What a pod that holds something costs to delete; pods without the annotation cost 0.
const COST: &str = "1000";

/// One mark: who sets it, and what.
struct Mark {
    manager: &'static str,
    annotation: &'static str,
    value: &'static str,
}

const DELETION_COST: Mark = Mark {
    manager: "zipline-deletion-cost",
    annotation: "controller.kubernetes.io/pod-deletion-cost",
    value: COST,
};
const GUARDS: [Mark; 2] = [
    Mark {
        manager: "zipline-safe-to-evict",
        annotation: "cluster-autoscaler.kubernetes.io/safe-to-evict",
        value: "false",
    },
    Mark { manager: "zipline-do-not-disrupt", annotation: "karpenter.sh/do-not-disrupt", value: "true" },
];

/// A pod, told apart from others that had its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    namespace: String,
    pod: String,
    uid: String,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    wanted: Holding,
    /// What was last written; `None` if nothing was, or by another replica.
    written: Option<Holding>,
    /// Not to be looked at before.
    due: Instant,
    queued: bool,
}

#[derive(Debug, Default)]
struct Pending {
    entries: HashMap<Key, Entry>,
    queue: BinaryHeap<Reverse<(Instant, Key)>>,
}

/// There is no room to remember another pod.
#[derive(Debug, thiserror::Error)]
#[error("{PODS_MAX} pods hold payloads already, more are not marked")]
pub struct Full;

/// What pods hold, and what has been written about it.
#[derive(Debug, Default)]
pub struct Guards {
    pending: Mutex<Pending>,
    changed: Notify,
}

impl Guards {
    /// No pod holds anything, as far as is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a report of a pod. It is written soon, or never if a later one says otherwise.
    ///
    /// # Errors
    /// [`Full`].
    pub fn report(&self, pod: &Admitted, holding: Holding) -> Result<(), Full> {
        let key = Key { namespace: pod.namespace.clone(), pod: pod.pod.clone(), uid: pod.uid.clone() };
        let now = Instant::now();
        let mut pending = self.pending.lock();
        if pending.entries.len() >= PODS_MAX && !pending.entries.contains_key(&key) {
            pending.entries.retain(|_, entry| entry.queued);
            if pending.entries.len() >= PODS_MAX {
                return Err(Full);
            }
        }
        let entry = pending.entries.entry(key.clone()).or_insert(Entry {
            wanted: holding,
            written: None,
            due: now,
            queued: false,
        });
        entry.wanted = holding;
        if !entry.queued {
            entry.queued = true;
            let due = entry.due.max(now);
            pending.queue.push(Reverse((due, key)));
            drop(pending);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Writes what was reported, for ever.
    pub async fn run(&self, kubernetes: Kubernetes, metrics: ControllerMetrics) {
        loop {
            let next = self.pending.lock().queue.peek().map(|Reverse((due, _))| *due);
            match next {
                None => self.changed.notified().await,
                Some(due) if due > Instant::now() => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.changed.notified() => {}
                },
                Some(_) => {
                    if let Some((key, entry)) = self.take() {
                        let outcome = write(&kubernetes, &metrics, &key, entry).await;
                        self.written(&key, entry.wanted, outcome);
                        tokio::time::sleep(SPACING).await;
                    }
                }
            }
        }
    }

    /// The next pod to write about; its time to wait begins.
    fn take(&self) -> Option<(Key, Entry)> {
        let mut pending = self.pending.lock();
        let Reverse((_, key)) = pending.queue.pop()?;
        let entry = pending.entries.get_mut(&key)?;
        entry.queued = false;
        entry.due = Instant::now() + HOLDING_PAUSE;
        let taken = *entry;
        (taken.written != Some(taken.wanted)).then_some((key, taken))
    }

    /// Takes what came of it. What failed is tried again after the pause.
    fn written(&self, key: &Key, holding: Holding, outcome: GuardOutcome) {
        let mut pending = self.pending.lock();
        let Some(entry) = pending.entries.get_mut(key) else { return };
        if outcome == GuardOutcome::Failed {
            entry.written = None;
            if !entry.queued {
                entry.queued = true;
                let due = entry.due;
                pending.queue.push(Reverse((due, key.clone())));
            }
            return;
        }
        entry.written = Some(holding);
        if outcome == GuardOutcome::PodGone
            || (holding == Holding::Nothing && entry.wanted == Holding::Nothing && !entry.queued)
        {
            pending.entries.remove(key);
        }
    }
}

/// Sets and removes the marks of one pod; gives the worst that came of it.
async fn write(
    kubernetes: &Kubernetes,
    metrics: &ControllerMetrics,
    key: &Key,
    entry: Entry,
) -> GuardOutcome {
    let cost_before = entry.written.map(|holding| holding > Holding::Nothing);
    let cost = entry.wanted > Holding::Nothing;
    let mut marks = Vec::with_capacity(3);
    if cost_before != Some(cost) {
        marks.push((&DELETION_COST, cost));
    }
    let guarded = match entry.wanted {
        Holding::Nothing => Some(false),
        Holding::Some => None,
        Holding::Much => Some(true),
    };
    if let Some(guarded) = guarded {
        marks.extend(GUARDS.iter().map(|mark| (mark, guarded)));
    }
    let mut worst = GuardOutcome::Written;
    for (mark, set) in marks {
        match apply(kubernetes, metrics, key, mark, set).await {
            GuardOutcome::PodGone => return GuardOutcome::PodGone,
            GuardOutcome::Failed => worst = GuardOutcome::Failed,
            GuardOutcome::Written | GuardOutcome::LeftAlone => {}
        }
    }
    worst
}

async fn apply(
    kubernetes: &Kubernetes,
    metrics: &ControllerMetrics,
    key: &Key,
    mark: &Mark,
    set: bool,
) -> GuardOutcome {
    let Key { namespace, pod, uid } = key;
    let annotations = match set {
        true => serde_json::json!({mark.annotation: mark.value}),
        false => serde_json::json!({}),
    };
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        // With its UID an apply never creates a pod, and never marks another one of this name.
        "metadata": {"name": pod, "namespace": namespace, "uid": uid, "annotations": annotations},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
    let outcome = match kubernetes.apply(&path, mark.manager, &object).await {
        Ok(()) => {
            tracing::info!(namespace, pod, annotation = mark.annotation, set, "marked");
            GuardOutcome::Written
        }
        Err(error) if error.is_not_found() => GuardOutcome::PodGone,
        Err(error) if error.is_conflict() => {
            tracing::info!(namespace, pod, annotation = mark.annotation, %error, "somebody else's, left alone");
            GuardOutcome::LeftAlone
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(namespace, pod, annotation = mark.annotation, error, "not marked");
            GuardOutcome::Failed
        }
    };
    metrics.guard(outcome);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use zipline_protocol::Mode;

    fn pod(name: &str) -> Admitted {
        Admitted {
            namespace: "shop".into(),
            pod: name.into(),
            uid: "u".into(),
            account: "default".into(),
            revision: "r".into(),
            node: String::new(),
            mode: Mode::On,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_report_wins_and_the_pause_is_kept() {
        let guards = Guards::new();
        guards.report(&pod("a"), Holding::Some).unwrap();
        guards.report(&pod("a"), Holding::Much).unwrap();
        let (key, entry) = guards.take().unwrap();
        assert_eq!((entry.wanted, entry.written), (Holding::Much, None));
        guards.written(&key, entry.wanted, GuardOutcome::Written);
        // Within the pause it waits; back where it was, there is nothing to write.
        guards.report(&pod("a"), Holding::Some).unwrap();
        let due = guards.pending.lock().queue.peek().unwrap().0.0;
        assert_eq!(due, Instant::now() + HOLDING_PAUSE);
        guards.report(&pod("a"), Holding::Much).unwrap();
        assert!(guards.take().is_none());
        guards.report(&pod("a"), Holding::Nothing).unwrap();
        let (key, entry) = guards.take().unwrap();
        guards.written(&key, entry.wanted, GuardOutcome::Written);
        assert!(guards.pending.lock().entries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_tried_again_after_the_pause() {
        let guards = Guards::new();
        guards.report(&pod("a"), Holding::Some).unwrap();
        let (key, entry) = guards.take().unwrap();
        guards.written(&key, entry.wanted, GuardOutcome::Failed);
        let due = guards.pending.lock().queue.peek().unwrap().0.0;
        assert_eq!(due, Instant::now() + HOLDING_PAUSE);
        assert_eq!(guards.take().unwrap().1.wanted, Holding::Some);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let guards = Guards::new();
        for number in 0..PODS_MAX {
            guards.report(&pod(&number.to_string()), Holding::Some).unwrap();
        }
        assert!(guards.report(&pod("more"), Holding::Some).is_err());
        assert!(guards.report(&pod("0"), Holding::Nothing).is_ok());
        // One that was written makes room, though its pod may still hold something.
        let (key, entry) = guards.take().unwrap();
        guards.written(&key, entry.wanted, GuardOutcome::Written);
        assert!(guards.report(&pod("more"), Holding::Some).is_ok());
    }
}
