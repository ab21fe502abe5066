//! The bytes of one payload: written once at the end, read at any number of places.
//!
//! What is written goes into the *tail*, the block being filled. In a mapping it is a piece at once, joined to the one
//! before it. In ordinary memory a reader gets whole pieces of the tail without a copy as soon as they are worth it
//! ([`SPLIT_MIN`]); fewer bytes are copied for it, so that a payload that trickles does not end up in thousands of slices.
//! Full blocks and the end of the payload are never copied.
//!
//! The lock is held while bytes are copied in (at most one block) and is never held together with the store's lock.
use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use zipline_protocol::data::FinalRecord;
use zipline_segment::{Mapping, Queued, SegmentBytes, SegmentMut};

use crate::block::{Block, HeapBlock};
use crate::config::Settled;
use crate::error::{Gone, ReadError};
use crate::ledger::LeaseKey;
use crate::piece::{Piece, Room, Spare};
use crate::sync::{Arc, Mutex, Notify, OnceLock};

/// Mappings of one payload that sockets may have pages of, over all leases: more than the blocks of 1 GB sent to a hundred.
const QUEUED_MAX: usize = 32_768;

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
    /// Mappings, by their ids, whose pages were handed to sockets for a lease that has not acknowledged.
    queued: Mutex<HashMap<(LeaseKey, u64), Queued>>,
}

#[derive(Default)]
struct Inner {
    /// Offset of the first byte that is there.
    start: u64,
    written: u64,
    /// Pieces by their offset, without gaps.
    pieces: VecDeque<(u64, Piece)>,
    tail: Tail,
    /// Bytes of a copy that came before those in front of them, by their offset.
    ahead: Option<(u64, SegmentBytes)>,
    end: Option<FinalRecord>,
}

#[derive(Default)]
enum Tail {
    /// None is being filled, or its writer has all of it.
    #[default]
    None,
    Heap(HeapTail),
    /// What of a mapping is not written yet.
    Mapped(SegmentMut),
}

struct HeapTail {
    /// Offset of the first byte that is not a piece yet.
    offset: u64,
    /// Those bytes, and the room behind them.
    buffer: BytesMut,
    /// How much more may be written.
    room: usize,
    block: Arc<HeapBlock>,
}

