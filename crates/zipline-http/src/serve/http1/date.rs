//! `Date`, written once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

thread_local! {
    static NOW: RefCell<Option<(Duration, String)>> = const { RefCell::new(None) };
}

/// Gives the time of now, as the field has it.
pub(super) fn with<T>(use_it: impl FnOnce(&[u8]) -> T) -> T {
    let now = SystemTime::now();
    // Before 1970 no clock is right.
    let second = Duration::from_secs(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    NOW.with_borrow_mut(|written| match written {
        Some((of, text)) if *of == second => use_it(text.as_bytes()),
        other => {
            let (_, text) = other.insert((second, httpdate::fmt_http_date(now)));
            use_it(text.as_bytes())
        }
    })
}
