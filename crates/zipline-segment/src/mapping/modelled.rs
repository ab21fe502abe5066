//! In place of the kernel under Miri, which makes no system calls, and under loom, which runs everything thousands of times: a
//! mapping is memory of this process, and its descriptor is of a file that is never read. All that is done to the bytes is
//! checked as in earnest.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use super::Access;
use crate::PAGE;

pub(super) fn memory(_capacity: usize) -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, PAGE).expect("a capacity is less than half of all addresses")
}

pub(super) fn map(_fd: &OwnedFd, capacity: usize, _access: Access) -> io::Result<NonNull<u8>> {
    // SAFETY: the layout is not empty: a capacity is at least a page.
    let base = unsafe { alloc_zeroed(layout(capacity)) };
    Ok(NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?)
}

pub(super) unsafe fn unmap(base: NonNull<u8>, capacity: usize) {
    // SAFETY: `map` made it with this layout.
    unsafe { dealloc(base.as_ptr(), layout(capacity)) };
}

pub(super) unsafe fn advise_huge(_base: NonNull<u8>, _capacity: usize) {}

pub(super) unsafe fn populate(_base: NonNull<u8>, _range: Range<usize>) -> io::Result<()> {
    Ok(())
}

pub(super) fn allocate(_fd: BorrowedFd<'_>, _range: Range<usize>) -> io::Result<()> {
    Ok(())
}

pub(super) unsafe fn write(
    _fd: BorrowedFd<'_>,
    base: NonNull<u8>,
    offset: usize,
    bytes: &[u8],
) -> io::Result<usize> {
    // SAFETY: the range lies within the mapping: the caller has the right to write it.
    let start = unsafe { base.as_ptr().add(offset) };
    // SAFETY: nobody has a reference to it, and `bytes` lie elsewhere.
    unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(bytes.len())
}

pub(super) unsafe fn discard(_fd: BorrowedFd<'_>, base: NonNull<u8>, range: Range<usize>) -> io::Result<()> {
    // SAFETY: the range lies within the mapping.
    let start = unsafe { base.as_ptr().add(range.start) };
    // SAFETY: nobody has a reference into it.
    unsafe { start.write_bytes(0, range.len()) };
    Ok(())
}