/// What a reader finds at its place.
pub(crate) enum Found {
    Bytes(Piece),
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
            queued: Mutex::default(),
        }
    }

    /// Pages of `mapping` are about to be handed to a socket for a lease. False: too many are out, copy the bytes.
    pub(crate) fn queue(&self, lease: LeaseKey, mapping: &Mapping) -> bool {
        let mut queued = self.queued.lock();
        if queued.len() >= QUEUED_MAX {
            return false;
        }
        queued.entry((lease, mapping.id())).or_insert_with(|| mapping.queue());
        true
    }

    /// The lease's receiver has read everything.
    pub(crate) fn were_read(&self, lease: LeaseKey) {
        for (_, queued) in self.queued.lock().extract_if(|(of, _), _| *of == lease) {
            queued.were_read();
        }
    }

    /// Copies as much of `data` as there is room for; returns how much.
    pub(crate) fn append(&self, data: &[u8]) -> usize {
        let mut inner = self.inner.lock();
        let taken = match &mut inner.tail {
            Tail::None => 0,
            Tail::Heap(tail) => {
                let taken = tail.room.min(data.len());
                tail.buffer.extend_from_slice(&data[..taken]);
                tail.room -= taken;
                inner.written += taken as u64;
                taken
            }
            Tail::Mapped(spare) => {
                let taken = spare.len().min(data.len());
                spare[..taken].copy_from_slice(&data[..taken]);
                inner.publish(taken);
                taken
            }
        };
        inner.close_if_full();
        taken
    }

    /// Hands at most `most` bytes of the tail's room to the writer, to be given back by [`Self::commit`]. `None`: full.
    pub(crate) fn reserve(&self, most: usize) -> Option<Spare> {
        let mut inner = self.inner.lock();
        match &mut inner.tail {
            Tail::None => None,
            Tail::Heap(tail) => {
                let most = most.min(tail.room);
                let piece = tail.buffer.split();
                if !piece.is_empty() {
                    let (offset, piece) = (tail.offset, HeapBlock::slice(&tail.block, piece.freeze()));
                    tail.offset += piece.len() as u64;
                    inner.pieces.push_back((offset, Piece::heap(piece)));
                    let Tail::Heap(again) = &mut inner.tail else { return None };
                    return Some(again.spare(most));
                }
                Some(tail.spare(most))
            }
            Tail::Mapped(spare) => {
                let most = most.min(spare.len());
                Some(Spare(Room::Mapped(spare.split_to(most))))
            }
        }
    }

    /// Takes back what was reserved, of which the first `written` bytes were written.
    pub(crate) fn commit(&self, spare: Spare, written: usize) {
        let mut inner = self.inner.lock();
        let offset = inner.written;
        match (&mut inner.tail, spare.0) {
            (Tail::Heap(tail), Room::Heap(mut bytes)) => {
                // What was not written goes back in front of the rest.
                let mut unwritten = bytes.split_off(written);
                unwritten.unsplit(std::mem::take(&mut tail.buffer));
                unwritten.clear();
                tail.buffer = unwritten;
                tail.offset += written as u64;
                tail.room -= written;
                let piece = HeapBlock::slice(&tail.block, bytes.freeze());
                inner.pieces.push_back((offset, Piece::heap(piece)));
                inner.written += written as u64;
            }
            (Tail::Mapped(rest), Room::Mapped(mut bytes)) => {
                let unwritten = bytes.split_off(written);
                let behind = std::mem::replace(rest, unwritten);
                rest.rejoin(behind);
                inner.push_mapped(bytes);
            }
            // The payload is gone.
            _ => return,
        }
        inner.close_if_full();
    }

    /// Adds a block, once the last one is full.
    pub(crate) fn add_block(&self, block: Block) {
        let mut inner = self.inner.lock();
        debug_assert!(matches!(inner.tail, Tail::None), "blocks are filled one after the other");
        inner.tail = match block {
            Block::Heap(buffer, block) => {
                let room = usize::try_from(block.bytes()).unwrap_or(usize::MAX);
                Tail::Heap(HeapTail { offset: inner.written, buffer, room, block })
            }
            Block::Mapped(segment) => Tail::Mapped(segment),
        };
    }

    /// Takes bytes that lie in a mapping already.
    pub(crate) fn adopt(&self, bytes: SegmentBytes) {
        let mut inner = self.inner.lock();
        let offset = inner.written;
        inner.written += bytes.len() as u64;
        inner.pieces.push_back((offset, Piece::mapped(bytes)));
    }

    /// Takes bytes of a copy: those that come next, or such that lie ahead of them and follow each other. Says how many there are
    /// without a gap; `None`: they fit nowhere, or the copy is gone.
    pub(crate) fn place(&self, offset: u64, bytes: SegmentBytes) -> Option<u64> {
        let mut inner = self.inner.lock();
        if self.gone.get().is_some() {
            return None;
        }
        if offset == inner.written {
            inner.push_segment(bytes);
            if let Some((at, ahead)) = inner.ahead.take() {
                if at == inner.written {
                    inner.push_segment(ahead);
                } else {
                    inner.ahead = Some((at, ahead));
                }
            }
            return Some(inner.written);
        }
        let written = inner.written;
        match &mut inner.ahead {
            None if offset > written => inner.ahead = Some((offset, bytes)),
            Some((at, ahead)) if *at + ahead.len() as u64 == offset => ahead.join(bytes).ok()?,
            _ => return None,
        }
        Some(written)
    }

    /// Bytes that are there without a gap.
    pub(crate) fn written(&self) -> u64 {
        self.inner.lock().written
    }

    /// Lets everything before `start` go, where a block ends. What comes out is to be dropped without a lock.
    pub(crate) fn evict(&self, start: u64) -> Vec<Piece> {
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
        let tail = std::mem::take(&mut inner.tail);
        let ahead = inner.ahead.take();
        drop(inner);
        drop((pieces, tail, ahead));
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

    /// The bytes at `position`, at most `most` of them and up to `to`, which a range that began at `from` wants.
    pub(crate) fn read(
        &self,
        from: u64,
        position: u64,
        to: Option<u64>,
        most: usize,
    ) -> Result<Found, ReadError> {
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
            return Ok(inner.find_ahead(position, to, most).map_or(Found::Nothing, Found::Bytes));
        }
        Ok(inner.find(position, to, most).map_or(Found::Nothing, Found::Bytes))
    }
}

