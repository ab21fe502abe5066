//! Ids of traces and spans.

use parking_lot::Mutex;

/// Random bytes taken from the kernel at once, so that not every request asks it.
const POOL_BYTES: usize = 1024;

/// Makes ids that no other queue-proxy makes.
#[derive(Debug)]
pub(crate) struct Ids {
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    bytes: [u8; POOL_BYTES],
    used: usize,
}

impl Ids {
    /// A maker of ids.
    pub(crate) fn new() -> Self {
        Self { pool: Mutex::new(Pool { bytes: [0; POOL_BYTES], used: POOL_BYTES }) }
    }

    /// An id that is not zero.
    pub(crate) fn next<const N: usize>(&self) -> [u8; N] {
        let mut pool = self.pool.lock();
        loop {
            if pool.used + N > POOL_BYTES {
                getrandom::fill(&mut pool.bytes).expect("Linux gives random bytes to whoever asks");
                pool.used = 0;
            }
            let mut id = [0; N];
            id.copy_from_slice(&pool.bytes[pool.used..pool.used + N]);
            pool.used += N;
            if id != [0; N] {
                return id;
            }
        }
    }
}
