//! The socket to the queue-proxy: connecting, sending a frame with one call, receiving bytes and descriptors with one call.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use zipline_segment::passing;

use crate::options::SocketAddress;

/// A blocking wait looks around this often.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A connected stream socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    blocks: AtomicBool,
}

impl Socket {
    /// Connects; a Unix socket does so at once or not at all.
    pub(super) fn connect(address: &SocketAddress) -> io::Result<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &address.to_unix()?)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TICK))?;
        set_socket_timeout(&socket, Timeout::Send, Some(TICK))?;
        Ok(Self { fd: socket, blocks: AtomicBool::new(true) })
    }

    /// From now on no call waits.
    pub(super) fn never_block(&self) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.fd, true)?;
        self.blocks.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Sends what the socket takes of `parts`, waiting for room at most [`TICK`].
    pub(super) fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        passing::send(&self.fd, parts, &[])
    }

    /// Sends what the socket takes now.
    pub(super) fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    /// Reads into `buffer`, waiting at most [`TICK`]; 0 at the end.
    ///
    /// It does not wait in the read itself: the kernel wakes a reader there also when the peer has taken what was sent to it, and
    /// that wake-up of another core delays the peer.
    pub(super) fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        if self.blocks.load(Ordering::Relaxed) && !self.readable(TICK)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        passing::receive(&self.fd, buffer, descriptors)
    }

    /// Waits until something can be read, at most `wait`: `false` if nothing can.
    pub(super) fn readable(&self, wait: Duration) -> io::Result<bool> {
        let mut polled = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        Ok(rustix::event::poll(&mut polled, Some(&wait))? > 0)
    }

    /// Ends every wait on it, in whatever thread.
    pub(super) fn close(&self) {
        // It may have ended by itself.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
