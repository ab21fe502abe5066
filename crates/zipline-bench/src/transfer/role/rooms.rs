//! Warm memory for payloads, and whole reads and writes of several parts.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};

/// One piece of memory per payload, each written once before it is used.
#[derive(Debug, Default)]
pub(super) struct Rooms(Vec<Vec<u8>>);

impl Rooms {
    /// Has `count` rooms of `bytes`; those that fit stay as they are.
    pub(super) fn fit(&mut self, count: usize, bytes: usize) {
        if self.0.first().is_some_and(|room| room.len() != bytes) {
            self.0.clear();
        }
        while self.0.len() < count {
            // Zeros would be had without touching a page, and the first run would pay for that.
            self.0.push(vec![1; bytes]);
        }
    }

    pub(super) fn of(&self, nth: usize) -> &[u8] {
        &self.0[nth]
    }

    pub(super) fn of_mut(&mut self, nth: usize) -> &mut Vec<u8> {
        &mut self.0[nth]
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

/// Writes all parts with as few calls as the kernel allows.
pub(super) fn write_parts(stream: &mut impl Write, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut parts = parts;
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match stream.write_vectored(parts) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills all parts with as few calls as the kernel allows.
pub(super) fn read_parts(stream: &mut impl Read, parts: &mut [IoSliceMut<'_>]) -> io::Result<()> {
    let mut parts = parts;
    IoSliceMut::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match stream.read_vectored(parts) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => IoSliceMut::advance_slices(&mut parts, read),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
