//! Header maps that have done their work, for the next requests of this thread: making one anew costs two allocations, and
//! idle connections should not keep any.

use http::HeaderMap;
use std::cell::RefCell;

/// Most maps that are kept.
const KEPT: usize = 32;
/// Larger ones are let go, in fields.
const FIELDS_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map.
pub(crate) fn take() -> HeaderMap {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a map back.
pub(crate) fn give(mut headers: HeaderMap) {
    if headers.capacity() == 0 || headers.capacity() > FIELDS_MAX {
        return;
    }
    headers.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(headers);
        }
    });
}
