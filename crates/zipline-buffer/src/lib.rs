//! Payload memory of one holder: who may occupy how much of it, for how long, and who may read it.
//!
//! Three parts. `ledger` is a pure state machine that decides (budget, waiters, payload and lease states, expiry;
//! `docs/protocol.md` sections 6.4 and 6.5); `block` is the memory itself, accounted until its last byte is let go;
//! [`Store`] is the asynchronous face over both. [`InFlight`] is the second budget of a process: bytes passing through;
//! [`Recycler`] gives those the same few buffers again and again, and a [`Shelf`] keeps segments warm for what has to lie in one
//! piece.
//!
//! Nothing here spawns tasks. The owner of a [`Store`] drives [`Store::run_expiry`]. Only pages are made by threads of their own
//! (`pages`), each of which makes one mapping and ends.
#![forbid(unsafe_code)]

mod block;
mod config;
mod content;
mod error;
mod in_flight;
mod ledger;
#[cfg(test)]
#[cfg(loom)]
mod models;
mod pages;
mod piece;
mod prepared;
mod recycle;
#[cfg(test)]
mod samples;
mod shelf;
mod store;
mod sync;

pub use config::{
    Complete, Delivered, Expiry, ExpiryBound, LeaseRequest, PayloadInfo, PayloadPhase, Settled, Snapshot,
    Spec, StoreConfig,
};
pub use error::{AckError, BeginError, Gone, InFlightError, LeaseError, ReadError, ReleaseError, WriteError};
pub use in_flight::{InFlight, Permit};
pub use piece::{Piece, Spare};
pub use recycle::{Passage, Recycler};
pub use shelf::Shelf;
pub use store::{Charge, CopyWriter, Expected, PayloadGuard, PayloadReader, PayloadWriter, Store};
