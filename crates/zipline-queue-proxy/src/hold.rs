//! Holds the body of a message as a payload for as long as its invocation lasts, and seals the reference to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout};
use zipline_buffer::{PayloadGuard, PayloadReader, PayloadWriter, Settled, Spec, WriteError};
use zipline_http::Body;
use zipline_protocol::limits::{CONTENT_TYPE_MAX, PROGRESS_TIMEOUT};
use zipline_protocol::{
    FunctionName, InlineReason, Nonce, Record, ReferenceKind, ReferenceText, Retrievals, Way,
};
use zipline_runtime::Task;

use crate::edges::{Direction, Zones};
use crate::pour::{PourError, Poured, pour};
use crate::state::{Shared, Transfer};

/// What is to be held.
#[derive(Debug)]
pub(crate) struct Message {
    /// Request or response.
    pub(crate) kind: ReferenceKind,
    /// Its body, of which nothing needs to have been read.
    pub(crate) body: Body,
    /// Its content type, byte for byte.
    pub(crate) content_type: Option<Vec<u8>>,
    /// The nonce a response answers.
    pub(crate) binding: Option<Nonce>,
    /// The function at the other end, where it is known.
    pub(crate) peer: Option<FunctionName>,
}

/// A payload of a running invocation. Dropping it ends the invocation: the payload is freed and its body no longer read. Only
/// one that was received as a whole and is not acknowledged yet stays for that, [`LATE_ACKNOWLEDGEMENT`] at most.
#[derive(Debug)]
pub(crate) struct Held {
    /// The reference to send in the body's place.
    pub(crate) reference: ReferenceText,
    shared: Arc<Shared>,
    guard: Arc<PayloadGuard>,
    filling: Option<Task<()>>,
    filled: Arc<AtomicBool>,
    proven: AtomicBool,
}

/// How long the payload of an invocation that has succeeded may wait for its acknowledgement, which races the response.
const LATE_ACKNOWLEDGEMENT: Duration = Duration::from_secs(1);

/// Accepts the payload, starts to fill it and seals its reference. Memory is there at once or not at all.
///
/// # Errors
/// Why it has to go inline, with its body untouched.
pub(crate) async fn hold(shared: &Arc<Shared>, message: Message) -> Result<Held, (InlineReason, Body)> {
    let Message { kind, body, content_type, binding, peer } = message;
    if content_type.as_ref().is_some_and(|value| value.len() > CONTENT_TYPE_MAX) {
        return Err((InlineReason::NotEligible, body));
    }
    let id = zipline_seal::new_payload_id();
    let length = body.exact_length();
    let record = Record {
        kind,
        payload: id,
        boot: shared.boot,
        addresses: shared.data_addresses.clone(),
        length,
        expiry_unix_ms: None,
        retrievals: Retrievals::Unlimited,
        digest: None,
        binding,
        certificate: shared.data_certificate,
        zone: shared.guidance.zone().to_string(),
        tenant: shared.keyring.tenant().to_owned(),
        content_type,
    };
    let Ok(reference) = shared.keyring.seal_reference(&record) else {
        return Err((InlineReason::NoKeys, body));
    };
    let spec = Spec {
        id,
        kind,
        length,
        retrievals: Retrievals::Unlimited,
        ttl: None,
        linger: Duration::ZERO,
        wait: None,
        windowed: true,
    };
    let Ok((writer, guard)) = shared.store.begin(spec).await else {
        return Err((InlineReason::BufferFull, body));
    };
    let guard = Arc::new(guard);
    let filled = Arc::new(AtomicBool::new(false));
    let filling = Filling {
        shared: Arc::clone(shared),
        kind,
        peer,
        settled: guard.settled(),
        filled: Arc::clone(&filled),
        body,
        writer,
    };
    let filling = Some(shared.tasks.spawn("fill payload", filling.run()));
    Ok(Held { reference, shared: Arc::clone(shared), guard, filling, filled, proven: AtomicBool::new(false) })
}

impl Held {
    /// The payload's id.
    pub(crate) fn id(&self) -> &zipline_protocol::PayloadId {
        self.guard.id()
    }

    /// The receiver has proven that it opened the reference, so it will settle the payload.
    pub(crate) fn proven(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Resolves when the receiver has it, gave it up, or it is lost.
    pub(crate) fn settled(&self) -> impl Future<Output = Settled> + Send + 'static {
        self.guard.settled()
    }

    /// Whether the receiver has proven that it opened the reference.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Resolves when its receiver has fallen silent in the middle of the transfer.
    pub(crate) fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        self.guard.abandoned(PROGRESS_TIMEOUT)
    }

    /// Reads it here from its first byte; `None` once that has left the window.
    pub(crate) fn read_from_start(&self) -> Option<PayloadReader> {
        self.guard.reader_from_start()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut filling) = self.filling.take() else { return };
        if !(self.proven.load(Ordering::Relaxed) && self.filled.load(Ordering::Relaxed)) {
            filling.abort();
            return;
        }
        // The receiver answered; its acknowledgement may still be on its way.
        let guard = Arc::clone(&self.guard);
        drop(self.shared.tasks.spawn("await acknowledgement", async move {
            if timeout(LATE_ACKNOWLEDGEMENT, &mut filling).await.is_err() {
                filling.abort();
            }
            drop(guard);
        }));
    }
}

struct Filling<S> {
    shared: Arc<Shared>,
    kind: ReferenceKind,
    peer: Option<FunctionName>,
    settled: S,
    filled: Arc<AtomicBool>,
    body: Body,
    writer: PayloadWriter,
}

impl<S: Future<Output = Settled>> Filling<S> {
    async fn run(self) {
        let started = Instant::now();
        let bytes = match fill(self.body, self.writer).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(kind = self.kind.as_str(), %error, "payload broke off");
                return;
            }
        };
        self.filled.store(true, Ordering::Relaxed);
        if self.settled.await == Settled::Acknowledged {
            self.shared.metrics.held(started.elapsed());
            self.shared.record(Transfer {
                direction: Direction::Sent,
                kind: self.kind,
                peer: self.peer,
                way: Way::Network,
                reason: None,
                zones: Zones::Unknown,
                bytes,
                elapsed: started.elapsed(),
            });
        }
    }
}

/// Why a payload was not filled; its readers then see it broken off, never ended.
#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Pour(#[from] PourError),
    #[error("it could not be held")]
    Write(#[from] WriteError),
    #[error("its trailers are longer than {}", zipline_protocol::limits::TRAILERS_MAX)]
    Trailers,
}

async fn fill(mut body: Body, mut writer: PayloadWriter) -> Result<u64, FillError> {
    let mut trailers = HeaderMap::new();
    loop {
        match pour(&mut body, &mut writer, None).await? {
            Poured::Data => {}
            Poured::Trailers(more) => trailers.extend(more),
            Poured::End => break,
        }
    }
    let trailers = zipline_transfer::trailers::encode(&trailers).map_err(|_| FillError::Trailers)?;
    Ok(writer.finish(trailers)?.length)
}
