//! The memory payloads lie in: anonymous files that are mapped once and passed on by descriptor.
//!
//! - [`Mapping`]: one such file and its pages; made here, or adopted from another process.
//! - [`SegmentMut`]: the right to write a part of a mapping. Rights can be split and never overlap.
//! - [`SegmentBytes`]: bytes that were written and do not change any more, with the [`Place`] they lie at, so that a kernel
//!   call can send them without touching them.
//! - [`Conduit`]: from a socket into memory that was not written yet.
//! - [`Queued`]: pages that a socket has, which are not written again before the peer has read them.
//! - [`Home`]: where a mapping goes when nobody has a part of it any more.
//! - [`passing`]: descriptors over Unix sockets.
//!
//! A mapping of this process's own is never zeroed: its bytes are the kernel's zeros or those of an earlier payload.
//! Readers see only what was frozen, which is only what was written.
//!
//! This crate has the only code that maps memory, and all of it is in `mapping` and `handles`. Under Miri a mapping is
//! ordinary memory (`mapping/modelled.rs`), so that all that is done with its bytes can be checked:
//! `cargo +nightly miri test -p zipline-segment`. So it is under `cfg(loom)`, where every order of what threads do is tried
//! (`make models`, `docs/adr/0030`).

mod fresh;
mod handles;
mod mapping;
pub mod passing;
mod sync;

pub use fresh::Conduit;
pub use handles::{Home, Place, SegmentBytes, SegmentMut};
#[cfg(loom)]
pub use mapping::Pages;
pub use mapping::{Access, AdoptError, HugePages, Mapping, Queued};

/// Bytes of one page: what the kernel charges and frees at a time.
pub const PAGE: usize = 4096;
