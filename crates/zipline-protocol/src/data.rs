//! Requests, answers and the final record of the data port (section 6).

use crate::{BootId, KeyId, LeaseId, Nonce, PayloadId, from_text, to_text};
use std::fmt::Write as _;

/// A proof: HMAC-SHA256.
pub type Mac = [u8; 32];

const OPEN_END: u64 = u64::MAX;

/// What is asked of a data port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Take or resume a lease and send bytes.
    Retrieve,
    /// The same among queue-proxies of one host: the payload's memory is passed in place of its bytes (section 9).
    Share,
    /// Every byte of the lease was delivered.
    Acknowledge,
    /// The lease is given up.
    Cancel,
    /// The receiver lives, though its consumer may take no bytes now.
    Alive,
    /// Send bytes for a lease that runs, beside what else is sent for it.
    Part,
}

impl Operation {
    /// Every operation of a data port.
    pub const ALL: [Self; 5] = [Self::Retrieve, Self::Acknowledge, Self::Cancel, Self::Alive, Self::Part];

    /// Its word in proofs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retrieve => "retrieve",
            Self::Share => "share",
            Self::Acknowledge => "acknowledge",
            Self::Cancel => "cancel",
            Self::Alive => "alive",
            Self::Part => "part",
        }
    }

    /// Its path on a data port; a share has none there.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Retrieve => "/v1/retrieve",
            Self::Share => "",
            Self::Acknowledge => "/v1/acknowledge",
            Self::Cancel => "/v1/cancel",
            Self::Alive => "/v1/alive",
            Self::Part => "/v1/part",
        }
    }
}

/// The contents of a `Zipline-Auth` header, its proof aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRequest {
    /// Key the proof is made with.
    pub key: KeyId,
    /// Unique per request.
    pub nonce: Nonce,
    /// The holder's life that is meant.
    pub boot: BootId,
    /// The payload that is meant.
    pub payload: PayloadId,
    /// The retrieval this request belongs to.
    pub lease: LeaseId,
    /// First byte wanted.
    pub from: u64,
    /// Byte after the last one wanted; `None`: to the end.
    pub to: Option<u64>,
}

/// A header of the data port is not of its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{header} is malformed: {part}")]
pub struct DataHeaderError {
    header: &'static str,
    part: &'static str,
}

impl DataHeaderError {
    pub(crate) const fn new(header: &'static str, part: &'static str) -> Self {
        Self { header, part }
    }
}

const AUTH: &str = "Zipline-Auth";
const FINAL: &str = "Zipline-Final";

fn auth_error(part: &'static str) -> DataHeaderError {
    DataHeaderError { header: AUTH, part }
}

fn final_error(part: &'static str) -> DataHeaderError {
    DataHeaderError { header: FINAL, part }
}

impl DataRequest {
    /// The bytes that the proof covers.
    pub fn mac_input(&self, operation: Operation) -> Vec<u8> {
        let mut input = Vec::with_capacity(112);
        input.extend_from_slice(b"zl1 ");
        input.extend_from_slice(operation.as_str().as_bytes());
        input.extend_from_slice(self.nonce.as_bytes());
        input.extend_from_slice(self.boot.as_bytes());
        input.extend_from_slice(self.payload.as_bytes());
        input.extend_from_slice(self.lease.as_bytes());
        input.extend_from_slice(&self.from.to_be_bytes());
        input.extend_from_slice(&self.to.unwrap_or(OPEN_END).to_be_bytes());
        input
    }

    /// The header's value with its proof.
    pub fn format(&self, mac: &Mac) -> String {
        let mut out = format!(
            "v=1, key={}, nonce={}, boot={}, payload={}, lease={}, from={}, to=",
            self.key.to_text(),
            self.nonce.to_text(),
            self.boot.to_text(),
            self.payload.to_text(),
            self.lease.to_text(),
            self.from,
        );
        match self.to {
            Some(to) => write!(out, "{to}").expect("a String takes any text"),
            None => out.push('*'),
        }
        out.push_str(", mac=");
        out.push_str(&to_text(mac));
        out
    }

