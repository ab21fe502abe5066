//! Filling memory that this process has not written yet.
//!
//! The first write to a page by its address makes the kernel stop the thread, find memory, fill it with zeros and map it, page by
//! page. Written through the mapping's file, whole pages are neither zeroed nor mapped, which takes about half the time
//! (`docs/adr/0031`). Memory that was written before has its pages in place, and is written by its address.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::SegmentMut;

/// Bytes that a conduit takes at a time where the system allows it.
const CONDUIT_BYTES: usize = 1 << 20;

/// A pipe through which bytes go from a socket into a mapping's file. It is empty between two calls; after an error drop it.
#[derive(Debug)]
pub struct Conduit {
    from: OwnedFd,
    to: OwnedFd,
    bytes: usize,
}

impl Conduit {
    /// A new one.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn open() -> io::Result<Self> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        // Users without privilege may have so many pages in pipes; beyond that a pipe keeps the size it has.
        let bytes =
            fcntl_setpipe_size(&to, CONDUIT_BYTES).or_else(|_full| rustix::pipe::fcntl_getpipe_size(&to))?;
        Ok(Self { from, to, bytes })
    }
}

impl SegmentMut {
    /// Whether what lies at `at` was never written by this process, as far as it knows.
    #[must_use]
    pub fn is_fresh(&self, at: usize) -> bool {
        self.offset() + at >= self.mapping().written_bytes()
    }

    /// Moves at most `most` bytes that have arrived at `socket`, which never waits, to `at`. Says how many; 0 is the end of
    /// the connection, [`io::ErrorKind::WouldBlock`] says that none is there.
    ///
    /// # Errors
    /// The socket's, or what the kernel says when it has no memory left; then bytes of the stream may be lost.
    /// # Panics
    /// If nothing lies at `at`.
    pub fn splice_in(
        &mut self,
        at: usize,
        most: usize,
        socket: impl AsFd,
        conduit: &Conduit,
    ) -> io::Result<usize> {
        assert!(at < self.len(), "there is no byte {at} in {}", self.len());
        let most = most.min(self.len() - at).min(conduit.bytes);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let got = splice(socket, None, &conduit.to, None, most, flags)?;
        let mut position = (self.offset() + at) as u64;
        let end = position + got as u64;
        self.note_writing();
        while position < end {
            let left = usize::try_from(end - position).expect("a part of what a conduit holds");
            match splice(&conduit.from, None, self.mapping(), Some(&mut position), left, SpliceFlags::MOVE) {
                Ok(1..) | Err(Errno::INTR) => {}
                // The file may be sealed against this, the mapping is not.
                Ok(0) | Err(Errno::PERM) => {
                    read_all(&conduit.from, &mut self[at + got - left..at + got])?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(got)
    }

    /// Copies `bytes` to its start.
    ///
    /// # Panics
    /// If there are more of them than it has.
    pub fn copy_in(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len(), "{} bytes do not fit into {}", bytes.len(), self.len());
        let mut done = 0;
        if self.is_fresh(0) {
            self.note_writing();
            // Where the file cannot be written, the mapping can.
            while let Ok(count @ 1..) = self.mapping().write_file(self.offset() + done, &bytes[done..]) {
                done += count;
            }
        }
        self[done..bytes.len()].copy_from_slice(&bytes[done..]);
    }
}

fn read_all(from: &OwnedFd, mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        match rustix::io::read(from, &mut *room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => room = &mut room[got..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
