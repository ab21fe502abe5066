//! A future whose panic is caught and counted, and which says whose panic it was while the panic is logged.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

thread_local! {
    static CURRENT: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Name of the task that is being polled on this thread.
pub(crate) fn current() -> Option<&'static str> {
    CURRENT.get()
}

/// Names the task for as long as one poll lasts, also when that poll panics.
struct Named(Option<&'static str>);

impl Named {
    fn enter(name: &'static str) -> Self {
        Self(CURRENT.replace(Some(name)))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

pin_project! {
    /// Resolves to what the future gives, or `None` once it panicked. It must not be polled after that.
    pub(crate) struct Supervised<F> {
        #[pin]
        future: F,
        name: &'static str,
        panics: Arc<AtomicU64>,
    }
}

impl<F> Supervised<F> {
    pub(crate) fn new(name: &'static str, panics: Arc<AtomicU64>, future: F) -> Self {
        Self { future, name, panics }
    }
}

impl<F: Future> Future for Supervised<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let named = Named::enter(this.name);
        // The future is not touched again after a panic, only dropped, so that no half-done state is seen by it.
        let polled = catch_unwind(AssertUnwindSafe(|| this.future.poll(context)));
        drop(named);
        match polled {
            Ok(polled) => polled.map(Some),
            Err(_logged_by_the_panic_hook) => {
                this.panics.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(None)
            }
        }
    }
}
