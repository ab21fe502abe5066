//! Sealing and opening references and accept headers.

use crate::envelope::{self, ACCEPT, REFERENCE, Sealed};
use crate::error::{OpenError, SealError};
use crate::keyring::{Keyring, LookupError};
use crate::keys::Key;
use zipline_protocol::{Nonce, Record, ReferenceKind, ReferenceText, limits};

/// Longest accept header that is read, in bytes: prefix, key id, nonce, 16 bytes, the longest tenant, tag.
const ACCEPT_MAX: usize = 5 + (8 + 24 + 16 + 63 + 16_usize).div_ceil(3) * 4;

impl Keyring {
    /// Seals `record` into a reference, with the key named for sealing and a fresh nonce.
    ///
    /// # Errors
    /// [`SealError::NoKey`]: no key is named for sealing. [`SealError::OtherTenant`]: the record is not of this ring's
    /// tenant. [`SealError::Record`], [`SealError::TooLong`]: a field is out of bounds.
    pub fn seal_reference(&self, record: &Record) -> Result<ReferenceText, SealError> {
        if record.tenant != self.tenant() {
            return Err(SealError::OtherTenant);
        }
        let key = self.sealing_key().ok_or(SealError::NoKey)?;
        let plaintext = record.encode().map_err(SealError::Record)?;
        let text = envelope::seal(REFERENCE, &key, &plaintext);
        ReferenceText::parse(&text)
            .map_err(|_| SealError::TooLong { length: text.len(), max: limits::REFERENCE_MAX })
    }

    /// Opens a reference where references of kind `expected` are taken.
    ///
    /// # Errors
    /// [`OpenError`]; its `code()` follows the table in `docs/protocol.md` section 3.2.
    pub fn open_reference(&self, text: &ReferenceText, expected: ReferenceKind) -> Result<Record, OpenError> {
        let sealed = Sealed::parse(REFERENCE, text.as_str(), limits::REFERENCE_MAX)?;
        let key = self.lookup(&sealed.key_id)?;
        self.open_with(&key, &sealed, expected)
    }

    /// As [`Keyring::open_reference`], but when the key is one of ours that is not there yet, waits for it up to
    /// `KEY_WAIT`: a reference may be faster than the rotation that brings its key.
    ///
    /// # Errors
    /// As [`Keyring::open_reference`]; an unknown key only after the wait.
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn open_reference_waiting(
        &self,
        text: &ReferenceText,
        expected: ReferenceKind,
    ) -> Result<Record, OpenError> {
        let sealed = Sealed::parse(REFERENCE, text.as_str(), limits::REFERENCE_MAX)?;
        let key = self.lookup_waiting(&sealed.key_id).await?;
        self.open_with(&key, &sealed, expected)
    }

    fn open_with(&self, key: &Key, sealed: &Sealed, expected: ReferenceKind) -> Result<Record, OpenError> {
        let record = Record::decode(&sealed.open(key)?).map_err(|_| OpenError::Record)?;
        // Half of a key id are only 32 bits of a hash: the sealed tenant decides.
        if record.tenant != self.tenant() {
            return Err(OpenError::OtherTenant);
        }
        if record.kind != expected {
            return Err(OpenError::WrongKind { expected, found: record.kind });
        }
        Ok(record)
    }

    /// Seals the nonce to which a deferred response will be bound: the value of `Zipline-Accept`.
    ///
    /// # Errors
    /// [`SealError::NoKey`]: no key is named for sealing.
    pub fn seal_accept(&self, nonce: &Nonce) -> Result<String, SealError> {
        let key = self.sealing_key().ok_or(SealError::NoKey)?;
        let plaintext = [nonce.as_bytes().as_slice(), self.tenant().as_bytes()].concat();
        Ok(envelope::seal(ACCEPT, &key, &plaintext))
    }

    /// Opens the value of a `Zipline-Accept`. Never waits for keys: without the key the response simply goes inline.
    ///
    /// # Errors
    /// As [`Keyring::open_reference`].
    pub fn open_accept(&self, text: &str) -> Result<Nonce, OpenError> {
        let sealed = Sealed::parse(ACCEPT, text, ACCEPT_MAX)?;
        let plaintext = sealed.open(&*self.lookup(&sealed.key_id)?)?;
        let (nonce, tenant) = plaintext.split_first_chunk::<16>().ok_or(OpenError::Record)?;
        if tenant != self.tenant().as_bytes() {
            return Err(OpenError::OtherTenant);
        }
        Ok(Nonce::from_bytes(*nonce))
    }
}

impl From<LookupError> for OpenError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::OtherTenant => Self::OtherTenant,
            LookupError::Unknown { serial } => Self::UnknownKey { serial },
        }
    }
}
