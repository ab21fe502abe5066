//! Bytes of a payload as readers and writers hold them.
use std::ops::{Deref, DerefMut};

use bytes::{Bytes, BytesMut};
use zipline_segment::{Place, SegmentBytes, SegmentMut};

/// Some bytes of a payload, without a copy. They stay charged until it is dropped.
#[derive(Clone, Debug)]
pub struct Piece(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Heap(Bytes),
    Mapped(SegmentBytes),
}

impl Piece {
    pub(crate) fn heap(bytes: Bytes) -> Self {
        Self(Kept::Heap(bytes))
    }

    pub(crate) fn mapped(bytes: SegmentBytes) -> Self {
        Self(Kept::Mapped(bytes))
    }

    /// Where they lie, if they lie where the kernel can send them from.
    #[must_use]
    pub fn place(&self) -> Option<Place<'_>> {
        match &self.0 {
            Kept::Heap(_) => None,
            Kept::Mapped(bytes) => Some(bytes.place()),
        }
    }

    /// The bytes as a part of a mapping, if they are one.
    #[must_use]
    pub fn as_segment(&self) -> Option<&SegmentBytes> {
        match &self.0 {
            Kept::Heap(_) => None,
            Kept::Mapped(bytes) => Some(bytes),
        }
    }

    /// A part of them, without a copy.
    ///
    /// # Panics
    /// If the range does not lie within them.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        Self(match &self.0 {
            Kept::Heap(bytes) => Kept::Heap(bytes.slice(range)),
            Kept::Mapped(bytes) => Kept::Mapped(bytes.slice(range)),
        })
    }

    /// Adds what follows them in the same mapping; gives it back otherwise.
    pub(crate) fn join(&mut self, next: SegmentBytes) -> Result<(), SegmentBytes> {
        match &mut self.0 {
            Kept::Heap(_) => Err(next),
            Kept::Mapped(bytes) => bytes.join(next),
        }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Heap(bytes) => bytes,
            Kept::Mapped(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Piece> for Bytes {
    fn from(piece: Piece) -> Self {
        match piece.0 {
            Kept::Heap(bytes) => bytes,
            Kept::Mapped(bytes) => bytes.into(),
        }
    }
}

/// Memory of a payload that its writer fills by itself; see
/// [`PayloadWriter::reserve`](crate::PayloadWriter::reserve). What it holds before is of no meaning.
#[derive(Debug)]
pub struct Spare(pub(crate) Room);

#[derive(Debug)]
pub(crate) enum Room {
    /// As long as there is room.
    Heap(BytesMut),
    Mapped(SegmentMut),
}

impl Deref for Spare {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Room::Heap(bytes) => bytes,
            Room::Mapped(bytes) => bytes,
        }
    }
}

impl DerefMut for Spare {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Room::Heap(bytes) => bytes,
            Room::Mapped(bytes) => bytes,
        }
    }
}
