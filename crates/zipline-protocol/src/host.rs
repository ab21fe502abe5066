//! Frames between queue-proxies on one host (section 9): a payload's memory in place of its bytes.
//!
//! Pure, like [`crate::sdk`], whose frames these are: lengths are checked before anything is allocated.

use crate::data::Operation;
use crate::sdk::wire::{Reader, Writer};
use crate::sdk::{DETAIL_MAX, FrameError, FrameHead, INLINE_MAX};
use crate::{BootId, ErrorCode};

/// Longest proof of a request or an answer.
pub const PROOF_MAX: usize = 512;
/// Longest error code.
const CODE_MAX: usize = 64;

const SHARE: u8 = 1;
const ACKNOWLEDGE: u8 = 2;
const CANCEL: u8 = 3;
const ALIVE: u8 = 4;
const RETURNED: u8 = 5;
const SHARED: u8 = 64;
const INLINE: u8 = 65;
const DONE: u8 = 66;
const REFUSED: u8 = 67;

/// The name of a holder's socket in the directory where queue-proxies of its host find each other.
#[must_use]
pub fn socket_name(boot: &BootId) -> String {
    boot.to_text()
}

/// What a receiver asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask<'a> {
    /// An operation with its proof, the value of `Zipline-Auth`. Never a retrieve.
    Prove {
        /// Which.
        operation: Operation,
        /// The proof.
        proof: &'a str,
    },
    /// Nobody on the receiver's side maps the bytes of this share any more.
    Returned {
        /// Which.
        share: u64,
    },
}

impl<'a> Ask<'a> {
    /// Writes it behind what `out` holds.
    pub fn write(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Prove { operation: Operation::Share | Operation::Retrieve | Operation::Part, .. } => SHARE,
            Self::Prove { operation: Operation::Acknowledge, .. } => ACKNOWLEDGE,
            Self::Prove { operation: Operation::Cancel, .. } => CANCEL,
            Self::Prove { operation: Operation::Alive, .. } => ALIVE,
            Self::Returned { .. } => RETURNED,
        };
        let mut writer = Writer::new(out, kind);
        match self {
            Self::Prove { proof, .. } => writer.raw(proof.as_bytes()),
            Self::Returned { share } => writer.u64(*share),
        };
        writer.end(0);
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`FrameError`]: the connection ends.
    pub fn read(head: FrameHead, body: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(body);
        let operation = match head.kind {
            SHARE => Operation::Share,
            ACKNOWLEDGE => Operation::Acknowledge,
            CANCEL => Operation::Cancel,
            ALIVE => Operation::Alive,
            RETURNED => {
                let share = reader.u64()?;
                reader.end()?;
                return Ok(Self::Returned { share });
            }
            kind => return Err(FrameError::UnknownType(kind)),
        };
        let proof = reader.rest("a proof", PROOF_MAX)?;
        let proof = std::str::from_utf8(proof).map_err(|_| FrameError::Value("a proof"))?;
        Ok(Self::Prove { operation, proof })
    }
}

/// What a holder answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The payload's memory; its descriptor rides on the frame.
    Shared {
        /// Names the share when it is returned.
        share: u64,
        /// Where the payload begins in the memory.
        offset: u64,
        /// Its length.
        length: u64,
        /// Its SHA-256, if it was computed.
        digest: Option<[u8; 32]>,
        /// Proves status 200 and the length.
        proof: &'a str,
    },
    /// The payload itself.
    Inline {
        /// Its SHA-256, if it was computed.
        digest: Option<[u8; 32]>,
        /// Proves status 200 and the length.
        proof: &'a str,
        /// All of it.
        bytes: &'a [u8],
    },
    /// Acknowledged, cancelled, alive.
    Done {
        /// Proves status 204.
        proof: &'a str,
    },
    /// Not so.
    Refused {
        /// As the data port would answer.
        status: u16,
        /// The stable code; none if it is one this version does not know.
        code: Option<ErrorCode>,
        /// For people.
        detail: &'a str,
        /// Proves the status; empty without a valid proof of the request.
        proof: &'a str,
    },
}

