//! Assembled tests: the real `zipline` and `zipline-queue-proxy`, between fakes that can misbehave.
#![forbid(unsafe_code)]

mod deferred;
mod faults;
mod layers;
mod limits;
mod load;
mod local_api;
mod matrix;
mod references;
mod sizes;
mod takeaway;
