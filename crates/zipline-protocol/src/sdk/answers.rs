//! What a queue-proxy says to an SDK.

use std::time::Duration;

use super::wire::{FrameError, FrameHead, Reader, Writer};
use super::{DETAIL_MAX, GET_MAX, INLINE_MAX, ISSUE_MAX, LIST_MAX};
use crate::limits::{CONTENT_TYPE_MAX, REFERENCE_MAX, TENANT_MAX};
use crate::{BootId, ErrorCode, PayloadId};

/// The first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// [`super::VERSION`].
    pub version: u8,
    /// The queue-proxy's life.
    pub boot: BootId,
    /// Its tenant.
    pub tenant: &'a str,
    /// Largest payload that may travel in a frame, at most [`INLINE_MAX`].
    pub inline_max: u32,
    /// Largest payload that can be put at all: the budget.
    pub payload_max: u64,
}

/// What bounds the life of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundedBy {
    /// What was asked for.
    Requested,
    /// The longest life there is.
    Maximum,
    /// The holder drains.
    Drain,
}

impl BoundedBy {
    /// The word, as in the local API's answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Maximum => "maximum",
            Self::Drain => "drain",
        }
    }
}

/// Where the bytes of a get came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This queue-proxy held them.
    Own,
    /// A queue-proxy on this host passed its memory.
    Host,
    /// They were retrieved over the network.
    Network,
}

/// A pre-issued reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued<'a> {
    /// The payload that a put is to bring.
    pub payload: PayloadId,
    /// The reference's text.
    pub reference: &'a str,
}

/// The bytes of a get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GotBytes<'a> {
    /// In the frame.
    Inline(&'a [u8]),
    /// In memory that the queue-proxy shows for reading.
    Mapping {
        /// To be said done, once nothing reads it.
        handle: u64,
        /// Which memory.
        mapping: u32,
        /// Whether its descriptor rides on this frame: it is shown for the first time.
        shown: bool,
        /// First byte.
        offset: u64,
        /// Length.
        len: u64,
    },
    /// In an outgoing segment of this connection.
    Segment {
        /// To be said done, once nothing reads it.
        handle: u64,
        /// Which segment.
        segment: u32,
        /// First byte.
        offset: u64,
        /// Length.
        len: u64,
    },
}

/// One payload of a get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got<'a> {
    /// Where it came from.
    pub origin: Origin,
    /// Its content type.
    pub content_type: Option<&'a [u8]>,
    /// Its bytes.
    pub bytes: GotBytes<'a>,
}

/// One frame of a queue-proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// To hello.
    Welcome(Welcome<'a>),
    /// To a grant; the descriptor rides on this frame.
    Segment {
        /// The request.
        request: u32,
        /// Its id on this connection.
        segment: u32,
        /// Its capacity.
        capacity: u64,
    },
    /// To a put without a pre-issued reference.
    PutDone {
        /// The request.
        request: u32,
        /// The life that applies.
        ttl: Duration,
        /// What bounds it.
        bounded_by: BoundedBy,
        /// The reference's text.
        reference: &'a str,
    },
    /// To an issue; as many as could be issued.
    Issued {
        /// The request.
        request: u32,
        /// The references.
        issued: Vec<Issued<'a>>,
    },
    /// To one reference of a get.
    Got {
        /// The request.
        request: u32,
        /// Which of its references.
        index: u8,
        /// What was got.
        got: Got<'a>,
    },
    /// To a release or a settle.
    Ok {
        /// The request.
        request: u32,
    },
    /// To any request, or to one reference of a get.
    Error {
        /// The request.
        request: u32,
        /// Which of its references; else 0.
        index: u8,
        /// The stable code.
        code: ErrorCode,
        /// What happened, and what to do.
        detail: &'a str,
    },
    /// These outgoing segments may be written again.
    Free {
        /// Their ids.
        segments: Vec<u32>,
    },
    /// These are to be unmapped once nothing uses them, and then said to be forgotten.
    Drop {
        /// Outgoing segments.
        segments: Vec<u32>,
        /// Mappings.
        mappings: Vec<u32>,
    },
}

const WELCOME: u8 = 64;
const SEGMENT: u8 = 65;
const PUT_DONE: u8 = 66;
const ISSUED: u8 = 67;
const GOT_INLINE: u8 = 68;
const GOT_MAPPING: u8 = 69;
const GOT_SEGMENT: u8 = 70;
const OK: u8 = 71;
const ERROR: u8 = 72;
const FREE: u8 = 73;
const DROP: u8 = 74;

