//! What threads and tasks meet at.
//!
//! Under `cfg(loom)` each of these is the model checker's, or the real one with every use of it shown to the model checker
//! (`modelled`; `docs/adr/0030`). `std::sync::Arc` stays where weak references are needed; the models do not try the orders in
//! which its counts change.

#[cfg(loom)]
mod modelled;

#[cfg(loom)]
pub(crate) use modelled::{
    Arc, Mutex, Notify, OnceLock, OwnedNotified, OwnedSemaphorePermit, Semaphore, atomic, oneshot, thread,
    time,
};
#[cfg(not(loom))]
pub(crate) use {
    parking_lot::Mutex,
    std::sync::{Arc, OnceLock, atomic},
    std::thread,
    tokio::sync::futures::OwnedNotified,
    tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    tokio::time,
};
