//! Rights to the bytes of a mapping.
//!
//! Every handle owns a share of the mapping and a range of its bytes. Ranges of [`SegmentMut`]s never overlap with those of
//! any other handle: they start as the whole mapping, are only ever split, and end as [`SegmentBytes`], which may be cloned
//! and sliced since nobody writes them any more. When the last handle is gone, the mapping goes to its [`Home`], where it
//! may begin again as one [`SegmentMut`].
#![expect(unsafe_code, reason = "turning a range of a mapping into a slice")]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;

use crate::sync::Arc;
use crate::{Access, Mapping};

/// Where a mapping goes when nobody has a part of it any more.
pub trait Home: Send + Sync {
    /// Takes it. Called in whatever thread dropped the last handle, so it should be quick and must not wait.
    fn returned(self: Box<Self>, mapping: Mapping);
}

/// A mapping that handles are out of.
struct Lent {
    mapping: ManuallyDrop<Mapping>,
    home: Option<Box<dyn Home>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: this is the only place that takes it, once, and nothing looks at it afterwards.
        let mapping = unsafe { ManuallyDrop::take(&mut self.mapping) };
        match self.home.take() {
            Some(home) => home.returned(mapping),
            None => drop(mapping),
        }
    }
}

/// The right to write a range of a mapping.
pub struct SegmentMut {
    lent: Arc<Lent>,
    start: usize,
    end: usize,
    /// Whether somebody may have written to it.
    written: bool,
}

impl SegmentMut {
    /// All of `mapping`, which goes to `home` in the end; without one it is unmapped then.
    ///
    /// # Panics
    /// If the mapping is for reading only.
    #[must_use]
    pub fn whole(mapping: Mapping, home: Option<Box<dyn Home>>) -> Self {
        assert!(mapping.access() == Access::ReadWrite, "a mapping for reading only has no right to write");
        let end = mapping.capacity();
        let lent = Arc::new(Lent { mapping: ManuallyDrop::new(mapping), home });
        Self { lent, start: 0, end, written: false }
    }

    /// Bytes it may write.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Splits off the first `at` bytes; this one keeps the rest.
    ///
    /// # Panics
    /// If `at` is more than there is.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Self {
        assert!(at <= self.len(), "cannot split {} bytes at {at}", self.len());
        let middle = self.start + at;
        let first =
            Self { lent: Arc::clone(&self.lent), start: self.start, end: middle, written: self.written };
        self.start = middle;
        first
    }

    /// Splits off everything from `at` on; this one keeps the first `at` bytes.
    ///
    /// # Panics
    /// If `at` is more than there is.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let first = self.split_to(at);
        std::mem::replace(self, first)
    }

    /// Takes back what was split off behind it.
    ///
    /// # Panics
    /// If `next` is not what follows it in the same mapping.
    pub fn rejoin(&mut self, mut next: Self) {
        assert!(Arc::ptr_eq(&self.lent, &next.lent) && self.end == next.start, "only neighbours are joined");
        self.end = next.end;
        self.written |= std::mem::take(&mut next.written);
    }

    /// Gives up what lies behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        if self.written {
            // What was written there has pages, whoever has it next.
            self.lent.mapping.note_written(self.end);
        }
        self.end = self.end.min(self.start.saturating_add(len));
    }

    /// Gives the bytes pages now; see [`Mapping::populate`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn populate(&self) -> std::io::Result<()> {
        self.lent.mapping.populate(self.start..self.end)
    }

    /// The mapping it is of, for its descriptor and its counts.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.lent.mapping
    }

    /// Offset of its first byte in the mapping.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.start
    }

    /// Ends the writing: the bytes do not change any more. Whatever was not written holds what an earlier payload left
    /// there, so only what was written may be frozen; [`SegmentMut::truncate`] gives up the rest.
    #[must_use]
    pub fn freeze(mut self) -> SegmentBytes {
        self.note();
        SegmentBytes { lent: Arc::clone(&self.lent), start: self.start, end: self.end }
    }

    /// Somebody is about to write to it.
    pub(crate) fn note_writing(&mut self) {
        self.written = true;
    }

    fn note(&mut self) {
        if std::mem::take(&mut self.written) {
            self.lent.mapping.note_written(self.end);
        }
    }
}

