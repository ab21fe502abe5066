//! Buffers that bytes pass through on their way to somebody else, used again and again.
//!
//! Writing into fresh pages is several times slower than into warm ones, so what a socket brings should land in memory
//! that was written before. A [`Passage`] is filled piece by piece, each piece is handed on without a copy, and when the
//! last piece of a buffer was dropped, the buffer is warm for the next one.
//!
//! | buffer | goes to |
//! |---|---|
//! | being filled | full: sealed; the passage is dropped: sealed |
//! | sealed | its last piece is dropped: warm, or freed if enough are warm |
//! | warm | taken by a passage; freed by [`Recycler::cool`] if none was taken for [`Recycler::IDLE`] |
//!
//! The recycler bounds what is kept, not what is under way: whoever reads bounds that by not reading on.
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::buf::Limit;
use bytes::{BufMut, Bytes, BytesMut};

use crate::sync::time::Instant;
use crate::sync::{self, Mutex};

/// Hands out buffers of one size and takes them back. Clones share them.
#[derive(Debug, Clone)]
pub struct Recycler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    buffer_bytes: usize,
    max_warm: usize,
    warm: Mutex<Warm>,
}

#[derive(Debug)]
struct Warm {
    buffers: Vec<BytesMut>,
    quiet_since: Instant,
}

impl Recycler {
    /// Warm buffers are freed after this time without anyone taking one.
    pub const IDLE: Duration = Duration::from_secs(30);

    /// Keeps at most `max_warm` unused buffers of `buffer_bytes` each.
    #[must_use]
    pub fn new(buffer_bytes: usize, max_warm: usize) -> Self {
        let warm = Mutex::new(Warm { buffers: Vec::new(), quiet_since: Instant::now() });
        Self { shared: Arc::new(Shared { buffer_bytes: buffer_bytes.max(1), max_warm, warm }) }
    }

    /// A way for bytes through these buffers. Takes no buffer before the first byte.
    #[must_use]
    pub fn passage(&self) -> Passage {
        Passage { shared: Arc::clone(&self.shared), filling: None }
    }

    /// Bytes of the buffers that wait to be used again.
    #[must_use]
    pub fn warm_bytes(&self) -> u64 {
        (self.shared.warm.lock().buffers.len() * self.shared.buffer_bytes) as u64
    }

    /// When [`Recycler::cool`] has something to free, unless a buffer is taken before; `None` while none is warm.
    #[must_use]
    pub fn cools_at(&self) -> Option<Instant> {
        let warm = self.shared.warm.lock();
        (!warm.buffers.is_empty()).then(|| warm.quiet_since + Self::IDLE)
    }

    /// Frees the warm buffers if none was taken for [`Recycler::IDLE`].
    pub fn cool(&self) {
        let mut warm = self.shared.warm.lock();
        if warm.quiet_since.elapsed() >= Self::IDLE {
            let cold = std::mem::take(&mut warm.buffers);
            // Unmapping takes time.
            drop(warm);
            drop(cold);
        }
    }
}

/// Takes bytes in and hands them on without a copy.
#[derive(Debug)]
pub struct Passage {
    shared: Arc<Shared>,
    filling: Option<Filling>,
}

#[derive(Debug)]
struct Filling {
    buffer: BytesMut,
    origin: sync::Arc<Origin>,
}

impl Passage {
    /// Room for up to `most` bytes, and at least one if `most` is. What is written to it comes out of [`Passage::take`].
    pub fn room(&mut self, most: usize) -> Limit<&mut BytesMut> {
        if self.filling.as_ref().is_some_and(|filling| filling.spare() == 0) {
            // What was not taken yet stays in front.
            debug_assert!(self.pending() == 0, "full buffers are taken before there is more room");
            self.filling = None;
        }
        let shared = &self.shared;
        let filling = self.filling.get_or_insert_with(|| Filling::new(shared));
        let spare = filling.spare();
        (&mut filling.buffer).limit(most.min(spare))
    }

    /// Bytes written and not taken yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.filling.as_ref().map_or(0, |filling| filling.buffer.len())
    }

    /// Whether what is pending has to be taken before more can be written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pending() > 0 && self.filling.as_ref().is_some_and(|filling| filling.spare() == 0)
    }

    /// Everything pending, as one piece.
    pub fn take(&mut self) -> Bytes {
        let Some(filling) = &mut self.filling else { return Bytes::new() };
        let bytes = filling.buffer.split().freeze();
        if bytes.is_empty() {
            return bytes;
        }
        Bytes::from_owner(Piece { bytes, _origin: sync::Arc::clone(&filling.origin) })
    }
}

