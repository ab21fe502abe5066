//! Assembled tests: the real `zipline` and `zipline-queue-proxy`, between fakes that can misbehave.
#![forbid(unsafe_code)]

mod bench;
mod broadcast;
mod deferred;
mod engine;
mod fakes;
mod faults;
mod holder;
mod host;
mod layers;
mod limits;
mod load;
mod local_api;
mod matrix;
mod openapi;
mod references;
mod sdk;
mod sdk_invoke;
mod sdk_stream;
mod sizes;
mod takeaway;
mod tls;
