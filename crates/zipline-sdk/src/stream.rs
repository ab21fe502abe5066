//! What both kinds of clients know of an answer that is taken in pieces, and of a payload that is put so.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use http::HeaderMap;

use crate::http::{Head, Step, ours};
use crate::{Error, Payload, Result};

/// An answer, as far as it was taken.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    length: Option<u64>,
    taken: u64,
    content_type: Option<Arc<str>>,
    /// Of the last piece, what a reader has not taken yet.
    rest: Bytes,
    /// How it ended, and with which trailers.
    ended: Option<Result<HeaderMap>>,
}

impl Arrival {
    pub(crate) fn of(head: &Head) -> Self {
        let content_type = ours::content_type(head.response.headers());
        Self { length: head.length, content_type, ..Self::default() }
    }

    /// A payload that is there.
    pub(crate) fn held(payload: &Payload) -> Self {
        Self {
            length: Some(payload.len() as u64),
            content_type: payload.content_type().map(Into::into),
            rest: payload.bytes(),
            ended: Some(Ok(HeaderMap::new())),
            ..Self::default()
        }
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Bytes that are still to be taken, if they were counted.
    #[cfg(feature = "tokio")]
    pub(crate) fn left(&self) -> Option<u64> {
        self.length.map(|length| length.saturating_sub(self.taken))
    }

    pub(crate) fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.ended.as_ref()?.as_ref().ok()
    }

    /// Whether nothing more is to be waited for: a piece, the end, or the error that it ended with.
    pub(crate) fn is_settled(&self) -> bool {
        !self.rest.is_empty() || self.ended.is_some()
    }

    /// Whether it ended, and all that came of it was taken.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty() && self.ended.is_some()
    }

    /// What came. `true`: nothing more will.
    pub(crate) fn came(&mut self, step: Result<Step>) -> bool {
        match step {
            Ok(Step::Piece(piece)) => self.rest = piece,
            Ok(Step::End(trailers)) => self.ended = Some(Ok(trailers)),
            Ok(Step::Head(_)) => {}
            Err(error) => self.ended = Some(Err(error)),
        }
        self.ended.is_some()
    }

    /// The rest of the last piece; `None` at the end. An error is said again each time, so that nobody takes it for the end.
    pub(crate) fn take(&mut self) -> Result<Option<Bytes>> {
        let piece = std::mem::take(&mut self.rest);
        self.taken += piece.len() as u64;
        match &mut self.ended {
            _ if !piece.is_empty() => Ok(Some(piece)),
            Some(Err(error)) => {
                let again = error.again();
                Err(std::mem::replace(error, again))
            }
            _ => Ok(None),
        }
    }

    /// Takes as much of the last piece as there is room for; 0 at the end.
    pub(crate) fn take_into(&mut self, room: &mut [u8]) -> Result<usize> {
        let count = room.len().min(self.rest.len());
        if count == 0 && !room.is_empty() {
            return self.take().map(|_| 0);
        }
        self.rest.copy_to_slice(&mut room[..count]);
        self.taken += count as u64;
        Ok(count)
    }
}

/// The error of a put of what is held already.
pub(crate) fn held_already() -> Error {
    Error::invalid("a reference names a payload that is held already: get it, and put what came")
}

/// The error of a put in place whose source ended too early.
pub(crate) fn too_short(missing: usize) -> Error {
    Error::invalid(format_args!("the body of the put ended {missing} bytes before the length that was said"))
}

/// The error of a put in place whose source failed.
pub(crate) fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::invalid("the body of the put cannot be read").caused_by(error)
}

/// A length as that of memory.
pub(crate) fn in_memory(length: u64) -> Result<usize> {
    usize::try_from(length).map_err(|_| {
        let what = format_args!("{length} bytes can never be held: put them in parts");
        Error::new(crate::ErrorCode::PayloadTooLarge, what)
    })
}