    /// Reads a header's value: exactly these fields, in this order.
    ///
    /// # Errors
    /// [`DataHeaderError`] names the first part that is wrong. The proof is not checked here.
    pub fn parse(value: &str) -> Result<(Self, Mac), DataHeaderError> {
        let mut parts = value.split(", ");
        let mut part = |name: &'static str| {
            parts
                .next()
                .and_then(|part| part.strip_prefix(name))
                .and_then(|part| part.strip_prefix('='))
                .ok_or(auth_error(name))
        };
        if part("v")? != "1" {
            return Err(auth_error("v"));
        }
        let key = KeyId::parse(part("key")?).map_err(|_| auth_error("key"))?;
        let nonce = Nonce::parse(part("nonce")?).map_err(|_| auth_error("nonce"))?;
        let boot = BootId::parse(part("boot")?).map_err(|_| auth_error("boot"))?;
        let payload = PayloadId::parse(part("payload")?).map_err(|_| auth_error("payload"))?;
        let lease = LeaseId::parse(part("lease")?).map_err(|_| auth_error("lease"))?;
        let from = number(part("from")?).ok_or(auth_error("from"))?;
        let to = match part("to")? {
            "*" => None,
            // The largest number stands for the open end in the proof, so it cannot be written out as well.
            text => Some(number(text).filter(|to| *to != OPEN_END).ok_or(auth_error("to"))?),
        };
        let mac = mac(part("mac")?).ok_or(auth_error("mac"))?;
        if parts.next().is_some() {
            return Err(auth_error("end"));
        }
        Ok((Self { key, nonce, boot, payload, lease, from, to }, mac))
    }
}

/// The bytes that the proof of an answer covers.
pub fn reply_mac_input(nonce: &Nonce, status: u16, length: Option<u64>) -> Vec<u8> {
    let mut input = Vec::with_capacity(40);
    input.extend_from_slice(b"zl1 reply");
    input.extend_from_slice(nonce.as_bytes());
    input.extend_from_slice(&status.to_be_bytes());
    input.extend_from_slice(&length.unwrap_or(OPEN_END).to_be_bytes());
    input
}

/// How a payload ended. A retrieval without one has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalRecord {
    /// The payload's whole length in bytes.
    pub length: u64,
    /// SHA-256 of the whole payload, if the holder computed it.
    pub digest: Option<[u8; 32]>,
    /// The message's trailers as `name: value\r\n` lines; at most 32 KiB.
    pub trailers: Vec<u8>,
}

impl FinalRecord {
    /// The bytes that the proof covers.
    pub fn mac_input(&self, nonce: &Nonce) -> Vec<u8> {
        let mut input = Vec::with_capacity(80 + self.trailers.len());
        input.extend_from_slice(b"zl1 final");
        input.extend_from_slice(nonce.as_bytes());
        input.extend_from_slice(&self.length.to_be_bytes());
        // The flag keeps bytes from moving between digest and trailers.
        input.push(u8::from(self.digest.is_some()));
        input.extend_from_slice(self.digest.as_ref().map(|digest| &digest[..]).unwrap_or_default());
        input.extend_from_slice(&self.trailers);
        input
    }

    /// The value of `Zipline-Final`; the trailers travel in `Zipline-Trailers`.
    pub fn format(&self, mac: &Mac) -> String {
        let digest = self.digest.map_or_else(|| "-".to_owned(), |digest| to_text(&digest));
        format!("length={}, sha256={digest}, mac={}", self.length, to_text(mac))
    }

    /// Reads `Zipline-Final`, with the trailers from their own header.
    ///
    /// # Errors
    /// [`DataHeaderError`] names the first part that is wrong. The proof is not checked here.
    pub fn parse(value: &str, trailers: Vec<u8>) -> Result<(Self, Mac), DataHeaderError> {
        let mut parts = value.split(", ");
        let mut part = |name: &'static str| {
            parts
                .next()
                .and_then(|part| part.strip_prefix(name))
                .and_then(|part| part.strip_prefix('='))
                .ok_or(final_error(name))
        };
        let length = number(part("length")?).ok_or(final_error("length"))?;
        let digest = match part("sha256")? {
            "-" => None,
            text => Some(mac(text).ok_or(final_error("sha256"))?),
        };
        let proof = mac(part("mac")?).ok_or(final_error("mac"))?;
        if parts.next().is_some() {
            return Err(final_error("end"));
        }
        Ok((Self { length, digest, trailers }, proof))
    }
}

