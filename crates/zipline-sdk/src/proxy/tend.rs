//! Looks after the memory of a connection that nobody uses just now: what threads left unread is read, what is idle given back.
//!
//! A thread of its own, on no payload's way: it exists only while there is such memory.

use std::sync::Weak;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::link::Link;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);

/// Starts it. Without it (no thread can be made) memory is given back at the end of the connection.
pub(super) fn start(link: Weak<Link>) {
    let tending = move || {
        let (never, bell) = (Mutex::new(()), Condvar::new());
        loop {
            bell.wait_for(&mut never.lock(), EVERY);
            let Some(link) = link.upgrade() else { return };
            link.read_if_idle();
            if !link.tend() {
                return;
            }
        }
    };
    let started = std::thread::Builder::new().name("zipline-sdk".to_owned()).spawn(tending);
    drop(started);
}
