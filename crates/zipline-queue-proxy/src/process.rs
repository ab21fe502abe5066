//! What the process needs before anything is served, whoever started it.

use anyhow::Context as _;
use zipline_runtime::{harden, limits};

/// Prepares the process, builds a runtime and runs `work` in it.
///
/// # Errors
/// The process cannot keep its memory to itself, no runtime can be built, or what `work` gives.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // Keys come later, so that nobody can have read them from this process before.
    harden::not_dumpable().context("this process cannot keep its memory to itself")?;
    if let Err(error) = limits::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    // One reactor thread: on cores that are shared with the function, a second one costs more than it brings (ADR 1).
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime can be built")?;
    runtime.block_on(work)
}
