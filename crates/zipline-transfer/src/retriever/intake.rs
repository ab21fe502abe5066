//! What arrived of a payload and what of it may be let go: counting, hashing, holding back. Pure.
//!
//! Of a payload whose length is known, the last `HOLD_BACK` bytes are let go only when the final record was verified, so
//! that a consumer that counts (`Content-Length`) never takes a broken payload for complete. Of a growing payload the end
//! is not known before it comes; its bytes are let go as they arrive, since an interactive sender may wait for an answer to
//! them, and only its end depends on the final record.

use crate::error::RetrieveErrorKind as Kind;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use zipline_protocol::data::FinalRecord;
use zipline_protocol::limits::HOLD_BACK;

/// What is expected of a payload before its first byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) from: u64,
    pub(super) to: Option<u64>,
    /// The payload's length, if it is known.
    pub(super) length: Option<u64>,
    /// The digest that the reference names.
    pub(super) digest: Option<[u8; 32]>,
    /// Payloads up to this length are hashed even if the reference names no digest.
    pub(super) digest_max_bytes: u64,
}

/// The state of one retrieval's bytes.
#[derive(Debug)]
pub(super) struct Intake {
    expected: Expected,
    /// Offset of the next byte that is to arrive.
    position: u64,
    hash: Option<Sha256>,
    ready: VecDeque<Bytes>,
    held: VecDeque<Bytes>,
    final_record: Option<FinalRecord>,
}

