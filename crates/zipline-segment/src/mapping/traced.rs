//! Who touches which bytes of a mapping, for the model checker: it fails where two may do so at a time and one of them writes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use loom::cell::UnsafeCell;

use crate::PAGE;

/// The pages of a mapping. Clones are the same pages: what a socket keeps when every handle is gone.
#[derive(Clone)]
pub struct Pages(Arc<[Page]>);

struct Page(UnsafeCell<()>);

// SAFETY: the cell holds nothing, and loom keeps its record of accesses itself.
unsafe impl Sync for Page {}
// SAFETY: as above.
unsafe impl Send for Page {}

impl Pages {
    pub(super) fn new(capacity: usize) -> Self {
        Self((0..capacity / PAGE).map(|_| Page(UnsafeCell::new(()))).collect())
    }

    fn of(&self, bytes: Range<usize>) -> &[Page] {
        if bytes.is_empty() { &[] } else { &self.0[bytes.start / PAGE..bytes.end.div_ceil(PAGE)] }
    }

    /// These bytes are read now.
    pub fn read(&self, bytes: Range<usize>) {
        self.of(bytes).iter().for_each(|page| page.0.with(|_| ()));
    }

    /// These bytes are written now.
    pub fn write(&self, bytes: Range<usize>) {
        self.of(bytes).iter().for_each(|page| page.0.with_mut(|_| ()));
    }

    /// All of it is read now.
    pub fn read_all(&self) {
        self.read(0..self.0.len() * PAGE);
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("count", &self.0.len()).finish()
    }
}
