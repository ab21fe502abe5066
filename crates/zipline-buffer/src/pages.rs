//! Making memory with its pages before somebody needs it, and out of the way of those who move payloads meanwhile.

use std::io;

use rustix::process::nice;
use zipline_segment::{HugePages, Mapping};

use crate::sync::{oneshot, thread};

/// How far the threads that make pages stand back for others: where all cores are busy, they get about a tenth of one.
const STAND_BACK: i32 = 10;

/// A mapping of `capacity` bytes with its pages, made by a thread of its own. `share`, what they cost of the budget, stays with them
/// also if nobody waits for them any more.
///
/// # Errors
/// What the kernel says: no thread, no descriptor or no memory is left.
/// # Cancel safety
/// Dropping the future makes the thread free what it has made once it has.
pub(crate) async fn make<S: Send + 'static>(
    capacity: usize,
    huge: HugePages,
    share: S,
) -> io::Result<(Mapping, S)> {
    let (made, making) = oneshot::channel();
    thread::Builder::new().name("pages".to_owned()).spawn(move || {
        // On Linux this is about the thread, of which a model has one. Where it is not allowed, it makes pages all the same.
        let _ = if cfg!(loom) { Ok(0) } else { nice(STAND_BACK) };
        let mapping = Mapping::create(capacity, huge).and_then(|mapping| {
            mapping.allocate(0..capacity)?;
            Ok(mapping)
        });
        // Nobody waits any more: both are dropped.
        drop(made.send(mapping.map(|mapping| (mapping, share))));
    })?;
    making.await.map_err(io::Error::other)?
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_made_has_its_pages_and_keeps_its_share() {
        let (mapping, share) = make(3 << 20, HugePages::Off, "share").await.unwrap();
        assert_eq!((mapping.capacity(), mapping.touched_bytes(), share), (3 << 20, 3 << 20, "share"));
    }

    #[tokio::test]
    async fn nobody_else_stands_back() {
        let before = rustix::process::getpriority_process(None).unwrap();
        make(1 << 20, HugePages::Off, ()).await.unwrap();
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    async fn a_share_ends_with_pages_that_nobody_waits_for() {
        let share = std::sync::Arc::new(());
        let making = make(1 << 20, HugePages::Off, std::sync::Arc::clone(&share));
        drop(tokio::time::timeout(std::time::Duration::ZERO, making).await);
        while std::sync::Arc::strong_count(&share) > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(std::sync::Arc::strong_count(&share), 1);
    }
}