impl Intake {
    pub(super) fn new(expected: Expected) -> Self {
        let whole = expected.from == 0 && expected.to.is_none();
        let wanted = expected.digest.is_some()
            || expected.length.is_none_or(|length| length <= expected.digest_max_bytes);
        Self {
            expected,
            position: expected.from,
            hash: (whole && wanted).then(Sha256::new),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            final_record: None,
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn received(&self) -> u64 {
        self.position - self.expected.from
    }

    pub(super) fn length(&self) -> Option<u64> {
        self.expected.length
    }

    pub(super) fn final_record(&self) -> Option<&FinalRecord> {
        self.final_record.as_ref()
    }

    /// The offset at which the retrieval ends, if it is known.
    pub(super) fn end(&self) -> Option<u64> {
        let length = self.expected.length?;
        Some(self.expected.to.map_or(length, |to| to.min(length)))
    }

    /// Takes bytes as they arrive.
    pub(super) fn push(&mut self, mut bytes: Bytes) -> Result<(), Kind> {
        if bytes.is_empty() {
            return Ok(());
        }
        let start = self.position;
        let limit = self.end().or(self.expected.to).unwrap_or(u64::MAX);
        let position = start.checked_add(bytes.len() as u64).filter(|position| *position <= limit);
        self.position = position.ok_or(Kind::Malformed { part: "more bytes than it says" })?;
        if let Some(hash) = &mut self.hash {
            if self.expected.digest.is_none() && self.position > self.expected.digest_max_bytes {
                // A growing payload that turned out too long to be hashed for.
                self.hash = None;
            } else {
                hash.update(&bytes);
            }
        }
        let hold_from = self.end().map_or(u64::MAX, |end| end.saturating_sub(HOLD_BACK as u64));
        let free = usize::try_from(hold_from.saturating_sub(start)).unwrap_or(usize::MAX);
        if free > 0 {
            self.ready.push_back(bytes.split_to(free.min(bytes.len())));
        }
        if !bytes.is_empty() {
            self.held.push_back(bytes);
        }
        Ok(())
    }

    /// Takes the final record, whose proof was verified, and lets everything go if it fits the bytes.
    pub(super) fn finish(&mut self, record: FinalRecord) -> Result<(), Kind> {
        if self.expected.length.is_some_and(|length| length != record.length) {
            return Err(Kind::Malformed { part: "another length than at first" });
        }
        let end = self.expected.to.map_or(record.length, |to| to.min(record.length));
        if self.position != end {
            return Err(Kind::Malformed { part: "fewer bytes than it says" });
        }
        if let Some(hash) = self.hash.take() {
            let digest: [u8; 32] = hash.finalize().into();
            let named = [self.expected.digest, record.digest];
            if named.into_iter().flatten().any(|expected| expected != digest) {
                return Err(Kind::Digest);
            }
        }
        self.ready.append(&mut self.held);
        self.final_record = Some(record);
        Ok(())
    }

    /// The next bytes that may be let go.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Whether the final record was verified and everything was let go.
    pub(super) fn is_drained(&self) -> bool {
        self.final_record.is_some() && self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(length: Option<u64>) -> Expected {
        Expected { from: 0, to: None, length, digest: None, digest_max_bytes: 1 << 20 }
    }

    fn record(length: u64, digest: Option<[u8; 32]>) -> FinalRecord {
        FinalRecord { length, digest, trailers: Vec::new() }
    }

    fn drain(intake: &mut Intake) -> Vec<u8> {
        std::iter::from_fn(|| intake.pop()).flatten().collect()
    }

    #[test]
    fn the_end_of_a_known_length_is_held_until_the_final_record() {
        let bytes = Bytes::from(vec![7; 100_000]);
        let mut intake = Intake::new(whole(Some(100_000)));
        intake.push(bytes.clone()).unwrap();
        assert_eq!(drain(&mut intake).len(), 100_000 - HOLD_BACK);
        assert!(!intake.is_drained());
        intake.finish(record(100_000, Some(Sha256::digest(&bytes).into()))).unwrap();
        assert_eq!(drain(&mut intake).len(), HOLD_BACK);
        assert!(intake.is_drained());
    }

    #[test]
    fn a_growing_payload_is_let_go_at_once_but_its_digest_counts() {
        let mut intake = Intake::new(whole(None));
        intake.push(Bytes::from_static(b"hello")).unwrap();
        assert_eq!(drain(&mut intake), b"hello");
        assert_eq!(intake.finish(record(5, Some([0; 32]))), Err(Kind::Digest));
        assert!(!intake.is_drained());
    }

    #[test]
    fn the_digest_of_the_reference_counts_at_any_length() {
        let expected = Expected { digest: Some([1; 32]), digest_max_bytes: 0, ..whole(Some(3)) };
        let mut intake = Intake::new(expected);
        intake.push(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(intake.finish(record(3, None)), Err(Kind::Digest));
        assert_eq!(drain(&mut intake), b"");
    }

    #[test]
    fn lengths_must_agree() {
        let more = Kind::Malformed { part: "more bytes than it says" };
        let fewer = Kind::Malformed { part: "fewer bytes than it says" };
        let mut intake = Intake::new(whole(Some(3)));
        assert_eq!(intake.push(Bytes::from_static(b"abcd")), Err(more.clone()));
        let mut intake = Intake::new(whole(Some(3)));
        intake.push(Bytes::from_static(b"ab")).unwrap();
        assert_eq!(intake.finish(record(3, None)), Err(fewer));
        assert!(matches!(intake.finish(record(2, None)), Err(Kind::Malformed { .. })));
        let mut range = Intake::new(Expected { from: 1, to: Some(3), ..whole(Some(10)) });
        range.push(Bytes::from_static(b"bc")).unwrap();
        range.finish(record(10, Some([0; 32]))).unwrap();
        let mut range = Intake::new(Expected { from: 1, to: Some(3), ..whole(None) });
        assert_eq!(range.push(Bytes::from_static(b"bcd")), Err(more));
        let mut beyond = Intake::new(Expected { from: 1, to: Some(30), ..whole(None) });
        beyond.push(Bytes::from_static(b"bc")).unwrap();
        beyond.finish(record(3, None)).unwrap();
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            chunks in proptest::collection::vec(0_usize..80_000, 0..6), known in any::<bool>(),
        ) {
            let total: usize = chunks.iter().sum();
            let all: Vec<u8> = (0..total).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut intake = Intake::new(whole(known.then_some(total as u64)));
            let (mut at, mut out) = (0, Vec::new());
            for chunk in chunks {
                intake.push(Bytes::copy_from_slice(&all[at..at + chunk])).unwrap();
                at += chunk;
                out.extend(drain(&mut intake));
                if known {
                    prop_assert!(out.len() + HOLD_BACK <= total.max(HOLD_BACK));
                }
            }
            intake.finish(record(total as u64, Some(Sha256::digest(&all).into()))).unwrap();
            out.extend(drain(&mut intake));
            prop_assert_eq!(out, all);
        }
    }
}
