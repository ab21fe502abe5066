use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::supervised::Supervised;

/// The owner of tasks: every task of a process is spawned through one, so that ending the owner ends the task.
///
/// Clones are the same owner. A [`child`](Self::child) is an owner of its own that ends with its parent. When the last clone
/// is dropped the tasks that still run are aborted; a task that holds a clone of its own owner keeps itself alive until
/// [`shutdown`](Self::shutdown). The set itself is not bounded: whoever spawns per connection or request bounds those.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    tracker: TaskTracker,
    /// Trackers of the parents: they wait for the tasks of their children as well.
    parents: Vec<TaskTracker>,
    /// Asks tasks to end by themselves.
    stop: CancellationToken,
    /// Drops the futures of tasks that did not.
    abort: CancellationToken,
    panics: Arc<AtomicU64>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abort.cancel();
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An owner without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                tracker: TaskTracker::new(),
                parents: Vec::new(),
                stop: CancellationToken::new(),
                abort: CancellationToken::new(),
                panics: Arc::default(),
            }),
        }
    }

    /// An owner that is asked to stop, waited for and aborted together with this one, and can end before it. It counts
    /// panics together with this one.
    #[must_use]
    pub fn child(&self) -> Self {
        let mut parents = self.shared.parents.clone();
        parents.push(self.shared.tracker.clone());
        Self {
            shared: Arc::new(Shared {
                tracker: TaskTracker::new(),
                parents,
                stop: self.shared.stop.child_token(),
                abort: self.shared.abort.child_token(),
                panics: Arc::clone(&self.shared.panics),
            }),
        }
    }

    /// Runs `future` as a task of this owner. Dropping what is returned leaves it running. A panic is logged once, counted
    /// ([`panics`](Self::panics)) and ends this task only. A task spawned after the owner was aborted never runs.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let shared = &self.shared;
        let abort = shared.abort.clone();
        let held: Vec<TaskTrackerToken> =
            shared.parents.iter().chain([&shared.tracker]).map(TaskTracker::token).collect();
        let supervised = Supervised::new(name, Arc::clone(&shared.panics), future);
        let run = async move {
            let ended = tokio::select! {
                biased;
                () = abort.cancelled() => Err(TaskEnded::Aborted),
                output = supervised => output.ok_or(TaskEnded::Panicked),
            };
            drop(held);
            ended
        };
        #[expect(clippy::disallowed_methods, reason = "this is the owner that the rule asks for")]
        let handle = tokio::spawn(run.instrument(tracing::debug_span!("task", name)));
        Task { handle }
    }

    /// As [`spawn`](Self::spawn), for a task that ends when what is returned is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use = "dropping it ends the task"]
    pub fn spawn_owned<F>(&self, name: &'static str, future: F) -> AbortOnDrop
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn(name, future).abort_on_drop()
    }

    /// The token that asks this owner's tasks to end; they watch it.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Asks the tasks of this owner and of its children to end, and does not wait.
    pub fn cancel(&self) {
        self.shared.stop.cancel();
    }

    /// Waits until no task is left; with tasks still being spawned, possibly for ever.
    ///
    /// # Cancel safety
    /// Safe, nothing changes.
    pub async fn idle(&self) {
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    /// Asks every task to end, waits up to `grace`, aborts the rest and waits until their futures are dropped. Gives how many
    /// had to be aborted, children's included.
    ///
    /// # Cancel safety
    /// Dropped early, tasks stay asked to end and are not aborted.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.cancel();
        if tokio::time::timeout(grace, self.idle()).await.is_ok() {
            return 0;
        }
        let left = self.len();
        self.shared.abort.cancel();
        self.idle().await;
        left
    }

    /// Tasks that have not ended, children's included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.tracker.len()
    }

    /// Whether every task has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.tracker.is_empty()
    }

    /// Tasks that ended in a panic, over the whole family of parents and children.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("len", &self.len())
            .field("stopping", &self.shared.stop.is_cancelled())
            .finish()
    }
}

/// Why a task gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskEnded {
    /// It panicked.
    #[error("the task panicked")]
    Panicked,
    /// It, or its owner, was aborted.
    #[error("the task was aborted")]
    Aborted,
}

/// A task that runs. Awaiting it gives its output; dropping it leaves it to its owner.
#[derive(Debug)]
pub struct Task<T> {
    handle: JoinHandle<Result<T, TaskEnded>>,
}

impl<T> Task<T> {
    /// Ends it at its next await.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Ties its life to a value.
    #[must_use = "dropping it ends the task"]
    pub fn abort_on_drop(self) -> AbortOnDrop {
        AbortOnDrop(self.handle.abort_handle())
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskEnded>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The future itself cannot panic, it catches; what tokio reports is an abort, or a runtime that ended.
        Pin::new(&mut self.handle).poll(context).map(|joined| joined.unwrap_or(Err(TaskEnded::Aborted)))
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
