//! Proof that a deferred request was opened: `Zipline-Opened`.

use crate::keyring::Keyring;
use subtle::{Choice, ConstantTimeEq};
use zipline_protocol::{PayloadId, from_text, to_text};

const PROOF: usize = 16;
const PROOF_TEXT: usize = 22;

impl Keyring {
    /// The value of `Zipline-Opened` for a response of `status` to the request whose payload is `payload`; `None` if the
    /// ring is empty.
    #[must_use]
    pub fn proof_opened(&self, payload: &PayloadId, status: u16) -> Option<String> {
        let mac = self.proving_key()?.proof_mac(&opened_input(payload, &status.to_be_bytes()));
        Some(to_text(&mac[..PROOF]))
    }

    /// Whether `proof` is that of a queue-proxy of our tenant which opened `payload` and answered `status`. Any key of
    /// the ring will do, so a rotation while the request runs does no harm.
    #[must_use]
    pub fn verify_opened(&self, payload: &PayloadId, status: u16, proof: &str) -> bool {
        // The length first, so that a long header is not decoded.
        if proof.len() != PROOF_TEXT {
            return false;
        }
        let Some(given) = from_text(proof) else { return false };
        let status = status.to_be_bytes();
        let mut proven = Choice::from(0);
        for key in self.all_keys() {
            proven |= key.proof_mac(&opened_input(payload, &status))[..PROOF].ct_eq(&given);
        }
        proven.into()
    }
}

fn opened_input<'a>(payload: &'a PayloadId, status: &'a [u8; 2]) -> [&'a [u8]; 3] {
    [b"zl1 opened", payload.as_bytes(), status]
}
