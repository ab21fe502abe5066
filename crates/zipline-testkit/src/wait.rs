//! Waiting for a condition of another process.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// Longest a test waits for anything; a bound against hanging, never an assertion about speed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `condition` again and again until it answers `Ok(Some(value))`.
///
/// # Errors
/// What the condition said last, once `PATIENCE` is over.
pub async fn until<T, F>(what: &str, mut condition: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::from("never answered");
    while Instant::now() < deadline {
        match tokio::time::timeout_at(deadline, condition()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => "not yet".clone_into(&mut last),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => break,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("waited {} s for {what}: {last}", PATIENCE.as_secs())
}
