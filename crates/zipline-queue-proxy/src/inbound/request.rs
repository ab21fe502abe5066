//! A request on its way to the function: ordinary, or deferred and restored (protocol, section 5.2).

use std::sync::{Arc, OnceLock};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request};
use tokio::time::timeout;
use zipline_http::Body;
use zipline_protocol::limits::{PROGRESS_TIMEOUT, REFERENCE_MAX};
use zipline_protocol::{PayloadId, Record, ReferenceKind, ReferenceText, Way, user_agent};

use super::Refusal;
use crate::breaker::Slot;
use crate::edges::Zones;
use crate::failure::Failure;
use crate::retrieve::{BrokenOff, Retrieving};
use crate::state::Shared;

/// A request whose reference, if it has one, was opened.
#[derive(Debug)]
pub(super) struct Incoming {
    request: Request<Body>,
    deferred: Option<Record>,
}

/// Tells whether the payload broke off after the function had started.
#[derive(Debug, Clone, Default)]
pub(super) struct Broken(Arc<OnceLock<BrokenOff>>);

impl Broken {
    /// How it broke off, if it did.
    pub(super) fn get(&self) -> Option<&BrokenOff> {
        self.0.get()
    }
}

/// Opens the reference of a deferred request and restores its headers.
///
/// # Errors
/// What is wrong, for the sender, who is to send the payload inline. The function has not run.
pub(super) async fn open(shared: &Shared, request: Request<Body>) -> Result<Incoming, String> {
    let (mut parts, body) = request.into_parts();
    let text = timeout(PROGRESS_TIMEOUT, body.collect_up_to(REFERENCE_MAX))
        .await
        .map_err(|_| format!("the reference did not arrive within {} s", PROGRESS_TIMEOUT.as_secs()))?
        .map_err(|error| format!("the reference could not be read: {error}"))?;
    let text =
        std::str::from_utf8(&text).map_err(|_| "the body is no reference: it is not text".to_owned())?;
    let text = ReferenceText::parse(text).map_err(|error| format!("the body is no reference: {error}"))?;
    let record = shared.keyring.open_reference_waiting(&text, ReferenceKind::Request).await;
    let record = record.map_err(|error| format!("the reference could not be opened: {error}"))?;
    parts.headers.remove(CONTENT_TYPE);
    parts.headers.remove(CONTENT_LENGTH);
    if let Some(value) = record.content_type.as_deref().and_then(|value| HeaderValue::from_bytes(value).ok())
    {
        parts.headers.insert(CONTENT_TYPE, value);
    }
    if let Some(length) = record.length {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let agent = parts.headers.remove(USER_AGENT);
    let original = match agent.as_ref().and_then(|agent| user_agent::restore(agent.as_bytes())) {
        Some(original) => original.and_then(|original| HeaderValue::from_bytes(original).ok()),
        None => agent,
    };
    if let Some(original) = original {
        parts.headers.insert(USER_AGENT, original);
    }
    Ok(Incoming { request: Request::from_parts(parts, Body::empty()), deferred: Some(record) })
}

impl Incoming {
    /// A request that carries its payload, or none.
    pub(super) fn ordinary(request: Request<Body>) -> Self {
        Self { request, deferred: None }
    }

    /// The request's headers, restored.
    pub(super) fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The request's method.
    pub(super) fn method(&self) -> &http::Method {
        self.request.method()
    }

    /// The payload of a deferred request.
    pub(super) fn payload(&self) -> Option<PayloadId> {
        self.deferred.as_ref().map(|record| record.payload)
    }

    /// How its payload travels.
    pub(super) fn way(&self) -> Way {
        if self.deferred.is_some() { Way::Network } else { Way::Inline }
    }

    /// How the zone of its payload's holder stands to ours.
    pub(super) fn zones(&self, shared: &Shared) -> Zones {
        self.deferred.as_ref().map_or(Zones::Unknown, |record| shared.zones(&record.zone))
    }

    /// Waits for the gate while the payload's first bytes are retrieved; gives the request as the function is to see it.
    ///
    /// # Errors
    /// [`Refusal::ResendInline`] if the retrieval failed: the function has not run. Otherwise the gate's failure.
    pub(super) async fn when(
        self,
        gate: impl Future<Output = Result<Slot, Failure>>,
        shared: &Arc<Shared>,
    ) -> Result<(Request<Body>, Slot, Broken), Refusal> {
        match self.deferred {
            None => Ok((self.request, gate.await?, Broken::default())),
            // On the heap: few requests need its room.
            Some(record) => Box::pin(restored(self.request, record, gate, shared)).await,
        }
    }
}

async fn restored(
    request: Request<Body>,
    record: Record,
    gate: impl Future<Output = Result<Slot, Failure>>,
    shared: &Arc<Shared>,
) -> Result<(Request<Body>, Slot, Broken), Refusal> {
    let broken = Broken::default();
    let resend =
        |error: BrokenOff| Refusal::ResendInline(format!("the payload could not be retrieved: {error}"));
    tokio::pin!(gate);
    let start = Retrieving::start(shared, &record);
    tokio::pin!(start);
    let (mut retrieving, mut slot) = tokio::select! {
        started = &mut start => (started.map_err(resend)?, None),
        slot = &mut gate => {
            let slot = slot?;
            (start.await.map_err(resend)?, Some(slot))
        }
    };
    while slot.is_none() || !retrieving.has_begun() {
        tokio::select! {
            got = &mut gate, if slot.is_none() => slot = Some(got?),
            read = retrieving.read_ahead(), if !retrieving.is_full() => read.map_err(resend)?,
        }
    }
    let slot = slot.expect("the loop ends only with a slot");
    let told = broken.clone();
    let body = retrieving.into_body(move |error| {
        // Only the first failure counts; a body fails once.
        let _ = told.0.set(error);
    });
    Ok((request.map(|_| body), slot, broken))
}
