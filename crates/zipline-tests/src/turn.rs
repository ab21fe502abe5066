//! Bounds how many heavy tests run at a time, however many threads the test runner uses.

use tokio::sync::{Semaphore, SemaphorePermit};

/// All turns there are.
const TURNS: u32 = 4;

static FREE: Semaphore = Semaphore::const_new(TURNS as usize);

/// Waits for a turn of an ordinary test: two or three processes, megabytes.
///
/// # Panics
/// Never: the semaphore is never closed.
pub async fn ordinary() -> SemaphorePermit<'static> {
    FREE.acquire().await.expect("the semaphore is never closed")
}

/// Waits until no other test runs, for tests that need the whole machine.
///
/// # Panics
/// Never: the semaphore is never closed.
pub async fn alone() -> SemaphorePermit<'static> {
    FREE.acquire_many(TURNS).await.expect("the semaphore is never closed")
}
