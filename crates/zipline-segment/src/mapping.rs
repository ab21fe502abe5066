//! One anonymous file and the one place it is mapped at.
#![expect(unsafe_code, reason = "mapping memory and giving its pages back")]

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals};

use crate::PAGE;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

#[cfg_attr(any(miri, loom), path = "mapping/modelled.rs")]
mod kernel;
#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(loom)]
mod traced;

#[cfg(loom)]
pub use traced::Pages;

/// Segments below this size are not worth a huge page.
const HUGE_FROM: usize = 4 << 20;

/// Whether large segments ask for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Never.
    Off,
    /// The kernel is told that they are welcome.
    Advised,
}

impl HugePages {
    /// What works on this machine: the hint is silently useless unless the kernel's setting is `advise` or `always`.
    #[must_use]
    pub fn detect() -> Self {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
        Self::of_setting(setting.as_deref().unwrap_or_default())
    }

    fn of_setting(setting: &str) -> Self {
        let chosen = setting.split_whitespace().find(|word| word.starts_with('['));
        match chosen {
            Some("[advise]" | "[always]" | "[within_size]" | "[force]") => Self::Advised,
            _ => Self::Off,
        }
    }
}

/// What an adopted mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Written and read.
    ReadWrite,
    /// Read.
    ReadOnly,
}

/// Why a descriptor from elsewhere was not mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// It is nothing whose size is fixed for good, so reading it could end this process.
    #[error("the descriptor is no memory whose size is sealed")]
    Unsealed,
    /// It has fewer bytes than it was said to have.
    #[error("the descriptor has {actual} bytes, said to be at least {wanted}")]
    TooShort {
        /// Bytes said to be there.
        wanted: usize,
        /// Bytes there.
        actual: u64,
    },
    /// The kernel refused.
    #[error("the descriptor cannot be mapped")]
    Kernel(#[from] io::Error),
}

/// An anonymous file of fixed size, mapped for as long as this value lives.
///
/// Its handles ([`SegmentMut`](crate::SegmentMut), [`SegmentBytes`](crate::SegmentBytes)) own it while there are any.
pub struct Mapping {
    id: u64,
    fd: OwnedFd,
    base: NonNull<u8>,
    capacity: usize,
    access: Access,
    /// Bytes from the start that may have pages of their own.
    touched: AtomicUsize,
    /// Bytes from the start of which some were written by this process.
    written: AtomicUsize,
    /// What became of the descriptor: one of the constants below, and only ever a higher one.
    sharing: AtomicU8,
    /// How many [`Queued`]s nobody has called read.
    queued: Arc<AtomicUsize>,
    #[cfg(loom)]
    traced: Pages,
}

/// Pages of a mapping that sockets were handed without a copy. The kernel keeps them until the peer has read them, which only
/// the peer can say; until it has, [`Mapping::may_be_written_again`] says no. Dropping this says nothing: the pages are then
/// never written again.
#[derive(Debug)]
#[must_use = "dropping it gives the mapping's reuse up"]
pub struct Queued(Arc<AtomicUsize>);

impl Queued {
    /// The peer has read everything.
    pub fn were_read(self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Nobody else was given it.
const PRIVATE: u8 = 0;
/// Others were, and said when they let go.
const SHARED: u8 = 1;
/// Others were, and will never say.
const ABANDONED: u8 = 2;

// SAFETY: the pages belong to the mapping, wherever it is; nothing about them is tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives no access to the bytes; that is what the handles are for, which keep rights apart.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// A new one of `capacity` bytes, rounded up to whole pages, whose size nobody can change. No page is touched.
    ///
    /// # Errors
    /// What the kernel says: no descriptor or no address space is left.
    pub fn create(capacity: usize, huge: HugePages) -> io::Result<Self> {
        let capacity = capacity.max(1).next_multiple_of(PAGE);
        let fd = kernel::memory(capacity)?;
        let mapping = Self::map(fd, capacity, Access::ReadWrite, 0)?;
        if huge == HugePages::Advised && capacity >= HUGE_FROM {
            // SAFETY: it was mapped right now with this capacity.
            unsafe { kernel::advise_huge(mapping.base, capacity) };
        }
        Ok(mapping)
    }

    /// Maps what another process sent, of which at least `wanted` bytes are to be there.
    ///
    /// Only memory whose size is sealed is taken, so that no access can end this process. Its content may still be changed by
    /// whoever else can write it; treat it as what a peer says.
    /// # Errors
    /// See [`AdoptError`].
    pub fn adopt(fd: OwnedFd, wanted: usize, access: Access) -> Result<Self, AdoptError> {
        let seals = fcntl_get_seals(&fd).map_err(|_not_memory| AdoptError::Unsealed)?;
        if !seals.contains(SealFlags::GROW | SealFlags::SHRINK) {
            return Err(AdoptError::Unsealed);
        }
        let actual = u64::try_from(rustix::fs::fstat(&fd).map_err(io::Error::from)?.st_size).unwrap_or(0);
        let capacity = usize::try_from(actual).ok().filter(|actual| *actual >= wanted.max(1));
        let Some(capacity) = capacity else { return Err(AdoptError::TooShort { wanted, actual }) };
        Ok(Self::map(fd, capacity, access, capacity)?)
    }

    fn map(fd: OwnedFd, capacity: usize, access: Access, touched: usize) -> io::Result<Self> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = kernel::map(&fd, capacity, access)?;
        let (touched, written) = (AtomicUsize::new(touched), AtomicUsize::new(0));
        let sharing = AtomicU8::new(PRIVATE);
        Ok(Self {
            id,
            fd,
            base,
            capacity,
            access,
            touched,
            written,
            sharing,
            queued: Arc::default(),
            #[cfg(loom)]
            traced: Pages::new(capacity),
        })
    }

