//! How threads wait for calls.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::{PollFd, Timespec};

use super::Running;
use crate::clock::now;
use crate::proxy::TICK;
use crate::{Error, Result};

/// What is read of a body at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Waits in this thread until one of the calls may go on, at most `longest`.
///
/// # Errors
/// The kernel has no memory for it.
pub(crate) fn wait_any<'a>(running: impl Iterator<Item = &'a Running>, longest: Duration) -> Result<()> {
    let mut polled: Vec<_> = running.map(|running| PollFd::new(running, running.waits_for())).collect();
    let longest = Timespec {
        tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: longest.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut polled, Some(&longest)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => {
            Err(crate::Error::unreachable("the queue-proxy's answer cannot be waited for", error.into()))
        }
    }
}

/// Waits in this thread until `look` has something, and meanwhile sends what `source` gives. What is there already is handed out
/// before more is read from `source`, which may block for as long as it likes.
///
/// # Errors
/// Those of `look`; `request-invalid` if `source` fails.
pub(crate) fn drive<T>(
    running: &mut Running,
    mut source: Option<&mut (dyn Read + Send + '_)>,
    interrupted: Option<fn() -> bool>,
    mut look: impl FnMut(&mut Running) -> Result<Option<T>>,
) -> Result<T> {
    loop {
        if let Some(found) = look(running)? {
            return Ok(found);
        }
        if running.wants()
            && let Some(source) = &mut source
        {
            feed(running, &mut **source)?;
            continue;
        }
        wait_any(std::iter::once(&*running), running.deadline().saturating_sub(now()).min(TICK))?;
        if interrupted.is_some_and(|asked| asked()) {
            return Err(Error::interrupted("waiting for the queue-proxy"));
        }
    }
}

/// Reads the next piece, but nothing beyond the length that was said.
fn feed(running: &mut Running, source: &mut (dyn Read + Send + '_)) -> Result<()> {
    let most = running
        .left()
        .map_or(PIECE_BYTES, |left| usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES));
    let mut piece = BytesMut::zeroed(most);
    let read = loop {
        match source.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    // The time that it took is not the queue-proxy's.
    running.wait_anew();
    match read {
        Ok(0) => running.give_end(None),
        Ok(count) => {
            piece.truncate(count);
            running.give(piece.freeze())
        }
        Err(error) => Err(running.source_failed(error)),
    }
}
