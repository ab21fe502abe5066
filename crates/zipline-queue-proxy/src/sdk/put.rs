//! Puts of an SDK.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zipline_buffer::{Complete, PayloadGuard};
use zipline_protocol::sdk::BoundedBy;
use zipline_protocol::{PayloadId, ReferenceText};
use zipline_segment::SegmentBytes;

use super::issue::Terms;
use crate::api::Refusal;
use crate::api::put::{Sealing, keep, seal, spec};
use crate::state::Shared;

/// A put that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) ttl: Duration,
    pub(super) bounded_by: BoundedBy,
    /// `None`: it was issued before.
    pub(super) reference: Option<ReferenceText>,
}

/// What is put with which id: a new one, or one that was issued with these terms.
#[derive(Debug)]
pub(super) struct Putting {
    pub(super) id: PayloadId,
    pub(super) issued: bool,
    pub(super) terms: Terms,
}

/// Puts bytes that came in their frame; waits for memory.
pub(super) async fn inline(shared: Arc<Shared>, putting: Putting, bytes: Bytes) -> Result<Taken, Refusal> {
    let begun = shared.store.begin(spec(putting.id, Some(bytes.len() as u64), putting.terms.query)).await;
    let (mut writer, guard) = begun.map_err(|error| refused(error.code(), &error))?;
    writer.write(bytes).await.map_err(|error| refused(error.code(), &error))?;
    let complete = writer.finish(Vec::new()).map_err(|error| refused(error.code(), &error))?;
    taken(&shared, putting, complete, guard)
}

/// Puts bytes in an outgoing segment, whose memory was granted before.
pub(super) fn segment(shared: &Shared, putting: Putting, bytes: SegmentBytes) -> Result<Taken, Refusal> {
    let spec = spec(putting.id, Some(bytes.len() as u64), putting.terms.query);
    let adopted = shared.store.adopt(spec, bytes);
    let (complete, guard) = adopted.map_err(|error| refused(error.code(), &error))?;
    taken(shared, putting, complete, guard)
}

fn taken(
    shared: &Shared,
    putting: Putting,
    complete: Complete,
    guard: PayloadGuard,
) -> Result<Taken, Refusal> {
    let Putting { id, issued, terms: Terms { query, content_type } } = putting;
    let kept = keep(guard, query);
    let reference = if issued {
        None
    } else {
        let sealing =
            Sealing { id, complete: Some(complete), expires_at: kept.expires_at, query, content_type };
        Some(seal(shared, sealing).inspect_err(|_| {
            // Nobody could ever name the payload. It is there for sure: nobody knew of it.
            let _ = shared.store.release(&id);
        })?)
    };
    Ok(Taken { ttl: kept.ttl, bounded_by: kept.bounded_by, reference })
}

fn refused(code: zipline_protocol::ErrorCode, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(code, format_args!("nothing was put: {error}"))
}
