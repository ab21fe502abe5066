//! The bytes of one payload: written once at the end, read at any number of places.
//!
//! What is written goes into the *tail*, the block being filled. A reader gets whole pieces of the tail without a copy
//! as soon as they are worth it ([`SPLIT_MIN`]); fewer bytes are copied for it, so that a payload that trickles does not
//! end up in thousands of slices. Full blocks and the end of the payload are never copied.
//!
//! The lock is held while bytes are copied in (at most one block) and is never held together with the store's lock.
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use zipline_protocol::data::FinalRecord;
use zipline_protocol::limits;

use crate::config::Settled;
use crate::error::{Gone, ReadError};
use crate::segment::Block;

/// Fewer bytes of an unfinished block are copied for a reader.
const SPLIT_MIN: usize = 16 * 1024;

pub(crate) struct Content {
    inner: Mutex<Inner>,
    declared: Option<u64>,
    /// Why it is gone. Set under the store's lock, so that whoever sees the ledger without it sees this.
    pub(crate) gone: OnceLock<Gone>,
    pub(crate) settled: OnceLock<Settled>,
    /// Bytes arrived, the payload ended, or leases changed.
    pub(crate) readable: Notify,
    /// The window may have room, or the payload is gone.
    pub(crate) writable: Notify,
    /// It was settled.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Offset of the first byte that is there.
    start: u64,
    written: u64,
    /// Pieces by their offset, without gaps.
    pieces: VecDeque<(u64, Bytes)>,
    tail: Option<Tail>,
    end: Option<FinalRecord>,
}

struct Tail {
    /// Offset of the first byte that is not a piece yet.
    offset: u64,
    /// Those bytes, and the room behind them.
    buffer: BytesMut,
    /// How much more may be written.
    room: usize,
    block: Arc<Block>,
}

/// What a reader finds at its place.
pub(crate) enum Found {
    Bytes(Bytes),
    /// Not written yet.
    Nothing,
    /// The end of the range, or of the payload.
    End,
}

impl Content {
    pub(crate) fn new(declared: Option<u64>) -> Self {
        Self {
            inner: Mutex::new(Inner::default()),
            declared,
            gone: OnceLock::new(),
            settled: OnceLock::new(),
            readable: Notify::new(),
            writable: Notify::new(),
            changed: Notify::new(),
        }
    }

    /// Copies as much of `data` as there is room for; returns how much.
    pub(crate) fn append(&self, data: &[u8]) -> usize {
        let mut inner = self.inner.lock();
        let Some(tail) = &mut inner.tail else { return 0 };
        let taken = tail.room.min(data.len());
        tail.buffer.extend_from_slice(&data[..taken]);
        tail.room -= taken;
        let full = tail.room == 0;
        inner.written += taken as u64;
        if full {
            inner.close_tail();
        }
        taken
    }

    /// Adds a block, once the last one is full.
    pub(crate) fn add_block(&self, block: Arc<Block>, buffer: BytesMut) {
        let room = usize::try_from(block.bytes()).unwrap_or(usize::MAX);
        let mut inner = self.inner.lock();
        debug_assert!(inner.tail.is_none(), "blocks are filled one after the other");
        inner.tail = Some(Tail { offset: inner.written, buffer, room, block });
    }

    /// Lets everything before `start` go, where a block ends. What comes out is to be dropped without a lock.
    pub(crate) fn evict(&self, start: u64) -> Vec<Bytes> {
        let mut inner = self.inner.lock();
        inner.start = start;
        let count = inner.pieces.partition_point(|(offset, _)| *offset < start);
        inner.pieces.drain(..count).map(|(_, bytes)| bytes).collect()
    }

    /// No more bytes.
    pub(crate) fn finish(&self, record: FinalRecord) {
        let mut inner = self.inner.lock();
        inner.close_tail();
        inner.end = Some(record);
    }

    /// Frees the bytes of a payload that is gone.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock();
        let pieces = std::mem::take(&mut inner.pieces);
        let tail = inner.tail.take();
        drop(inner);
        drop((pieces, tail));
    }

    pub(crate) fn final_record(&self) -> Option<FinalRecord> {
        self.inner.lock().end.clone()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.inner.lock().end.is_some()
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.declared.or_else(|| self.inner.lock().end.as_ref().map(|end| end.length))
    }

    /// The bytes at `position`, at most up to `to`, which a range that began at `from` wants.
    pub(crate) fn read(&self, from: u64, position: u64, to: Option<u64>) -> Result<Found, ReadError> {
        let mut inner = self.inner.lock();
        if let Some(length) = inner.end.as_ref().map(|end| end.length) {
            if from > length {
                return Err(ReadError::RangeInvalid { from, length });
            }
            if position >= length {
                return Ok(Found::End);
            }
        }
        if to.is_some_and(|to| position >= to) {
            return Ok(Found::End);
        }
        if let Some(gone) = self.gone.get() {
            return Err(ReadError::Gone(*gone));
        }
        if position < inner.start {
            return Err(ReadError::Evicted { position, start: inner.start });
        }
        if position >= inner.written {
            return Ok(Found::Nothing);
        }
        Ok(inner.find(position, to).map_or(Found::Nothing, Found::Bytes))
    }
}

impl Inner {
    fn close_tail(&mut self) {
        if let Some(mut tail) = self.tail.take() {
            if !tail.buffer.is_empty() {
                let piece = tail.buffer.split().freeze();
                self.pieces.push_back((tail.offset, tail.block.slice(piece)));
            }
            tail.block.close(tail.buffer);
        }
    }

    fn find(&mut self, position: u64, to: Option<u64>) -> Option<Bytes> {
        if let Some(tail) = self.tail.as_mut().filter(|tail| position >= tail.offset) {
            let skip = usize::try_from(position - tail.offset).ok()?;
            if tail.buffer.len() < SPLIT_MIN {
                let wanted = clip(tail.buffer.len() - skip, position, to);
                return Some(Bytes::copy_from_slice(&tail.buffer[skip..skip + wanted]));
            }
            let piece = tail.buffer.split().freeze();
            let offset = tail.offset;
            tail.offset += piece.len() as u64;
            self.pieces.push_back((offset, tail.block.slice(piece)));
        }
        let index = self.pieces.partition_point(|(offset, _)| *offset <= position).checked_sub(1)?;
        let (offset, piece) = &self.pieces[index];
        let skip = usize::try_from(position - offset).ok()?;
        if skip >= piece.len() {
            return None;
        }
        let wanted = clip((piece.len() - skip).min(limits::SEGMENT), position, to);
        Some(piece.slice(skip..skip + wanted))
    }
}

fn clip(available: usize, position: u64, to: Option<u64>) -> usize {
    to.and_then(|to| usize::try_from(to - position).ok()).map_or(available, |wanted| wanted.min(available))
}
