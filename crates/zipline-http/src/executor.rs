//! Runs what hyper wants spawned inside the connection's own task, so that everything of a connection has one owner and
//! ends with it.

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Collects futures; clones share the collection. It holds what one connection has in flight, so the bound is the
/// connection's stream limit.
#[derive(Clone, Default)]
pub(crate) struct Spawned {
    new: Arc<Mutex<Vec<Task>>>,
}

impl<F> Executor<F> for Spawned
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.new.lock().push(Box::pin(future));
    }
}

/// A connection together with what it spawned.
pub(crate) struct WithSpawned<C> {
    connection: C,
    spawned: Spawned,
    running: FuturesUnordered<Task>,
}

impl<C> WithSpawned<C> {
    /// `spawned` must be the executor that `connection` was built with.
    pub(crate) fn new(connection: C, spawned: Spawned) -> Self {
        Self { connection, spawned, running: FuturesUnordered::new() }
    }

    pub(crate) fn connection(&mut self) -> &mut C {
        &mut self.connection
    }

    fn take_new(&mut self) -> bool {
        let new = std::mem::take(&mut *self.spawned.new.lock());
        let some = !new.is_empty();
        self.running.extend(new);
        some
    }

    /// Lets go of the connection and runs what it spawned to its end. hyper's client keeps the socket's side of a
    /// connection there, which ends when the streams are over and the connection was dropped.
    pub(crate) async fn finish(self) {
        let Self { connection, spawned, running } = self;
        drop(connection);
        let mut rest = WithSpawned { connection: (), spawned, running };
        poll_fn(|cx| if rest.poll_running(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Polls the spawned futures; `true` when none is left.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            self.take_new();
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) => {
                    if !self.take_new() {
                        return true;
                    }
                }
                // What a future spawned while it was polled must be polled once, or nothing wakes it.
                Poll::Pending => {
                    if !self.take_new() {
                        return false;
                    }
                }
            }
        }
    }

    /// Polls connection and spawned futures; ready with the connection's result.
    pub(crate) fn poll_both<T>(&mut self, cx: &mut Context<'_>) -> Poll<T>
    where
        C: Future<Output = T> + Unpin,
    {
        let result = Pin::new(&mut self.connection).poll(cx);
        self.poll_running(cx);
        result
    }
}
