//! What an SDK says.

use std::time::Duration;

use super::wire::{FrameError, FrameHead, Reader, Writer};
use super::{GET_MAX, INLINE_MAX, ISSUE_MAX, LIST_MAX, TOKEN_MAX};
use crate::limits::{CONTENT_TYPE_MAX, REFERENCE_MAX, RETRIEVALS_MAX};
use crate::{PayloadId, Retrievals};

/// How a put is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms<'a> {
    /// Acknowledged retrievals that use it up.
    pub retrievals: Retrievals,
    /// Its life, in whole milliseconds; what is beyond the maximum is cut.
    pub ttl: Duration,
    /// How long it stays for a retry after its last retrieval.
    pub linger: Duration,
    /// Longest wait for memory.
    pub wait: Duration,
    /// Its content type, byte for byte.
    pub content_type: Option<&'a [u8]>,
}

/// Where in an outgoing segment a payload lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: u32,
    /// Its first byte.
    pub offset: u64,
    /// Its length.
    pub len: u64,
}

/// The bytes of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBytes<'a> {
    /// In an outgoing segment, which the function no longer writes.
    Segment(Place),
    /// In the frame.
    Inline(&'a [u8]),
}

/// Which reference a put has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put<'a> {
    /// One that the answer brings.
    Answered(Terms<'a>),
    /// A pre-issued one; nothing is answered unless it fails.
    Issued(PayloadId),
}

/// References to be got; the references are texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get<'a> {
    /// Whether bytes may come through descriptors; without it all come in frames or not at all.
    pub mapped: bool,
    /// Longest wait for all of them.
    pub timeout: Duration,
    /// The references, at most [`GET_MAX`].
    pub references: Vec<&'a str>,
}

/// One frame of an SDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first frame.
    Hello {
        /// [`super::VERSION`].
        version: u8,
        /// The instance's token.
        token: &'a [u8],
    },
    /// Asks for an outgoing segment.
    Grant {
        /// Names the answer.
        request: u32,
        /// Least capacity.
        bytes: u64,
        /// Longest wait for memory.
        wait: Duration,
    },
    /// Puts a payload.
    Put {
        /// Names the answer.
        request: u32,
        /// With which reference.
        put: Put<'a>,
        /// What.
        bytes: PutBytes<'a>,
    },
    /// Asks for references in advance.
    Issue {
        /// Names the answer.
        request: u32,
        /// How many, at most [`ISSUE_MAX`].
        count: u16,
        /// What the puts that use them are kept by.
        terms: Terms<'a>,
    },
    /// Asks for payloads.
    Get {
        /// Names the answers.
        request: u32,
        /// Which.
        get: Get<'a>,
    },
    /// The function no longer reads these.
    Done {
        /// Handles of answers to gets.
        handles: Vec<u64>,
    },
    /// Frees a put.
    Release {
        /// Names the answer.
        request: u32,
        /// The reference's text.
        reference: &'a str,
    },
    /// These are unmapped, and their descriptors closed.
    Forgot {
        /// Outgoing segments.
        segments: Vec<u32>,
        /// Mappings of payloads that were got.
        mappings: Vec<u32>,
    },
    /// Asks to be told once every put before it was taken or has failed.
    Settle {
        /// Names the answer.
        request: u32,
    },
    /// No answer of this request is wanted any more; one that is on its way may still come.
    Cancel {
        /// The request.
        request: u32,
    },
}

const HELLO: u8 = 1;
const GRANT: u8 = 2;
const PUT: u8 = 3;
const PUT_INLINE: u8 = 4;
const PUT_ISSUED: u8 = 5;
const PUT_ISSUED_INLINE: u8 = 6;
const ISSUE: u8 = 7;
const GET: u8 = 8;
const DONE: u8 = 9;
const RELEASE: u8 = 10;
const FORGOT: u8 = 11;
const SETTLE: u8 = 12;
const CANCEL: u8 = 13;

impl<'a> Request<'a> {
    /// Reads the body of a frame with this head.
    ///
    /// # Errors
    /// [`FrameError`]; the connection is to be closed.
    pub fn read(head: FrameHead, body: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(body);
        let read = Self::fields(head.kind, &mut reader)?;
        reader.end()?;
        Ok(read)
    }

    fn fields(kind: u8, reader: &mut Reader<'a>) -> Result<Self, FrameError> {
        Ok(match kind {
            HELLO => Self::Hello { version: reader.u8()?, token: reader.bytes("a token", TOKEN_MAX)? },
            GRANT => Self::Grant { request: reader.u32()?, bytes: reader.u64()?, wait: millis(reader)? },
            PUT | PUT_INLINE | PUT_ISSUED | PUT_ISSUED_INLINE => {
                let request = reader.u32()?;
                let put = match kind {
                    PUT | PUT_INLINE => Put::Answered(Terms::read(reader)?),
                    _ => Put::Issued(reader.payload()?),
                };
                let bytes = match kind {
                    PUT | PUT_ISSUED => PutBytes::Segment(Place {
                        segment: reader.u32()?,
                        offset: reader.u64()?,
                        len: reader.u64()?,
                    }),
                    _ => PutBytes::Inline(reader.rest("an inline payload", INLINE_MAX)?),
                };
                Self::Put { request, put, bytes }
            }
            ISSUE => {
                let request = reader.u32()?;
                let count = reader.count("references", ISSUE_MAX)?;
                let count = u16::try_from(count).map_err(|_| FrameError::Value("a count"))?;
                Self::Issue { request, count, terms: Terms::read(reader)? }
            }
            GET => {
                let request = reader.u32()?;
                let mapped = reader.flag("a flag")?;
                let timeout = millis(reader)?;
                let references = reader
                    .list("references", GET_MAX, 2, |reader| reader.text("a reference", REFERENCE_MAX))?;
                Self::Get { request, get: Get { mapped, timeout, references } }
            }
            DONE => Self::Done { handles: reader.list("handles", LIST_MAX, 8, Reader::u64)? },
            RELEASE => Self::Release {
                request: reader.u32()?,
                reference: reader.text("a reference", REFERENCE_MAX)?,
            },
            FORGOT => Self::Forgot {
                segments: reader.list("segments", LIST_MAX, 4, Reader::u32)?,
                mappings: reader.list("mappings", LIST_MAX, 4, Reader::u32)?,
            },
            SETTLE => Self::Settle { request: reader.u32()? },
            CANCEL => Self::Cancel { request: reader.u32()? },
            unknown => return Err(FrameError::UnknownType(unknown)),
        })
    }