impl HeapTail {
    fn spare(&mut self, most: usize) -> Spare {
        let mut bytes = std::mem::take(&mut self.buffer);
        self.buffer = bytes.split_off(most);
        bytes.resize(most, 0);
        Spare(Room::Heap(bytes))
    }
}

impl Inner {
    /// The first `count` bytes of the mapped tail are written.
    fn publish(&mut self, count: usize) {
        let Tail::Mapped(spare) = &mut self.tail else { return };
        let bytes = spare.split_to(count);
        self.push_mapped(bytes);
    }

    fn push_mapped(&mut self, bytes: SegmentMut) {
        if !bytes.is_empty() {
            self.push_segment(bytes.freeze());
        }
    }

    fn push_segment(&mut self, bytes: SegmentBytes) {
        let offset = self.written;
        self.written += bytes.len() as u64;
        let mut piece = Some(bytes);
        if let Some((_, last)) = self.pieces.back_mut() {
            piece = piece.and_then(|piece| last.join(piece).err());
        }
        if let Some(piece) = piece {
            self.pieces.push_back((offset, Piece::mapped(piece)));
        }
    }

    fn find_ahead(&self, position: u64, to: Option<u64>, most: usize) -> Option<Piece> {
        let (at, ahead) = self.ahead.as_ref()?;
        let skip = usize::try_from(position.checked_sub(*at)?).ok().filter(|skip| *skip < ahead.len())?;
        let wanted = clip((ahead.len() - skip).min(most), position, to);
        Some(Piece::mapped(ahead.slice(skip..skip + wanted)))
    }

    fn close_if_full(&mut self) {
        let full = match &self.tail {
            Tail::None => false,
            Tail::Heap(tail) => tail.room == 0,
            Tail::Mapped(spare) => spare.is_empty(),
        };
        if full {
            self.close_tail();
        }
    }

    fn close_tail(&mut self) {
        if let Tail::Heap(mut tail) = std::mem::take(&mut self.tail)
            && !tail.buffer.is_empty()
        {
            let piece = tail.buffer.split().freeze();
            self.pieces.push_back((tail.offset, Piece::heap(HeapBlock::slice(&tail.block, piece))));
        }
    }

    fn find(&mut self, position: u64, to: Option<u64>, most: usize) -> Option<Piece> {
        if let Tail::Heap(tail) = &mut self.tail
            && position >= tail.offset
        {
            let skip = usize::try_from(position - tail.offset).ok()?;
            if tail.buffer.len() < SPLIT_MIN {
                let wanted = clip((tail.buffer.len() - skip).min(most), position, to);
                return Some(Piece::heap(Bytes::copy_from_slice(&tail.buffer[skip..skip + wanted])));
            }
            let piece = tail.buffer.split().freeze();
            let offset = tail.offset;
            tail.offset += piece.len() as u64;
            self.pieces.push_back((offset, Piece::heap(HeapBlock::slice(&tail.block, piece))));
        }
        let index = self.pieces.partition_point(|(offset, _)| *offset <= position).checked_sub(1)?;
        let (offset, piece) = &self.pieces[index];
        let skip = usize::try_from(position - offset).ok()?;
        if skip >= piece.len() {
            return None;
        }
        let wanted = clip((piece.len() - skip).min(most), position, to);
        Some(piece.slice(skip..skip + wanted))
    }
}

fn clip(available: usize, position: u64, to: Option<u64>) -> usize {
    to.and_then(|to| usize::try_from(to - position).ok()).map_or(available, |wanted| wanted.min(available))
}
