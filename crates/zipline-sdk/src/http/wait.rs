//! How threads and tasks wait for calls.

use std::time::Duration;

use rustix::event::{PollFd, Timespec};

use super::Running;
use crate::Result;

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

#[cfg(feature = "tokio")]
mod tasks {
    use std::io;
    use std::os::fd::AsFd as _;

    use bytes::Bytes;
    use http::Response;
    use rustix::event::PollFlags;
    use tokio::io::Interest;
    use tokio::net::{TcpStream, UnixStream};

    use super::super::Address;
    use super::Running;
    use crate::clock::now;
    use crate::{Error, Result};

    /// The runtime's eye on a connection.
    enum Watched {
        Unix(UnixStream),
        Tcp(TcpStream),
    }

    impl Watched {
        fn new(running: &Running) -> io::Result<Self> {
            let connection = running.as_fd().try_clone_to_owned()?;
            Ok(match running.http.0.address {
                Address::Unix(_) => Self::Unix(UnixStream::from_std(connection.into())?),
                Address::Tcp(_) => Self::Tcp(TcpStream::from_std(connection.into())?),
            })
        }

        async fn ready(&self, interest: Interest) -> io::Result<()> {
            match self {
                Self::Unix(stream) => stream.ready(interest).await.map(drop),
                Self::Tcp(stream) => stream.ready(interest).await.map(drop),
            }
        }

        /// Runs `go`; if it would have to wait, the next [`Self::ready`] does.
        fn try_io<T>(&self, interest: Interest, go: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
            match self {
                Self::Unix(stream) => stream.try_io(interest, go),
                Self::Tcp(stream) => stream.try_io(interest, go),
            }
        }
    }

    impl Running {
        fn sends(&self) -> bool {
            self.waits_for().contains(PollFlags::OUT)
        }

        /// Waits in a task for the response.
        ///
        /// # Cancel safety
        /// Dropping the future gives the call up.
        pub(crate) async fn response(mut self) -> Result<Response<Bytes>> {
            if let Some(response) = self.advance()? {
                return Ok(response);
            }
            let refused = |error| Error::unreachable("the runtime does not take the connection", error);
            let watched = Watched::new(&self).map_err(refused)?;
            loop {
                let interest =
                    if self.sends() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                let left = self.deadline.saturating_sub(now());
                match tokio::time::timeout(left, watched.ready(interest)).await {
                    Ok(ready) => ready.map_err(refused)?,
                    // It says so itself.
                    Err(_elapsed) => {
                        if let Some(response) = self.advance()? {
                            return Ok(response);
                        }
                    }
                }
                // Each direction by itself: of both together tokio never runs anything.
                for direction in [Interest::WRITABLE, Interest::READABLE] {
                    let went = watched.try_io(direction, || match self.advance() {
                        Ok(None) if direction == Interest::READABLE || self.sends() => {
                            Err(io::ErrorKind::WouldBlock.into())
                        }
                        ended => Ok(ended),
                    });
                    if let Some(response) = went.unwrap_or(Ok(None))? {
                        return Ok(response);
                    }
                }
            }
        }
    }
}