impl<'a> Answer<'a> {
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
            WELCOME => Self::Welcome(Welcome {
                version: reader.u8()?,
                boot: BootId::from_bytes(reader.id()?),
                tenant: reader.text("a tenant", TENANT_MAX)?,
                inline_max: reader.u32()?,
                payload_max: reader.u64()?,
            }),
            SEGMENT => {
                Self::Segment { request: reader.u32()?, segment: reader.u32()?, capacity: reader.u64()? }
            }
            PUT_DONE => Self::PutDone {
                request: reader.u32()?,
                ttl: Duration::from_millis(reader.u64()?),
                bounded_by: match reader.u8()? {
                    0 => BoundedBy::Requested,
                    1 => BoundedBy::Maximum,
                    2 => BoundedBy::Drain,
                    _ => return Err(FrameError::Value("a bound")),
                },
                reference: reader.text("a reference", REFERENCE_MAX)?,
            },
            ISSUED => Self::Issued {
                request: reader.u32()?,
                issued: reader.list("references", ISSUE_MAX, 18, |reader| {
                    Ok(Issued {
                        payload: reader.payload()?,
                        reference: reader.text("a reference", REFERENCE_MAX)?,
                    })
                })?,
            },
            GOT_INLINE | GOT_MAPPING | GOT_SEGMENT => Self::got(kind, reader)?,
            OK => Self::Ok { request: reader.u32()? },
            ERROR => Self::Error {
                request: reader.u32()?,
                index: index(reader)?,
                code: ErrorCode::parse(reader.text("a code", 64)?).ok_or(FrameError::Value("a code"))?,
                detail: reader.text("a detail", DETAIL_MAX)?,
            },
            FREE => Self::Free { segments: reader.list("segments", LIST_MAX, 4, Reader::u32)? },
            DROP => Self::Drop {
                segments: reader.list("segments", LIST_MAX, 4, Reader::u32)?,
                mappings: reader.list("mappings", LIST_MAX, 4, Reader::u32)?,
            },
            unknown => return Err(FrameError::UnknownType(unknown)),
        })
    }

    fn got(kind: u8, reader: &mut Reader<'a>) -> Result<Self, FrameError> {
        let (request, index) = (reader.u32()?, index(reader)?);
        let origin = match reader.u8()? {
            0 => Origin::Own,
            1 => Origin::Host,
            2 => Origin::Network,
            _ => return Err(FrameError::Value("an origin")),
        };
        let content_type = reader.optional("a content type", CONTENT_TYPE_MAX)?;
        let bytes = match kind {
            GOT_MAPPING => GotBytes::Mapping {
                handle: reader.u64()?,
                mapping: reader.u32()?,
                shown: reader.flag("a flag")?,
                offset: reader.u64()?,
                len: reader.u64()?,
            },
            GOT_SEGMENT => GotBytes::Segment {
                handle: reader.u64()?,
                segment: reader.u32()?,
                offset: reader.u64()?,
                len: reader.u64()?,
            },
            _ => GotBytes::Inline(reader.rest("an inline payload", INLINE_MAX)?),
        };
        Ok(Self::Got { request, index, got: Got { origin, content_type, bytes } })
    }

    /// Writes the whole frame behind what `out` holds. Fields beyond their limits are the caller's mistake, but the detail
    /// of an error, which is cut.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, self.kind());
        match self {
            Self::Welcome(welcome) => {
                writer.u8(welcome.version).raw(welcome.boot.as_bytes()).bytes(welcome.tenant.as_bytes());
                writer.u32(welcome.inline_max).u64(welcome.payload_max);
            }
            Self::Segment { request, segment, capacity } => {
                writer.u32(*request).u32(*segment).u64(*capacity);
            }
            Self::PutDone { request, ttl, bounded_by, reference } => {
                let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                writer.u32(*request).u64(ttl).u8(*bounded_by as u8).bytes(reference.as_bytes());
            }
            Self::Issued { request, issued } => {
                writer.u32(*request).count(issued.len());
                for Issued { payload, reference } in issued {
                    writer.raw(payload.as_bytes()).bytes(reference.as_bytes());
                }
            }
            Self::Got { request, index, got } => got.write(*request, *index, &mut writer),
            Self::Ok { request } => {
                writer.u32(*request);
            }
            Self::Error { request, index, code, detail } => {
                writer.u32(*request).u8(*index).bytes(code.as_str().as_bytes());
                writer.bytes(cut(detail).as_bytes());
            }
            Self::Free { segments } => list(segments, &mut writer),
            Self::Drop { segments, mappings } => {
                list(segments, &mut writer);
                list(mappings, &mut writer);
            }
        }
        writer.end(0);
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Welcome(_) => WELCOME,
            Self::Segment { .. } => SEGMENT,
            Self::PutDone { .. } => PUT_DONE,
            Self::Issued { .. } => ISSUED,
            Self::Got { got, .. } => match got.bytes {
                GotBytes::Inline(_) => GOT_INLINE,
                GotBytes::Mapping { .. } => GOT_MAPPING,
                GotBytes::Segment { .. } => GOT_SEGMENT,
            },
            Self::Ok { .. } => OK,
            Self::Error { .. } => ERROR,
            Self::Free { .. } => FREE,
            Self::Drop { .. } => DROP,
        }
    }
}

impl Got<'_> {
    fn write(&self, request: u32, index: u8, writer: &mut Writer<'_>) {
        writer.u32(request).u8(index).u8(self.origin as u8).optional(self.content_type);
        match self.bytes {
            GotBytes::Inline(bytes) => {
                writer.raw(bytes);
            }
            GotBytes::Mapping { handle, mapping, shown, offset, len } => {
                writer.u64(handle).u32(mapping).u8(shown.into()).u64(offset).u64(len);
            }
            GotBytes::Segment { handle, segment, offset, len } => {
                writer.u64(handle).u32(segment).u64(offset).u64(len);
            }
        }
    }
}

fn index(reader: &mut Reader<'_>) -> Result<u8, FrameError> {
    let index = reader.u8()?;
    if usize::from(index) < GET_MAX { Ok(index) } else { Err(FrameError::Value("an index")) }
}

fn list(ids: &[u32], writer: &mut Writer<'_>) {
    writer.count(ids.len());
    for id in ids {
        writer.u32(*id);
    }
}

fn cut(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(DETAIL_MAX)]
}
