//! A client's connection to its queue-proxy (`docs/protocol.md` section 8).
//!
//! One socket carries all requests of a client. `link` holds what both sides know and moves frames; `wait` is how threads
//! wait on it, `task` how tasks do; `many` is a get of many payloads; `segments` is the outgoing memory, `mappings` what was shown;
//! `tend` gives back what is idle.

mod input;
mod link;
mod many;
mod mappings;
mod segments;
mod socket;
mod state;
#[cfg(feature = "tokio")]
mod task;
mod tend;
mod wait;

pub(crate) use link::{Ahead, Link};
pub(crate) use many::{Came, Many};
pub(crate) use segments::Outgoing;
pub(crate) use socket::TICK;
pub(crate) use state::{Issued, Reply};
pub(crate) use wait::Waiting;