    /// Tells it from every other mapping of this process, wherever it is moved.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// What it may be used for.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Bytes that may have pages of their own: everything up to the last byte ever written or populated, in whole pages.
    /// Of an adopted one: all.
    #[must_use]
    pub fn touched_bytes(&self) -> usize {
        self.touched.load(Ordering::Relaxed)
    }

    fn note_touched(&self, end: usize) {
        self.touched.fetch_max(end.next_multiple_of(PAGE).min(self.capacity), Ordering::Relaxed);
    }

    /// Bytes from the start of which this process has written some; what lies behind has no page, or one nobody here has
    /// mapped yet.
    pub(crate) fn written_bytes(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn note_written(&self, end: usize) {
        self.note_touched(end);
        self.written.fetch_max(end, Ordering::Relaxed);
    }

    /// Writes `bytes` at `offset` through the file; says how many.
    ///
    /// # Errors
    /// What the kernel says: it is sealed, or there is no memory left.
    pub(crate) fn write_file(&self, offset: usize, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(loom)]
        self.traced.write(offset..offset + bytes.len());
        // SAFETY: whoever has the right to write there calls this, and has no reference to its bytes meanwhile.
        unsafe { kernel::write(self.fd.as_fd(), self.base, offset, bytes) }
    }

    /// The descriptor is about to reach a function that does not own what lies here.
    pub fn mark_shared(&self) {
        self.sharing.fetch_max(SHARED, Ordering::Relaxed);
    }

    /// Somebody has it mapped who will never say when that ends.
    pub fn mark_abandoned(&self) {
        self.sharing.fetch_max(ABANDONED, Ordering::Relaxed);
    }

    /// Pages of it are about to be handed to a socket.
    pub fn queue(&self) -> Queued {
        self.queued.fetch_add(1, Ordering::Relaxed);
        Queued(Arc::clone(&self.queued))
    }

    /// Whether other bytes may be written here once nobody uses these any more. `trusting`: those who were given the descriptor
    /// are trusted to have let go of it when they said so.
    #[must_use]
    pub fn may_be_written_again(&self, trusting: bool) -> bool {
        if self.queued.load(Ordering::Acquire) > 0 {
            return false;
        }
        match self.sharing.load(Ordering::Relaxed) {
            PRIVATE => true,
            SHARED => trusting,
            _ => false,
        }
    }

    /// From now on nobody else can map it writable or write to it, whatever descriptor they have. Mappings that are
    /// writable already, ours and those that were made before, stay so.
    ///
    /// # Errors
    /// What the kernel says; it knows this since version 5.1.
    pub fn seal_future_write(&self) -> io::Result<()> {
        if fcntl_get_seals(&self.fd)?.contains(SealFlags::FUTURE_WRITE) {
            return Ok(());
        }
        Ok(fcntl_add_seals(&self.fd, SealFlags::FUTURE_WRITE)?)
    }

    /// Gives the bytes `range` pages now, so that writing them later finds them there. Keeps what they hold.
    ///
    /// # Errors
    /// What the kernel says; no page that was missing can then be counted on.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        let range = self.pages(range);
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: `pages` keeps the range within the mapping.
        unsafe { kernel::populate(self.base, range.clone()) }?;
        self.note_touched(range.end);
        Ok(())
    }

    /// Gives the bytes `range` pages now without mapping them: whoever writes them first finds the pages there. Keeps what they hold.
    ///
    /// # Errors
    /// What the kernel says; no page that was missing can then be counted on.
    pub fn allocate(&self, range: Range<usize>) -> io::Result<()> {
        let range = self.pages(range);
        if range.is_empty() {
            return Ok(());
        }
        kernel::allocate(self.fd.as_fd(), range.clone())?;
        self.note_touched(range.end);
        Ok(())
    }

    /// Gives the pages from `start` on back to the kernel; they read as zeros afterwards. Only where nobody has a handle.
    ///
    /// # Errors
    /// What the kernel says; then the pages are kept.
    pub fn discard_from(&mut self, start: usize) -> io::Result<()> {
        let start = start.next_multiple_of(PAGE).min(self.capacity);
        let end = self.touched_bytes();
        if start < end {
            #[cfg(loom)]
            self.traced.write(start..end);
            // SAFETY: every handle owns the mapping it is of, so nobody else has a reference to its bytes.
            unsafe { kernel::discard(self.fd.as_fd(), self.base, start..end) }?;
            self.touched.store(start, Ordering::Relaxed);
            self.written.fetch_min(start, Ordering::Relaxed);
        }
        Ok(())
    }

    fn pages(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.capacity).next_multiple_of(PAGE);
        let start = range.start.min(end);
        start - start % PAGE..end
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its pages, as whoever has them sees them, with a right to them or without.
    #[cfg(loom)]
    #[must_use]
    pub fn traced(&self) -> &Pages {
        &self.traced
    }
}

impl AsFd for Mapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this capacity, and every handle owns the mapping it is of, so no reference is left.
        unsafe { kernel::unmap(self.base, self.capacity) };
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("capacity", &self.capacity)
            .field("access", &self.access)
            .field("touched", &self.touched_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
