//! Memory that a payload is written into in place.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use zipline_segment::SegmentBytes;

use crate::proxy::{Link, Outgoing};

/// Payloads start at multiples of this, as arrays of any element like it.
const ALIGNMENT: usize = 64;

/// Memory of this size on gets its pages in one call.
const POPULATE_FROM: usize = 1024 * 1024;

/// Writable memory that becomes a payload without a copy.
///
/// What it holds before it is written is unspecified: zeros, or bytes this function put earlier.
pub struct Buffer {
    memory: Memory,
    kept: Arc<OnceLock<Kept>>,
}

enum Memory {
    /// Of a client without queue-proxy.
    Process { bytes: Vec<u8>, start: usize, len: usize },
    /// Shared with the queue-proxy.
    Segment { link: Arc<Link>, outgoing: Outgoing },
    /// It was put.
    Gone,
}

#[expect(dead_code, reason = "it keeps what it holds")]
enum Kept {
    Bytes(Bytes),
    Segment(SegmentBytes),
}

/// What a buffer became.
pub(crate) enum Written {
    Process(Bytes),
    Segment { link: Arc<Link>, id: u32, bytes: SegmentBytes },
}

/// Keeps the memory of a [`Buffer`] in place and out of use for other payloads, also after it was put or dropped, until it is dropped
/// itself.
#[derive(Clone)]
pub struct Hold {
    _kept: Arc<OnceLock<Kept>>,
}

impl Buffer {
    pub(crate) fn of_process(len: usize) -> Self {
        let bytes = vec![0; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory: Memory::Process { bytes, start, len }, kept: Arc::default() }
    }

    pub(crate) fn of_segment(link: Arc<Link>, mut outgoing: Outgoing, len: usize) -> Self {
        outgoing.memory.truncate(len);
        Self { memory: Memory::Segment { link, outgoing }, kept: Arc::default() }
    }

    /// Memory that this process has not written before gets its pages at once, which takes half the time of one by one.
    pub(crate) fn populate(&self) {
        if let Memory::Segment { outgoing, .. } = &self.memory
            && outgoing.memory.len() >= POPULATE_FROM
            && outgoing.memory.is_fresh(0)
        {
            // Without it they come as they are written.
            let _ = outgoing.memory.populate();
        }
    }

    /// Copies `bytes`, of which there are as many as it has.
    pub(crate) fn copy_in(&mut self, bytes: &[u8]) {
        match &mut self.memory {
            Memory::Segment { outgoing, .. } => outgoing.memory.copy_in(bytes),
            _ => self.copy_from_slice(bytes),
        }
    }

    /// Shortens it; a longer `len` than it has changes nothing.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.memory {
            Memory::Process { len: present, .. } => *present = len.min(*present),
            Memory::Segment { outgoing, .. } => outgoing.memory.truncate(len),
            Memory::Gone => {}
        }
    }

    /// Keeps its memory in place for whoever still looks at it.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold { _kept: Arc::clone(&self.kept) }
    }

    /// Ends the writing; a hold keeps the memory.
    pub(crate) fn written(mut self) -> Option<Written> {
        self.end()
    }

    fn end(&mut self) -> Option<Written> {
        let (written, kept) = match std::mem::replace(&mut self.memory, Memory::Gone) {
            Memory::Process { bytes, start, len } => {
                let whole = Bytes::from(bytes);
                (Written::Process(whole.slice(start..start + len)), Kept::Bytes(whole))
            }
            Memory::Segment { link, outgoing } => {
                let bytes = outgoing.memory.freeze();
                let kept = Kept::Segment(bytes.clone());
                (Written::Segment { link, id: outgoing.id, bytes }, kept)
            }
            Memory::Gone => return None,
        };
        if Arc::strong_count(&self.kept) > 1 {
            // The first time, since a buffer ends once.
            let _ = self.kept.set(kept);
        }
        Some(written)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Process { bytes, start, len } => &bytes[*start..*start + *len],
            Memory::Segment { outgoing, .. } => &outgoing.memory,
            Memory::Gone => &[],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Process { bytes, start, len } => &mut bytes[*start..*start + *len],
            Memory::Segment { outgoing, .. } => &mut outgoing.memory,
            Memory::Gone => &mut [],
        }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