impl Deref for SegmentMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        #[cfg(loom)]
        self.lent.mapping.traced().read(self.start..self.end);
        // SAFETY: `start` lies within the mapping, or right behind its end.
        let first = unsafe { self.lent.mapping.base().as_ptr().add(self.start) };
        // SAFETY: the range is mapped as long as `lent` lives, initialised by the kernel, and no other handle of this
        // process overlaps it.
        unsafe { std::slice::from_raw_parts(first, self.len()) }
    }
}

impl DerefMut for SegmentMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.note_writing();
        #[cfg(loom)]
        self.lent.mapping.traced().write(self.start..self.end);
        // SAFETY: `start` lies within the mapping, or right behind its end.
        let first = unsafe { self.lent.mapping.base().as_ptr().add(self.start) };
        // SAFETY: as above; the mapping is writable, and `&mut self` is the only way to this range.
        unsafe { std::slice::from_raw_parts_mut(first, self.len()) }
    }
}

impl Drop for SegmentMut {
    fn drop(&mut self) {
        self.note();
    }
}

impl fmt::Debug for SegmentMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentMut").field("offset", &self.start).field("len", &self.len()).finish()
    }
}

/// Bytes of a mapping that do not change any more. Clones and slices share them.
#[derive(Clone)]
pub struct SegmentBytes {
    lent: Arc<Lent>,
    start: usize,
    end: usize,
}

/// Where bytes lie: what a kernel call needs to send them.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The mapping.
    pub mapping: &'a Mapping,
    /// Offset of the first byte in the mapping's file.
    pub offset: u64,
}

impl Place<'_> {
    /// The file they lie in.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.mapping.as_fd()
    }
}

impl SegmentBytes {
    /// The bytes `range` of an adopted mapping, which goes to `home` in the end. Another process may still change them.
    ///
    /// `None` if the range does not lie within it.
    #[must_use]
    pub fn of_adopted(
        mapping: Mapping,
        range: std::ops::Range<usize>,
        home: Option<Box<dyn Home>>,
    ) -> Option<Self> {
        if range.start > range.end || range.end > mapping.capacity() {
            return None;
        }
        let lent = Arc::new(Lent { mapping: ManuallyDrop::new(mapping), home });
        Some(Self { lent, start: range.start, end: range.end })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where they lie.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        Place { mapping: &self.lent.mapping, offset: self.start as u64 }
    }

    /// A part of them, without a copy.
    ///
    /// # Panics
    /// If the range does not lie within them.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => *before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => *last + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => self.len(),
        };
        assert!(from <= to && to <= self.len(), "no {from}..{to} in {} bytes", self.len());
        Self { lent: Arc::clone(&self.lent), start: self.start + from, end: self.start + to }
    }

    /// Joins `next` to these if it is what follows them in the same mapping; gives it back otherwise.
    ///
    /// # Errors
    /// `next`, unchanged.
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        if Arc::ptr_eq(&self.lent, &next.lent) && self.end == next.start {
            self.end = next.end;
            Ok(())
        } else {
            Err(next)
        }
    }
}

impl Deref for SegmentBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        #[cfg(loom)]
        self.lent.mapping.traced().read(self.start..self.end);
        // SAFETY: `start` lies within the mapping, or right behind its end.
        let first = unsafe { self.lent.mapping.base().as_ptr().add(self.start) };
        // SAFETY: the range is mapped as long as `lent` lives and initialised. Nothing in this process writes it: whoever had
        // the right to has given it up. Of an adopted mapping another process may; its bytes are data and never decide
        // anything here.
        unsafe { std::slice::from_raw_parts(first, self.len()) }
    }
}

impl AsRef<[u8]> for SegmentBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<SegmentBytes> for Bytes {
    fn from(bytes: SegmentBytes) -> Self {
        Self::from_owner(bytes)
    }
}

impl fmt::Debug for SegmentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentBytes").field("offset", &self.start).field("len", &self.len()).finish()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
