//! The sealed text both references and accept headers are: prefix, then base64url of
//! `key id (8) | nonce (24) | ciphertext | tag (16)`.

use crate::error::OpenError;
use crate::keys::Key;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead, Payload};
use zipline_protocol::{KeyId, from_text, to_text};

const KEY_ID: usize = 8;
const NONCE: usize = 24;
const TAG: usize = 16;

/// Where a sealed text is used. The label is authenticated, so one place's text never opens in another.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) prefix: &'static str,
    label: &'static [u8],
}

pub(crate) const REFERENCE: Place = Place { prefix: "zl1.", label: b"zl1 reference" };
pub(crate) const ACCEPT: Place = Place { prefix: "zla1.", label: b"zl1 accept" };

impl Place {
    fn additional_data(self, id: &KeyId) -> Vec<u8> {
        [self.label, id.as_bytes().as_slice()].concat()
    }
}

/// Seals `plaintext` with a fresh random nonce.
pub(crate) fn seal(place: Place, key: &Key, plaintext: &[u8]) -> String {
    let nonce: [u8; NONCE] = crate::random_bytes();
    let aad = place.additional_data(&key.id);
    let sealed = key
        .seal
        .encrypt(&XNonce::from(nonce), Payload { msg: plaintext, aad: &aad })
        .expect("encryption only fails beyond 256 GiB");
    let bytes = [key.id.as_bytes().as_slice(), &nonce, &sealed].concat();
    format!("{}{}", place.prefix, to_text(&bytes))
}

/// A text whose form is right; whether it is authentic is not known yet.
pub(crate) struct Sealed {
    place: Place,
    pub(crate) key_id: KeyId,
    bytes: Vec<u8>,
}

impl Sealed {
    /// Reads the form of `text`. `max` bounds its length in bytes, and with it what is allocated.
    pub(crate) fn parse(place: Place, text: &str, max: usize) -> Result<Self, OpenError> {
        if text.len() > max {
            return Err(OpenError::Malformed);
        }
        let encoded = text.strip_prefix(place.prefix).ok_or(OpenError::Malformed)?;
        let bytes = from_text(encoded).ok_or(OpenError::Malformed)?;
        if bytes.len() < KEY_ID + NONCE + TAG {
            return Err(OpenError::Malformed);
        }
        let id = bytes.first_chunk::<KEY_ID>().ok_or(OpenError::Malformed)?;
        Ok(Self { place, key_id: KeyId::from_bytes(*id), bytes })
    }

    /// Authenticates and decrypts.
    pub(crate) fn open(&self, key: &Key) -> Result<Vec<u8>, OpenError> {
        let rest = &self.bytes[KEY_ID..];
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(OpenError::Malformed)?;
        let aad = self.place.additional_data(&self.key_id);
        key.seal
            .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad })
            .map_err(|_| OpenError::Unauthentic)
    }
}
