//! References that are issued before their payloads are there.

use std::collections::HashMap;

use tokio::time::Instant;
use zipline_buffer::Expected;
use zipline_protocol::limits::TTL_MAX;
use zipline_protocol::sdk::{self, ISSUED_MAX};
use zipline_protocol::{PayloadId, ReferenceText};
use zipline_seal::new_payload_id;

use crate::api::Refusal;
use crate::api::put::{Sealing, can_seal, expires_at, fits, seal};
use crate::api::query::PutQuery;
use crate::state::Shared;

/// Bytes of references in one answer, within a frame.
const ANSWER_BYTES: usize = 100 * 1024;

/// Terms that were found to be within bounds.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) query: PutQuery,
    pub(super) content_type: Option<Vec<u8>>,
}

impl Terms {
    /// # Errors
    /// `request-invalid` for values out of bounds; `upstream-failed` while there is no key.
    pub(super) fn check(shared: &Shared, terms: &sdk::Terms<'_>) -> Result<Self, Refusal> {
        let query = PutQuery::from_terms(terms)?;
        fits(terms.content_type)?;
        can_seal(shared)?;
        Ok(Self { query, content_type: terms.content_type.map(<[u8]>::to_vec) })
    }
}

/// The pre-issued references of one connection.
#[derive(Debug)]
pub(super) struct Issued {
    /// With the time when they were issued.
    unused: HashMap<PayloadId, (PutQuery, Instant)>,
    /// Unused ids, and those whose put has not begun yet.
    expected: Expected,
}

impl Issued {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { unused: HashMap::new(), expected: shared.store.expectation() }
    }

    /// Issues up to `count` references. Those that were not used for as long as a payload may live end: their keys may be gone.
    ///
    /// # Errors
    /// None could be sealed.
    pub(super) fn issue(
        &mut self,
        shared: &Shared,
        terms: &Terms,
        count: u16,
    ) -> Result<Vec<(PayloadId, ReferenceText)>, Refusal> {
        let now = Instant::now();
        for (id, _) in self.unused.extract_if(|_, (_, since)| now.duration_since(*since) >= TTL_MAX) {
            self.expected.ends(&id);
        }
        let room = ISSUED_MAX.saturating_sub(self.expected.len()).min(count.into());
        let (mut issued, mut bytes) = (Vec::with_capacity(room), 0);
        while issued.len() < room && bytes < ANSWER_BYTES {
            let id = new_payload_id();
            let sealing = Sealing {
                id,
                complete: None,
                expires_at: expires_at(terms.query.ttl),
                query: terms.query,
                content_type: terms.content_type.clone(),
            };
            let reference = seal(shared, sealing)?;
            bytes += reference.as_str().len() + 18;
            self.unused.insert(id, (terms.query, now));
            self.expected.add(id);
            issued.push((id, reference));
        }
        Ok(issued)
    }

    /// Takes an id for its put; `None` if it is none of this connection's, or was used.
    pub(super) fn take(&mut self, id: &PayloadId) -> Option<Terms> {
        // The content type stands in the reference already.
        self.unused.remove(id).map(|(query, _)| Terms { query, content_type: None })
    }

    /// The put of this id was taken, or has failed: nobody waits for it any more.
    pub(super) fn settled(&mut self, id: &PayloadId) {
        self.expected.ends(id);
    }
}
