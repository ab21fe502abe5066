//! Fields of frames, read and written.

use super::{FRAME_MAX, HEAD_BYTES};
use crate::PayloadId;

/// A frame is not one of section 8; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than any frame.
    #[error("a frame of {actual_bytes} bytes, at most {FRAME_MAX} are allowed")]
    TooLong {
        /// Length announced.
        actual_bytes: u32,
    },
    /// No frame of this direction has this type.
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    /// It ends within a field.
    #[error("a frame ends within its fields")]
    Short,
    /// It goes on after its last field.
    #[error("a frame goes on after its fields")]
    Long,
    /// A count or length is beyond its limit.
    #[error("{what} of {actual}, at most {limit} are allowed")]
    Limit {
        /// What is too long or too many.
        what: &'static str,
        /// The value.
        actual: u64,
        /// The limit.
        limit: u64,
    },
    /// A field holds none of its values.
    #[error("{0} has no such value")]
    Value(&'static str),
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// The frame's type.
    pub kind: u8,
    /// Bytes of its body.
    pub body_bytes: usize,
}

impl FrameHead {
    /// Reads the head at the start of `bytes`; `None` while it is not there as a whole.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] before anything is read or allocated for the body.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [a, b, c, d, kind] = *head;
        let length = u32::from_be_bytes([a, b, c, d]);
        match usize::try_from(length) {
            Ok(body_bytes) if body_bytes <= FRAME_MAX => Ok(Some(Self { kind, body_bytes })),
            _ => Err(FrameError::TooLong { actual_bytes: length }),
        }
    }
}

/// Reads the fields of one frame.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn id(&mut self) -> Result<[u8; 16], FrameError> {
        self.array()
    }

    pub(crate) fn payload(&mut self) -> Result<PayloadId, FrameError> {
        self.id().map(PayloadId::from_bytes)
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Value(what)),
        }
    }

    /// A count of 16 bits.
    pub(crate) fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, FrameError> {
        let actual = self.u16()?;
        within(what, usize::from(actual), limit)
    }

    /// Bytes after their length of 16 bits.
    pub(crate) fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], FrameError> {
        let length = self.count(what, limit)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(FrameError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, FrameError> {
        std::str::from_utf8(self.bytes(what, limit)?).map_err(|_| FrameError::Value(what))
    }

    /// A flag, then the bytes if it is set.
    pub(crate) fn optional(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<Option<&'a [u8]>, FrameError> {
        if self.flag(what)? { self.bytes(what, limit).map(Some) } else { Ok(None) }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], FrameError> {
        within(what, self.0.len(), limit)?;
        Ok(std::mem::take(&mut self.0))
    }

    pub(crate) fn list<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        width: usize,
        read: impl Fn(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let count = self.count(what, limit)?;
        // What is not there is not allocated for.
        if self.0.len() < count * width {
            return Err(FrameError::Short);
        }
        (0..count).map(|_| read(self)).collect()
    }

    pub(crate) fn end(&self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Long) }
    }
}

fn within(what: &'static str, actual: usize, limit: usize) -> Result<usize, FrameError> {
    if actual <= limit {
        Ok(actual)
    } else {
        Err(FrameError::Limit { what, actual: actual as u64, limit: limit as u64 })
    }
}

/// Writes one frame behind what `out` holds.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, kind: u8) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, kind]);
        Self { out, start }
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.out.push(value);
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.u16(u16::try_from(count).expect("callers keep counts within their limits, all below 65536"))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).raw(bytes)
    }

    pub(crate) fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.u8(1).bytes(bytes),
            None => self.u8(0),
        }
    }

    /// Ends the frame, whose last `outside` bytes are sent from elsewhere.
    pub(crate) fn end(self, outside: usize) {
        let length = self.out.len() - self.start - HEAD_BYTES + outside;
        debug_assert!(length <= FRAME_MAX, "callers keep every field within its limit");
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.out[self.start..self.start + 4].copy_from_slice(&length.to_be_bytes());
    }
}