    /// Writes the whole frame behind what `out` holds. Fields beyond their limits are the caller's mistake.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put { request, put, bytes: PutBytes::Inline(bytes) } => {
                Self::write_inline_put(*request, put, bytes.len(), out);
                out.extend_from_slice(bytes);
            }
            _ => self.write_without_bytes(out),
        }
    }

    /// Writes a put whose `len` bytes follow from elsewhere.
    pub fn write_inline_put(request: u32, put: &Put<'_>, len: usize, out: &mut Vec<u8>) {
        let kind = if matches!(put, Put::Answered(_)) { PUT_INLINE } else { PUT_ISSUED_INLINE };
        let mut writer = Writer::new(out, kind);
        writer.u32(request);
        put.write(&mut writer);
        writer.end(len);
    }

    fn write_without_bytes(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, self.kind());
        match self {
            Self::Hello { version, token } => {
                writer.u8(*version).bytes(token);
            }
            Self::Grant { request, bytes, wait } => {
                writer.u32(*request).u64(*bytes).u32(to_millis(*wait));
            }
            Self::Put { request, put, bytes } => {
                writer.u32(*request);
                put.write(&mut writer);
                if let PutBytes::Segment(place) = bytes {
                    writer.u32(place.segment).u64(place.offset).u64(place.len);
                }
            }
            Self::Issue { request, count, terms } => {
                writer.u32(*request).u16(*count);
                terms.write(&mut writer);
            }
            Self::Get { request, get } => {
                writer.u32(*request).u8(get.mapped.into()).u32(to_millis(get.timeout));
                writer.count(get.references.len());
                for reference in &get.references {
                    writer.bytes(reference.as_bytes());
                }
            }
            Self::Done { handles } => {
                writer.count(handles.len());
                for handle in handles {
                    writer.u64(*handle);
                }
            }
            Self::Release { request, reference } => {
                writer.u32(*request).bytes(reference.as_bytes());
            }
            Self::Forgot { segments, mappings } => {
                for list in [segments, mappings] {
                    writer.count(list.len());
                    for id in list {
                        writer.u32(*id);
                    }
                }
            }
            Self::Settle { request } | Self::Cancel { request } => {
                writer.u32(*request);
            }
        }
        writer.end(0);
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => HELLO,
            Self::Grant { .. } => GRANT,
            Self::Put { put: Put::Answered(_), bytes: PutBytes::Segment(_), .. } => PUT,
            Self::Put { put: Put::Answered(_), bytes: PutBytes::Inline(_), .. } => PUT_INLINE,
            Self::Put { put: Put::Issued(_), bytes: PutBytes::Segment(_), .. } => PUT_ISSUED,
            Self::Put { put: Put::Issued(_), bytes: PutBytes::Inline(_), .. } => PUT_ISSUED_INLINE,
            Self::Issue { .. } => ISSUE,
            Self::Get { .. } => GET,
            Self::Done { .. } => DONE,
            Self::Release { .. } => RELEASE,
            Self::Forgot { .. } => FORGOT,
            Self::Settle { .. } => SETTLE,
            Self::Cancel { .. } => CANCEL,
        }
    }
}

impl Put<'_> {
    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Answered(terms) => terms.write(writer),
            Self::Issued(payload) => {
                writer.raw(payload.as_bytes());
            }
        }
    }
}

impl<'a> Terms<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, FrameError> {
        let retrievals = match reader.u32()? {
            0 => Retrievals::Unlimited,
            count if count <= RETRIEVALS_MAX => Retrievals::Limited(count),
            count => {
                let (actual, limit) = (u64::from(count), u64::from(RETRIEVALS_MAX));
                return Err(FrameError::Limit { what: "retrievals", actual, limit });
            }
        };
        Ok(Self {
            retrievals,
            ttl: millis(reader)?,
            linger: millis(reader)?,
            wait: millis(reader)?,
            content_type: reader.optional("a content type", CONTENT_TYPE_MAX)?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let retrievals = match self.retrievals {
            Retrievals::Limited(count) => count,
            Retrievals::Unlimited => 0,
        };
        writer.u32(retrievals).u32(to_millis(self.ttl)).u32(to_millis(self.linger)).u32(to_millis(self.wait));
        writer.optional(self.content_type);
    }
}

fn millis(reader: &mut Reader<'_>) -> Result<Duration, FrameError> {
    reader.u32().map(|millis| Duration::from_millis(millis.into()))
}

/// Whole milliseconds, upwards: what is more than nothing never becomes nothing.
fn to_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}
