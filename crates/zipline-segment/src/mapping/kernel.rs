//! What a mapping asks of the kernel.

use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::Access;

/// A file without a name, of fixed size and without a page, that nobody can run as a program.
pub(super) fn memory(capacity: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match memfd_create("zipline payload", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 there was no such flag.
        Err(rustix::io::Errno::INVAL) => memfd_create("zipline payload", flags),
        made => made,
    }?;
    ftruncate(&fd, capacity as u64)?;
    fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(fd)
}

/// Maps all of `fd`, of which `capacity` bytes are there for good.
pub(super) fn map(fd: &OwnedFd, capacity: usize, access: Access) -> io::Result<NonNull<u8>> {
    let protection = match access {
        Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        Access::ReadOnly => ProtFlags::READ,
    };
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing; its size is not zero.
    let base = unsafe { mmap(std::ptr::null_mut(), capacity, protection, MapFlags::SHARED, fd, 0) }?;
    Ok(NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?)
}

/// # Safety
/// `base` is what [`map`] gave for as many bytes, and nobody has a reference into it.
pub(super) unsafe fn unmap(base: NonNull<u8>, capacity: usize) {
    // SAFETY: the caller's promise.
    let unmapped = unsafe { munmap(base.as_ptr().cast(), capacity) };
    debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
}

/// Tells the kernel that huge pages are welcome. A hint: where it is refused, pages are small.
///
/// # Safety
/// `base` is what [`map`] gave for as many bytes.
pub(super) unsafe fn advise_huge(base: NonNull<u8>, capacity: usize) {
    // SAFETY: the caller's promise; the hint changes no content.
    let _small = unsafe { madvise(base.as_ptr().cast(), capacity, Advice::LinuxHugepage) };
}

/// Gives `range`, which is made of whole pages, its pages. They keep what they hold.
///
/// # Safety
/// `base` is what [`map`] gave for at least `range.end` bytes.
pub(super) unsafe fn populate(base: NonNull<u8>, range: Range<usize>) -> io::Result<()> {
    // SAFETY: the range lies within the mapping.
    let start = unsafe { base.as_ptr().add(range.start) };
    // SAFETY: the pages are the mapping's; populating them changes no content.
    unsafe { madvise(start.cast(), range.len(), Advice::LinuxPopulateWrite) }?;
    Ok(())
}

/// Gives `range` of `fd`, which is made of whole pages, its pages. They keep what they hold.
pub(super) fn allocate(fd: BorrowedFd<'_>, range: Range<usize>) -> io::Result<()> {
    Ok(fallocate(fd, FallocateFlags::empty(), range.start as u64, range.len() as u64)?)
}

/// Writes to `offset` of `fd`; says how many bytes.
///
/// # Safety
/// `base` is where `fd` is mapped, and nobody has a reference to what is written.
pub(super) unsafe fn write(
    fd: BorrowedFd<'_>,
    _base: NonNull<u8>,
    offset: usize,
    bytes: &[u8],
) -> io::Result<usize> {
    Ok(rustix::io::pwrite(fd, bytes, offset as u64)?)
}

/// Gives the pages of `range` back.
///
/// # Safety
/// `base` is where `fd` is mapped, and nobody has a reference into `range`.
pub(super) unsafe fn discard(fd: BorrowedFd<'_>, _base: NonNull<u8>, range: Range<usize>) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(fd, flags, range.start as u64, range.len() as u64)?)
}
