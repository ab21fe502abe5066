//! A client without a queue-proxy: payloads are held in this process, by the same rules.

mod ledger;

use std::hash::{BuildHasher as _, Hasher as _};
use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use zipline_protocol::limits::TTL_MAX;

use crate::clock::now;
use crate::reference::Life;
use crate::{BoundedBy, ErrorCode, Payload, PutOptions, Reference, Result, Source};
use ledger::{Held, Ledger};

/// Bytes one local client holds at most, as a queue-proxy on a small machine would.
pub(crate) const BUDGET_BYTES: u64 = 1024 * 1024 * 1024;

/// Payloads of one process. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    freed: Condvar,
}

impl Local {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared { ledger: Mutex::new(Ledger::new(BUDGET_BYTES)), freed: Condvar::new() }),
        }
    }

    /// Waits for room as long as `options` say.
    pub(crate) fn put(
        &self,
        bytes: Bytes,
        options: &PutOptions,
        call_site: &'static Location<'static>,
    ) -> Result<Reference> {
        let text = fresh_text();
        let deadline = now() + options.wait;
        let mut ledger = self.shared.ledger.lock();
        loop {
            let now = now();
            match ledger.put(now, text.clone(), Held::new(bytes.clone(), options)) {
                Err(error) if error.code() == ErrorCode::BufferFull && now < deadline => {
                    // Payloads also leave by expiry, of which nobody tells.
                    let until = ledger.next_expiry().map_or(deadline, |at| at.min(deadline));
                    self.shared.freed.wait_for(&mut ledger, until.saturating_sub(now));
                }
                Err(error) => return Err(error.put_at(Some(call_site))),
                Ok(()) => return Ok(Reference::made(text.as_str().into(), call_site, Some(life(options)))),
            }
        }
    }

    pub(crate) fn get(&self, reference: &Reference) -> Result<Payload> {
        let mut ledger = self.shared.ledger.lock();
        let got = ledger.get(now(), reference.as_str());
        self.shared.freed.notify_all();
        got.map(|(bytes, content_type)| Payload::new(bytes, content_type, Source::Process))
            .map_err(|error| error.put_at(reference.call_site()))
    }

    pub(crate) fn release(&self, reference: &Reference) -> Result<()> {
        let released = self.shared.ledger.lock().release(now(), reference.as_str());
        self.shared.freed.notify_all();
        released.map_err(|error| error.put_at(reference.call_site()))
    }
}

fn life(options: &PutOptions) -> Life {
    let ttl = options.ttl.min(TTL_MAX);
    let bounded_by = if ttl == options.ttl { BoundedBy::Requested } else { BoundedBy::Maximum };
    Life { ttl, bounded_by }
}

/// A text that looks like a reference and was never given before.
fn fresh_text() -> String {
    let mut bytes = [0; 16];
    for half in bytes.chunks_mut(8) {
        // Keyed with random keys, differently for every call.
        let hash = std::hash::RandomState::new().build_hasher().finish();
        half.copy_from_slice(&hash.to_be_bytes());
    }
    zipline_protocol::ReferenceText::from_sealed(&bytes).as_str().to_owned()
}
