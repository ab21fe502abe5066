//! Owns the tasks of one fake: they end when it is dropped.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// Spawns tasks that [`Owner`] aborts. Tasks may hold it without keeping themselves alive.
#[derive(Debug, Clone, Default)]
pub struct Spawner(Arc<Mutex<JoinSet<()>>>);

impl Spawner {
    /// Starts `task`; finished ones are forgotten on the way, so that the set stays as small as what runs.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// How many tasks run.
    #[must_use]
    pub fn running(&self) -> usize {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }
}

/// Aborts every task of its [`Spawner`] when dropped.
#[derive(Debug, Default)]
pub struct Owner(Spawner);

impl Owner {
    /// A handle for spawning.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.0.clone()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.0.lock().abort_all();
    }
}
