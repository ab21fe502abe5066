//! Proofs of the data port: both ends show the tenant's key on every request.

use crate::error::{SealError, VerifyError};
use crate::keyring::{Keyring, LookupError};
use crate::keys::Key;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zipline_protocol::data::{DataRequest, FinalRecord, Mac, Operation, reply_mac_input};
use zipline_protocol::relay::{CopyPlace, PlaceRole};
use zipline_protocol::{Nonce, from_text, limits, to_text};

impl Keyring {
    /// Signs a request to a data port and fills in its key id. `request.nonce` must be fresh for every request.
    ///
    /// # Errors
    /// [`SealError::NoKey`]: the ring is empty.
    pub fn sign_request(
        &self,
        operation: Operation,
        request: &mut DataRequest,
    ) -> Result<SignedRequest, SealError> {
        let key = self.proving_key().ok_or(SealError::NoKey)?;
        request.key = key.id;
        let header = request.format(&key.data_mac(&[&request.mac_input(operation)]));
        Ok(SignedRequest { header, key, nonce: request.nonce })
    }

    /// Checks the value of a `Zipline-Auth` header, before anything it names is looked up.
    ///
    /// # Errors
    /// [`VerifyError`]: malformed, another tenant's, of an unknown key, or wrong.
    pub fn verify_request(&self, operation: Operation, header: &str) -> Result<ProvenRequest, VerifyError> {
        let (request, mac) = DataRequest::parse(header).map_err(|_| VerifyError::Malformed)?;
        let key = self.lookup(&request.key)?;
        ProvenRequest::check(operation, request, &mac, key)
    }

    /// As [`Keyring::verify_request`], but waits up to `KEY_WAIT` for a key of ours that is not there yet.
    ///
    /// # Errors
    /// As [`Keyring::verify_request`]; an unknown key only after the wait.
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn verify_request_waiting(
        &self,
        operation: Operation,
        header: &str,
    ) -> Result<ProvenRequest, VerifyError> {
        let (request, mac) = DataRequest::parse(header).map_err(|_| VerifyError::Malformed)?;
        let key = self.lookup_waiting(&request.key).await?;
        ProvenRequest::check(operation, request, &mac, key)
    }
}

/// The asking side of one request: the header to send, and the key and nonce its answer must be proven with.
pub struct SignedRequest {
    header: String,
    key: Arc<Key>,
    nonce: Nonce,
}

impl SignedRequest {
    /// The value of `Zipline-Auth`.
    #[must_use]
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Whether `proof`, the value of `Zipline-Auth-Reply`, belongs to an answer to this request with this status and
    /// payload length (`None`: growing; errors say 0).
    #[must_use]
    pub fn verify_reply(&self, status: u16, length: Option<u64>, proof: &str) -> bool {
        let expected = self.key.data_mac(&[&reply_mac_input(&self.nonce, status, length)]);
        parse_mac(proof).is_some_and(|given| expected.ct_eq(&given).into())
    }

    /// The value of `Zipline-Copy`: where the asking side serves copies.
    #[must_use]
    pub fn offer(&self, place: &CopyPlace) -> String {
        place.format(&self.key.data_mac(&[&place.mac_input(PlaceRole::Offer, &self.nonce)]))
    }

    /// Reads the value of `Zipline-Relay`. `None` if it is malformed, or does not belong to an answer to this request.
    #[must_use]
    pub fn verify_relay(&self, value: &str) -> Option<CopyPlace> {
        verify_place(&self.key, PlaceRole::Relay, &self.nonce, value)
    }

    /// Reads the final record out of the values of `Zipline-Final` and, if there is one, `Zipline-Trailers`. `None` if it
    /// is malformed, too long or not proven: the retrieval has failed.
    #[must_use]
    pub fn verify_final(&self, value: &str, trailers: Option<&str>) -> Option<FinalRecord> {
        let trailers = match trailers {
            Some(text) if text.len() > limits::TRAILERS_MAX.div_ceil(3) * 4 => return None,
            Some(text) => from_text(text)?,
            None => Vec::new(),
        };
        let (record, given) = FinalRecord::parse(value, trailers).ok()?;
        let expected = self.key.data_mac(&[&record.mac_input(&self.nonce)]);
        bool::from(expected.ct_eq(&given)).then_some(record)
    }
}

impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRequest").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The answering side of one request whose proof was right. It keeps the key, so that a key which leaves the ring while
/// bytes are sent does not spoil the final record.
pub struct ProvenRequest {
    request: DataRequest,
    key: Arc<Key>,
}

impl ProvenRequest {
    fn check(
        operation: Operation,
        request: DataRequest,
        given: &Mac,
        key: Arc<Key>,
    ) -> Result<Self, VerifyError> {
        let expected = key.data_mac(&[&request.mac_input(operation)]);
        if expected.ct_eq(given).into() { Ok(Self { request, key }) } else { Err(VerifyError::Wrong) }
    }

    /// What was asked.
    #[must_use]
    pub fn request(&self) -> &DataRequest {
        &self.request
    }

    /// The value of `Zipline-Auth-Reply` for an answer with this status and payload length (`None`: growing; errors
    /// say 0).
    #[must_use]
    pub fn sign_reply(&self, status: u16, length: Option<u64>) -> String {
        to_text(&self.key.data_mac(&[&reply_mac_input(&self.request.nonce, status, length)]))
    }

    /// Reads the value of `Zipline-Copy`. `None` if it is malformed, or does not belong to this request.
    #[must_use]
    pub fn verify_offer(&self, value: &str) -> Option<CopyPlace> {
        verify_place(&self.key, PlaceRole::Offer, &self.request.nonce, value)
    }

    /// The value of `Zipline-Relay`: where the asking side retrieves a copy.
    #[must_use]
    pub fn sign_relay(&self, place: &CopyPlace) -> String {
        place.format(&self.key.data_mac(&[&place.mac_input(PlaceRole::Relay, &self.request.nonce)]))
    }

    /// The values of `Zipline-Final` and, if there are trailers, `Zipline-Trailers`.
    #[must_use]
    pub fn sign_final(&self, record: &FinalRecord) -> (String, Option<String>) {
        let mac = self.key.data_mac(&[&record.mac_input(&self.request.nonce)]);
        let trailers = (!record.trailers.is_empty()).then(|| to_text(&record.trailers));
        (record.format(&mac), trailers)
    }
}

impl fmt::Debug for ProvenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvenRequest").field("key", &self.key).finish_non_exhaustive()
    }
}

fn verify_place(key: &Key, role: PlaceRole, nonce: &Nonce, value: &str) -> Option<CopyPlace> {
    let (place, given) = CopyPlace::parse(role, value).ok()?;
    let expected = key.data_mac(&[&place.mac_input(role, nonce)]);
    bool::from(expected.ct_eq(&given)).then_some(place)
}

fn parse_mac(text: &str) -> Option<Mac> {
    // The length first, so that a long header is not decoded.
    if text.len() != 43 {
        return None;
    }
    from_text(text)?.try_into().ok()
}

impl From<LookupError> for VerifyError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::OtherTenant => Self::OtherTenant,
            LookupError::Unknown { serial } => Self::UnknownKey { serial },
        }
    }
}