impl<'a> Reply<'a> {
    /// Writes it behind what `out` holds.
    pub fn write(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Shared { .. } => SHARED,
            Self::Inline { .. } => INLINE,
            Self::Done { .. } => DONE,
            Self::Refused { .. } => REFUSED,
        };
        let mut writer = Writer::new(out, kind);
        match self {
            Self::Shared { share, offset, length, digest, proof } => {
                writer.u64(*share).u64(*offset).u64(*length);
                write_digest(&mut writer, digest.as_ref());
                writer.bytes(proof.as_bytes());
            }
            Self::Inline { digest, proof, bytes } => {
                write_digest(&mut writer, digest.as_ref());
                writer.bytes(proof.as_bytes()).raw(bytes);
            }
            Self::Done { proof } => {
                writer.bytes(proof.as_bytes());
            }
            Self::Refused { status, code, detail, proof } => {
                let code = code.map_or("", ErrorCode::as_str);
                let cut = detail.floor_char_boundary(detail.len().min(DETAIL_MAX));
                writer.u16(*status).bytes(code.as_bytes()).bytes(&detail.as_bytes()[..cut]);
                writer.bytes(proof.as_bytes());
            }
        }
        writer.end(0);
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`FrameError`]: the connection ends.
    pub fn read(head: FrameHead, body: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(body);
        let reply = match head.kind {
            SHARED => {
                let (share, offset, length) = (reader.u64()?, reader.u64()?, reader.u64()?);
                let digest = read_digest(&mut reader)?;
                Self::Shared { share, offset, length, digest, proof: reader.text("a proof", PROOF_MAX)? }
            }
            INLINE => {
                let digest = read_digest(&mut reader)?;
                let proof = reader.text("a proof", PROOF_MAX)?;
                Self::Inline { digest, proof, bytes: reader.rest("a payload", INLINE_MAX)? }
            }
            DONE => Self::Done { proof: reader.text("a proof", PROOF_MAX)? },
            REFUSED => {
                let status = reader.u16()?;
                let code = ErrorCode::parse(reader.text("a code", CODE_MAX)?);
                let detail = reader.text("a detail", DETAIL_MAX)?;
                Self::Refused { status, code, detail, proof: reader.text("a proof", PROOF_MAX)? }
            }
            kind => return Err(FrameError::UnknownType(kind)),
        };
        reader.end()?;
        Ok(reply)
    }
}

fn write_digest(writer: &mut Writer<'_>, digest: Option<&[u8; 32]>) {
    writer.u8(u8::from(digest.is_some())).raw(digest.map_or(&[][..], |digest| digest));
}

fn read_digest(reader: &mut Reader<'_>) -> Result<Option<[u8; 32]>, FrameError> {
    if !reader.flag("a flag")? {
        return Ok(None);
    }
    reader.array().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(frame: &[u8]) -> (FrameHead, &[u8]) {
        let head = FrameHead::read(frame).unwrap().unwrap();
        let body = &frame[crate::sdk::HEAD_BYTES..];
        assert_eq!(head.body_bytes, body.len());
        (head, body)
    }

    #[test]
    fn asks_come_back_as_they_were_written() {
        for ask in [
            Ask::Prove { operation: Operation::Share, proof: "v=1, key=x" },
            Ask::Prove { operation: Operation::Acknowledge, proof: "" },
            Ask::Prove { operation: Operation::Cancel, proof: "y" },
            Ask::Prove { operation: Operation::Alive, proof: "z" },
            Ask::Returned { share: u64::MAX },
        ] {
            let mut frame = Vec::new();
            ask.write(&mut frame);
            let (head, body) = split(&frame);
            assert_eq!(Ask::read(head, body).unwrap(), ask);
        }
    }

    #[test]
    fn replies_come_back_as_they_were_written_and_never_in_part() {
        let bytes = vec![7; INLINE_MAX];
        for reply in [
            Reply::Shared { share: 1, offset: 64, length: 1 << 40, digest: None, proof: "p" },
            Reply::Shared { share: 1, offset: 0, length: 5, digest: Some([9; 32]), proof: "p" },
            Reply::Done { proof: "p" },
            Reply::Refused {
                status: 409,
                code: Some(ErrorCode::RetrievalsExhausted),
                detail: "d",
                proof: "",
            },
            Reply::Inline { digest: Some([1; 32]), proof: "p", bytes: &bytes },
        ] {
            let mut frame = Vec::new();
            reply.write(&mut frame);
            let (head, body) = split(&frame);
            assert_eq!(Reply::read(head, body).unwrap(), reply);
            for cut in 0..body.len().min(80) {
                let short = FrameHead { kind: head.kind, body_bytes: cut };
                let read = Reply::read(short, &body[..cut]);
                // The bytes of an inline payload have no length of their own: the proof says how many there are.
                assert!(read.is_err() || head.kind == INLINE, "{cut}: {read:?}");
            }
        }
    }

    #[test]
    fn what_is_no_frame_of_this_protocol_is_refused() {
        let head = |kind, body_bytes| FrameHead { kind, body_bytes };
        assert_eq!(Ask::read(head(9, 0), &[]), Err(FrameError::UnknownType(9)));
        assert_eq!(Ask::read(head(RETURNED, 9), &[0; 9]), Err(FrameError::Long));
        assert!(matches!(Ask::read(head(SHARE, 600), &[b'a'; 600]), Err(FrameError::Limit { .. })));
        assert_eq!(Reply::read(head(SHARE, 0), &[]), Err(FrameError::UnknownType(SHARE)));
        let flag_of_two = [0_u8; 24].into_iter().chain([2]).collect::<Vec<_>>();
        assert_eq!(Reply::read(head(SHARED, 25), &flag_of_two), Err(FrameError::Value("a flag")));
    }
}
