//! Pours a body into a payload: long stretches straight from the connection into the payload's memory, the rest with one copy.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::timeout;
use zipline_buffer::{PayloadWriter, WriteError};
use zipline_http::{Body, BodyError};

/// From here on a stretch of a body is read straight into the payload: below it a frame costs less than the bookkeeping.
const DIRECT_MIN: u64 = 64 * 1024;
/// Most that one read brings: readers of the payload get it with the read, and other tasks their turn.
const DIRECT_MAX: usize = 1024 * 1024;

/// What came of a body.
#[derive(Debug)]
pub(crate) enum Poured {
    /// Bytes, which are the payload's now.
    Data,
    Trailers(HeaderMap),
    End,
}

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PourError {
    #[error("its body broke off")]
    Body(#[from] BodyError),
    #[error("it could not be held")]
    Write(#[from] WriteError),
    #[error("its body made no progress for {} s", .0.as_secs())]
    Silent(Duration),
}

/// Pours what comes next, which may take `silence` at most once there is memory for it.
///
/// # Cancel safety
/// If it is dropped half-way the payload is torn, and can only be given up.
pub(crate) async fn pour(
    body: &mut Body,
    writer: &mut PayloadWriter,
    silence: Option<Duration>,
) -> Result<Poured, PourError> {
    let direct = body.direct_bytes();
    if direct >= DIRECT_MIN {
        let most = usize::try_from(direct).unwrap_or(usize::MAX).min(DIRECT_MAX);
        let mut spare = writer.reserve(most).await?;
        let read = within(silence, body.read_into(&mut spare)).await??;
        writer.commit(spare, read)?;
        return Ok(Poured::Data);
    }
    match within(silence, body.data()).await? {
        None => Ok(Poured::End),
        Some(frame) => match frame?.into_data() {
            Ok(data) => {
                writer.write(data).await?;
                Ok(Poured::Data)
            }
            Err(frame) => Ok(Poured::Trailers(frame.into_trailers().unwrap_or_default())),
        },
    }
}

async fn within<T>(silence: Option<Duration>, next: impl Future<Output = T>) -> Result<T, PourError> {
    match silence {
        None => Ok(next.await),
        Some(silence) => timeout(silence, next).await.map_err(|_elapsed| PourError::Silent(silence)),
    }
}
