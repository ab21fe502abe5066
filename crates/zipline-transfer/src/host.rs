//! Payloads of a holder on the same machine (`docs/protocol.md` section 9): their memory is passed in place of their bytes.
//!
//! - [`HostPort`]: the holder's side. Proof, lease and counts are those of the data port; what leaves is a descriptor that
//!   nobody can write through.
//! - [`Neighbours`]: the receiver's side. Finds the holder's socket by its boot id; where there is none, the network is asked.
//!
//! What each side keeps is bounded: [`CONNECTIONS_MAX`] connections of a holder, [`SHARES_MAX`] shares of each, one frame of
//! buffer.

mod frames;
mod link;
mod neighbours;
mod port;
mod serve;

pub use neighbours::{Neighbours, Receipt, Shared, SharedBytes};
pub use port::{HostPort, HostPortError};

/// Connections a holder serves at a time; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// Shares of one connection that were not returned; a further one is refused: `buffer-full`.
pub const SHARES_MAX: usize = 4096;
/// Connections to one holder. Asks that wait occupy one each, and share the last.
pub const LINKS_MAX: usize = 8;
