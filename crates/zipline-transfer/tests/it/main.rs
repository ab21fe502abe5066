//! Both sides of the data port against each other, over loopback, with relays that cut, stall and tamper in between.
#![expect(clippy::unwrap_used, reason = "in a test, a step that fails is the test that fails")]

mod body;
mod fetch;
mod host;
mod leases;
mod port;
mod relay;
mod relays;
mod resume;
mod rig;
mod round_trip;
mod slots;
mod tampering;
mod tls;