impl Filling {
    fn new(shared: &Arc<Shared>) -> Self {
        let warm = {
            let mut warm = shared.warm.lock();
            warm.quiet_since = Instant::now();
            warm.buffers.pop()
        };
        let buffer = warm.unwrap_or_else(|| BytesMut::with_capacity(shared.buffer_bytes));
        Self {
            buffer,
            origin: sync::Arc::new(Origin { home: Arc::downgrade(shared), rest: Mutex::new(None) }),
        }
    }

    /// How much more this buffer takes without being moved.
    fn spare(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        *self.origin.rest.lock() = Some(std::mem::take(&mut self.buffer));
    }
}

/// One buffer: what is left of it once nothing is written any more. Through the rest the whole buffer is won back.
#[derive(Debug)]
struct Origin {
    home: Weak<Shared>,
    rest: Mutex<Option<BytesMut>>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        let (Some(home), Some(mut rest)) = (self.home.upgrade(), self.rest.get_mut().take()) else { return };
        rest.clear();
        if !rest.try_reclaim(home.buffer_bytes) {
            return;
        }
        let mut warm = home.warm.lock();
        if warm.buffers.len() < home.max_warm {
            if warm.buffers.is_empty() {
                warm.quiet_since = Instant::now();
            }
            warm.buffers.push(rest);
        }
    }
}

/// The bytes first: when the last piece lets its origin go, no other reference to the buffer is left.
struct Piece {
    bytes: Bytes,
    _origin: sync::Arc<Origin>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(passage: &mut Passage, bytes: &[u8]) -> usize {
        let mut room = passage.room(bytes.len());
        let taken = room.remaining_mut().min(bytes.len());
        room.put_slice(&bytes[..taken]);
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_buffer_is_used_again_once_its_last_piece_is_gone() {
        let recycler = Recycler::new(8, 1);
        let mut passage = recycler.passage();
        assert_eq!(fill(&mut passage, b"hello"), 5);
        let first = passage.take();
        assert_eq!(fill(&mut passage, b"world"), 3);
        assert!(passage.is_full());
        let second = passage.take();
        let place = first.as_ptr();
        assert_eq!((first.as_ref(), second.as_ref()), (&b"hello"[..], &b"wor"[..]));
        drop(passage);
        drop(first);
        assert_eq!(recycler.warm_bytes(), 0, "a piece is still out");
        drop(second);
        assert_eq!(recycler.warm_bytes(), 8);
        let mut again = recycler.passage();
        assert_eq!(fill(&mut again, b"x"), 1);
        assert_eq!(again.take().as_ptr(), place, "the same memory");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_kept_than_asked_for_and_nothing_for_long() {
        let recycler = Recycler::new(4, 1);
        let pieces: Vec<Bytes> = (0..3)
            .map(|_| {
                let mut passage = recycler.passage();
                fill(&mut passage, b"abcd");
                passage.take()
            })
            .collect();
        drop(pieces);
        assert_eq!(recycler.warm_bytes(), 4);
        recycler.cool();
        assert_eq!(recycler.warm_bytes(), 4, "too early");
        tokio::time::advance(Recycler::IDLE).await;
        assert!(recycler.cools_at().is_some_and(|at| at <= Instant::now()));
        recycler.cool();
        assert_eq!((recycler.warm_bytes(), recycler.cools_at()), (0, None));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_and_stays(
            writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..40),
            keep in 0_usize..6,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _entered = runtime.enter();
            let recycler = Recycler::new(16, 2);
            let mut passage = recycler.passage();
            // Pieces that live on while their neighbours' memory is used again.
            let mut alive: Vec<(Bytes, Vec<u8>)> = Vec::new();
            for write in writes {
                let mut rest = &write[..];
                while !rest.is_empty() {
                    let taken = fill(&mut passage, rest);
                    prop_assert!(taken > 0);
                    alive.push((passage.take(), rest[..taken].to_vec()));
                    rest = &rest[taken..];
                }
                if alive.len() > keep {
                    alive.drain(..alive.len() - keep);
                }
                for (piece, expected) in &alive {
                    prop_assert_eq!(piece.as_ref(), &expected[..]);
                }
            }
        }
    }
}
