//! Reading past the reactor: a thread of its own moves bytes from a socket into memory.
//!
//! Two connections are read on two cores, and a byte that comes wakes nobody but the thread that waits for it. A thread gives
//! up its connection when nothing comes for a moment, or after so many bytes: waiting for long, time limits and cancelling are
//! the reactor's. So a fetch that was dropped keeps a thread, and its memory, no longer than that.

use super::pool::Connection;
use super::room::Room;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use zipline_segment::Conduit;

/// From so many bytes on, moving them is worth waking a thread.
pub(super) const MOVE_MIN: u64 = 256 * 1024;
/// Most bytes a thread moves before the reactor looks at it again.
const MOVE_MAX: usize = 64 << 20;
/// Longest time without a byte.
const LULL: Duration = Duration::from_millis(5);

/// A connection and the memory it is read into.
pub(super) struct Moving {
    pub(super) connection: Connection,
    pub(super) room: Room,
    /// One of the threads there may be.
    pub(super) place: OwnedSemaphorePermit,
}

/// What a thread gives back.
pub(super) struct Moved {
    pub(super) connection: Connection,
    pub(super) room: Room,
}

impl Moving {
    /// Moves bytes until the chunk's end, a lull, or the most a thread moves. An error is the connection's.
    pub(super) fn run(self) -> (Moved, io::Result<()>) {
        let Self { mut connection, mut room, place } = self;
        // Without one, the bytes are written by their addresses.
        let conduit = room.is_fresh().then(Conduit::open).and_then(Result::ok);
        let mut left = MOVE_MAX;
        let result = loop {
            let most = room.free_bytes().min(left);
            if most == 0 || connection.wire.bare_bytes() == 0 {
                break Ok(());
            }
            let got = connection.wire.take_now(|tcp, there| {
                let most = most.min(there);
                match &conduit {
                    Some(conduit) => room.splice_in(most, tcp, conduit),
                    None => Ok(recv(tcp, &mut room.free()[..most], RecvFlags::DONTWAIT)?.0),
                }
            });
            match got {
                Ok(Some(0)) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Some(got)) => {
                    room.wrote(got);
                    left -= got;
                }
                Ok(None) if connection.wire.wait_now(LULL) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(place);
        (Moved { connection, room }, result)
    }
}
