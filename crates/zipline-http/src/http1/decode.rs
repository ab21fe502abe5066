//! Where a message's body ends, and what of the bytes read belongs to it.

use super::chunked::Chunked;
use bytes::Bytes;
use http::HeaderMap;

/// Decodes one body.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// Bytes to come.
    Length(u64),
    Chunked(Box<Chunked>),
    /// The connection's end is the body's.
    Close,
}

/// What the bytes gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    Data(Bytes),
    /// The body is over.
    End(Option<HeaderMap>),
    /// Nothing is left to decode, and the body is not over.
    More,
}

impl Decoder {
    /// Takes from `read` what belongs to the body.
    ///
    /// # Errors
    /// Why this is no such body; nothing after it can be trusted.
    pub(crate) fn decode(&mut self, read: &mut Bytes) -> Result<Decoded, &'static str> {
        match self {
            Self::Length(0) => Ok(Decoded::End(None)),
            Self::Chunked(chunked) => chunked.decode(read),
            Self::Length(_) | Self::Close if read.is_empty() => Ok(Decoded::More),
            Self::Length(left) => {
                let length = read.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= length as u64;
                Ok(Decoded::Data(read.split_to(length)))
            }
            Self::Close => Ok(Decoded::Data(std::mem::take(read))),
        }
    }

    /// Whether nothing more belongs to the body, as far as is known without looking at what comes next.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// Whether the body is over; takes its end, if that is there as a whole and has no trailers.
    pub(crate) fn take_end(&mut self, read: &mut Bytes) -> bool {
        match self {
            Self::Chunked(chunked) => chunked.take_plain_end(read),
            Self::Length(_) | Self::Close => self.is_over(),
        }
    }

    /// Takes note of `length` bytes, at most [`Self::direct`], that were read past it.
    pub(crate) fn took(&mut self, length: u64) {
        match self {
            Self::Length(left) => *left -= length,
            Self::Chunked(chunked) => chunked.took(length),
            Self::Close => {}
        }
    }

    /// Bytes that are the body's and nothing else's, when all that was read is understood. Of a body that ends with its
    /// connection none: there an end of the connection is one of the body.
    pub(crate) fn direct(&self) -> u64 {
        if matches!(self, Self::Close) { 0 } else { self.left() }
    }

    /// Bytes that are worth reading at once: certainly still to come, or of a body that nothing else follows.
    pub(crate) fn left(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunked) => chunked.left(),
            Self::Close => u64::MAX,
        }
    }
}
