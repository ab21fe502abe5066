//! What threads meet at, as the model checker sees it.
//!
//! Locks, atomics, counted references and threads are loom's. What is tokio's stays tokio's, whose own models check its inside:
//! each call is one step of the model ([`Seen`]), and steps on the same thing are tried in every order. The clock stands still
//! until a model moves it.
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc as StdArc;
use std::task::{Context, Poll};

use loom::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use loom::sync::{Arc, atomic};
pub(crate) use loom::thread;
use tokio::sync as real;
use tokio::sync::futures::OwnedNotified as RealNotified;

pub(crate) mod oneshot;
pub(crate) mod time;

/// Shows steps to the model checker that it does not see by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps(StdArc<AtomicUsize>);

impl Steps {
    /// A step is about to be made.
    fn step(&self) {
        // When a check has failed, threads unwind without the model checker.
        if !std::thread::panicking() {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// A part of something whose steps are shown; letting it go is one.
#[derive(Debug)]
pub(crate) struct Seen<T> {
    inner: T,
    steps: Steps,
}

impl<T> Drop for Seen<T> {
    fn drop(&mut self) {
        self.steps.step();
    }
}

impl<F: Future> Future for Seen<Pin<Box<F>>> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        this.steps.step();
        this.inner.as_mut().poll(context)
    }
}

/// parking_lot's. Loom's own mutex prints a line whenever it is locked; its other lock does not.
#[derive(Default)]
pub(crate) struct Mutex<T>(loom::sync::RwLock<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::RwLock::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
        self.0.write().expect("loom knows no poison")
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("loom knows no poison")
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    inner: std::sync::OnceLock<T>,
    steps: Steps,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { inner: std::sync::OnceLock::new(), steps: Steps::default() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.steps.step();
        self.inner.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.steps.step();
        self.inner.set(value)
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        self.steps.step();
        self.inner.get_or_init(init)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Notify {
    inner: StdArc<real::Notify>,
    steps: Steps,
}

pub(crate) type OwnedNotified = Seen<Pin<Box<RealNotified>>>;

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_one(&self) {
        self.steps.step();
        self.inner.notify_one();
    }

    pub(crate) fn notify_waiters(&self) {
        self.steps.step();
        self.inner.notify_waiters();
    }

    pub(crate) fn notified(&self) -> OwnedNotified {
        self.steps.step();
        let inner = Box::pin(StdArc::clone(&self.inner).notified_owned());
        Seen { inner, steps: self.steps.clone() }
    }

    pub(crate) fn notified_owned(self: StdArc<Self>) -> OwnedNotified {
        self.notified()
    }
}

impl OwnedNotified {
    pub(crate) fn enable(self: Pin<&mut Self>) -> bool {
        let this = self.get_mut();
        this.steps.step();
        this.inner.as_mut().enable()
    }
}

#[derive(Debug)]
pub(crate) struct Semaphore {
    inner: StdArc<real::Semaphore>,
    steps: Steps,
}

pub(crate) type OwnedSemaphorePermit = Seen<real::OwnedSemaphorePermit>;

impl Semaphore {
    pub(crate) const MAX_PERMITS: usize = real::Semaphore::MAX_PERMITS;

    pub(crate) fn new(permits: usize) -> Self {
        Self { inner: StdArc::new(real::Semaphore::new(permits)), steps: Steps::default() }
    }

    pub(crate) fn available_permits(&self) -> usize {
        self.steps.step();
        self.inner.available_permits()
    }

    pub(crate) fn try_acquire_many_owned(
        self: StdArc<Self>,
        count: u32,
    ) -> Result<OwnedSemaphorePermit, real::TryAcquireError> {
        self.steps.step();
        let inner = StdArc::clone(&self.inner).try_acquire_many_owned(count)?;
        Ok(Seen { inner, steps: self.steps.clone() })
    }

    pub(crate) async fn acquire_many_owned(
        self: StdArc<Self>,
        count: u32,
    ) -> Result<OwnedSemaphorePermit, real::AcquireError> {
        let acquiring = Box::pin(StdArc::clone(&self.inner).acquire_many_owned(count));
        let inner = Seen { inner: acquiring, steps: self.steps.clone() }.await?;
        Ok(Seen { inner, steps: self.steps.clone() })
    }
}