/// Decimal digits only: no sign, no blanks, no leading zero, so that a number has one text.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn mac(text: &str) -> Option<Mac> {
    from_text(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(from: u64, to: Option<u64>) -> DataRequest {
        DataRequest {
            key: KeyId::new([1; 4], 2),
            nonce: Nonce::from_bytes([3; 16]),
            boot: BootId::from_bytes([4; 16]),
            payload: PayloadId::from_bytes([5; 16]),
            lease: LeaseId::from_bytes([6; 16]),
            from,
            to,
        }
    }

    #[test]
    fn request_round_trip() {
        for (from, to) in [(0, None), (5, Some(9)), (u64::MAX, Some(u64::MAX - 1))] {
            let value = request(from, to).format(&[7; 32]);
            assert_eq!(DataRequest::parse(&value), Ok((request(from, to), [7; 32])));
        }
    }

    #[test]
    fn malformed_requests_are_named() {
        let value = request(0, None).format(&[7; 32]);
        for (wrong, part) in [
            (value.replace("v=1", "v=2"), "v"),
            (value.replace("from=0", "from=-1"), "from"),
            (value.replace("from=0", "from=00"), "from"),
            (value.replace("from=0", "from=99999999999999999999"), "from"),
            (value.replace("to=*", "to=18446744073709551615"), "to"),
            (format!("{value}, more=1"), "end"),
            (value[..value.len() - 2].to_owned(), "mac"),
            (String::new(), "v"),
        ] {
            assert_eq!(DataRequest::parse(&wrong), Err(auth_error(part)), "{wrong}");
        }
    }

    #[test]
    fn every_field_is_under_the_proof() {
        let base = request(0, None);
        let input = base.mac_input(Operation::Retrieve);
        let mut others = vec![
            base.mac_input(Operation::Acknowledge),
            base.mac_input(Operation::Cancel),
            request(1, None).mac_input(Operation::Retrieve),
            request(0, Some(1)).mac_input(Operation::Retrieve),
        ];
        others.push(
            DataRequest { payload: PayloadId::from_bytes([9; 16]), ..base.clone() }
                .mac_input(Operation::Retrieve),
        );
        others.push(
            DataRequest { boot: BootId::from_bytes([9; 16]), ..base.clone() }.mac_input(Operation::Retrieve),
        );
        others.push(
            DataRequest { lease: LeaseId::from_bytes([9; 16]), ..base.clone() }
                .mac_input(Operation::Retrieve),
        );
        others.push(DataRequest { nonce: Nonce::from_bytes([9; 16]), ..base }.mac_input(Operation::Retrieve));
        assert!(others.iter().all(|other| *other != input));
    }

    #[test]
    fn final_record_round_trip() {
        for digest in [None, Some([8; 32])] {
            let record = FinalRecord { length: 3, digest, trailers: b"a: b\r\n".to_vec() };
            let value = record.format(&[9; 32]);
            assert_eq!(FinalRecord::parse(&value, record.trailers.clone()), Ok((record, [9; 32])));
        }
        assert!(FinalRecord::parse("length=3, sha256=AA, mac=", Vec::new()).is_err());
    }

    #[test]
    fn bytes_cannot_move_between_digest_and_trailers() {
        let nonce = Nonce::from_bytes([1; 16]);
        let digest = FinalRecord { length: 3, digest: Some([8; 32]), trailers: Vec::new() };
        let trailers = FinalRecord { length: 3, digest: None, trailers: vec![8; 32] };
        assert_ne!(digest.mac_input(&nonce), trailers.mac_input(&nonce));
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(text in ".{0,300}") {
            let _ = DataRequest::parse(&text);
            let _ = FinalRecord::parse(&text, Vec::new());
        }
    }
}
