//! Memory that is filled from its start, and shown to others meanwhile where it is copied.

use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::Arc;
use zipline_buffer::CopyWriter;
use zipline_segment::{Conduit, SegmentBytes, SegmentMut};

/// So many bytes are shown at once.
const SHOW_MIN: usize = 1 << 20;

/// A part of a payload's memory.
#[derive(Debug)]
pub(super) struct Room {
    /// Offset of its first byte in the payload.
    from: u64,
    /// What was shown, which does not change any more.
    shown: Option<SegmentBytes>,
    /// The rest, of which the first `written` bytes were written.
    open: SegmentMut,
    written: usize,
    /// Whether the memory was never written before.
    fresh: bool,
    copy: Option<Arc<CopyWriter>>,
}

impl Room {
    /// All of `memory`, for the payload's bytes from `from` on. With a copy, they are shown as they come.
    pub(super) fn new(from: u64, memory: SegmentMut, copy: Option<Arc<CopyWriter>>) -> Self {
        let fresh = memory.is_fresh(0);
        Self { from, shown: None, open: memory, written: 0, fresh, copy }
    }

    /// Whether the memory was never written before, so that [`Self::splice_in`] costs less than writing to what is free.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Moves at most `most` bytes from `socket` to what is free, which is not nothing; see [`SegmentMut::splice_in`].
    pub(super) fn splice_in(
        &mut self,
        most: usize,
        socket: impl AsFd,
        conduit: &Conduit,
    ) -> io::Result<usize> {
        self.open.splice_in(self.written, most, socket, conduit)
    }

    /// Bytes that are there.
    pub(super) fn filled(&self) -> usize {
        self.shown.as_ref().map_or(0, SegmentBytes::len) + self.written
    }

    /// How many bytes are to come.
    pub(super) fn free_bytes(&self) -> usize {
        self.open.len() - self.written
    }

    /// Where the next bytes go; empty at the end.
    pub(super) fn free(&mut self) -> &mut [u8] {
        &mut self.open[self.written..]
    }

    /// The first `bytes` of what was free were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        let enough = self.written >= SHOW_MIN || self.written == self.open.len();
        if let Some(copy) = self.copy.as_ref().filter(|_| enough && self.written > 0) {
            let at = self.from + self.shown.as_ref().map_or(0, SegmentBytes::len) as u64;
            let piece = self.open.split_to(std::mem::take(&mut self.written)).freeze();
            // Whether anybody sees it makes no difference here.
            copy.add(at, piece.clone());
            match &mut self.shown {
                None => self.shown = Some(piece),
                Some(shown) => shown.join(piece).expect("it follows in the same memory"),
            }
        }
    }

    /// What is there, and what follows it in `next`.
    pub(super) fn into_filled(self, next: Option<Self>) -> Filled {
        let mut filled = match self.shown {
            Some(shown) => Filled::Shown(shown),
            None => Filled::Open(self.open),
        };
        match (&mut filled, next) {
            (_, None) => {}
            (Filled::Open(memory), Some(next)) => memory.rejoin(next.open),
            (Filled::Shown(shown), Some(next)) => {
                let next = next.shown.expect("both are shown, or none");
                shown.join(next).expect("it follows in the same memory");
            }
        }
        filled
    }
}

/// A payload that is there.
#[derive(Debug)]
pub(super) enum Filled {
    /// Nobody has seen it.
    Open(SegmentMut),
    /// Others may have.
    Shown(SegmentBytes),
}

impl Filled {
    pub(super) fn freeze(self) -> SegmentBytes {
        match self {
            Self::Open(memory) => memory.freeze(),
            Self::Shown(bytes) => bytes,
        }
    }
}

impl Deref for Filled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Open(memory) => memory,
            Self::Shown(bytes) => bytes,
        }
    }
}
