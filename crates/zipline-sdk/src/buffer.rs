//! Memory that a payload is written into in place.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

/// Payloads start at multiples of this, as arrays of any element like it.
pub(crate) const ALIGNMENT: usize = 64;

/// Writable memory that becomes a payload without a copy.
///
/// What it holds before it is written is unspecified: zeros, or bytes this function put earlier.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
    kept: Arc<OnceLock<Bytes>>,
}

/// Keeps the memory of a [`Buffer`] in place and unchanged, also after it was put or dropped, until it is dropped itself.
#[derive(Clone)]
pub struct Hold {
    _kept: Arc<OnceLock<Bytes>>,
}

impl Buffer {
    pub(crate) fn of_process(len: usize) -> Self {
        let memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, len, kept: Arc::new(OnceLock::new()) }
    }

    /// Shortens it; a longer `len` than it has changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Keeps its memory in place for whoever still looks at it.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold { _kept: Arc::clone(&self.kept) }
    }

    pub(crate) fn into_bytes(mut self) -> Bytes {
        self.end()
    }

    /// Ends the writing; a hold keeps the memory.
    fn end(&mut self) -> Bytes {
        let memory = Bytes::from(std::mem::take(&mut self.memory));
        let bytes = memory.slice(self.start..self.start + self.len);
        (self.start, self.len) = (0, 0);
        // Only here, and only once: a buffer ends once.
        let _ = self.kept.set(memory);
        bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if Arc::strong_count(&self.kept) > 1 && self.kept.get().is_none() {
            drop(self.end());
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
