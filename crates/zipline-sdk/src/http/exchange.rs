//! One request and its response on one connection.
//!
//! Both directions go on at the same time, so that a function which answers while it reads never stands against a client that only
//! writes. Nothing here waits: threads and tasks differ in how they do, and in nothing else.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use http::Response;
use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

use super::response::{Reader, Unreadable};
use crate::options::SocketAddress;

/// Where the local API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(SocketAddress),
    Tcp(SocketAddr),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(address) => address.fmt(f),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

impl Address {
    /// A connection on which no call waits; it may still be on its way.
    pub(super) fn connect(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match self {
            Self::Unix(address) => {
                let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                rustix::net::connect(&socket, &address.to_unix()?)?;
                Ok(socket)
            }
            Self::Tcp(address) => {
                let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
                sockopt::set_tcp_nodelay(&socket, true)?;
                match rustix::net::connect(&socket, address) {
                    Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// Whether a connection that nobody uses is as it was left: nothing was said on it, nor was it closed.
pub(super) fn is_fresh(connection: &OwnedFd) -> bool {
    let mut polled = [rustix::event::PollFd::new(connection, PollFlags::IN)];
    matches!(rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default())), Ok(0))
}

/// Why an exchange broke.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    Unreadable(Unreadable),
}

/// A request that is sent and a response that is read.
#[derive(Debug)]
pub(super) struct Exchange {
    connection: OwnedFd,
    /// What is still to be sent: the head, then the body.
    unsent: [Bytes; 2],
    /// Nothing more is taken from us, which a response should explain.
    refused: Option<io::Error>,
    reader: Reader,
}

impl Exchange {
    pub(super) fn new(connection: OwnedFd, head: Vec<u8>, body: Bytes, reader: Reader) -> Self {
        Self { connection, unsent: [head.into(), body], refused: None, reader }
    }

    /// Goes on as far as the connection lets it: `true` once the response is whole.
    pub(super) fn advance(&mut self) -> Result<bool, Broken> {
        self.send();
        self.receive()
    }

    fn send(&mut self) {
        for part in &mut self.unsent {
            while !part.is_empty() && self.refused.is_none() {
                match rustix::net::send(&self.connection, part, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(sent) => drop(part.split_to(sent)),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => return,
                    Err(error) => self.refused = Some(error.into()),
                }
            }
        }
    }

    fn receive(&mut self) -> Result<bool, Broken> {
        loop {
            match rustix::io::read(&self.connection, spare_capacity(self.reader.room())) {
                Ok(0) => {
                    let ended = self.reader.ended();
                    return match (ended, self.refused.take()) {
                        (Ok(()), _) => Ok(true),
                        (Err(_), Some(error)) if !self.reader.has_begun() => Err(Broken::Io(error)),
                        (Err(unreadable), _) => Err(Broken::Unreadable(unreadable)),
                    };
                }
                Ok(_) => {
                    if self.reader.came().map_err(Broken::Unreadable)? {
                        return Ok(true);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                // An answer to what was refused is there already, or never comes.
                Err(rustix::io::Errno::AGAIN) => {
                    return self.refused.take().map_or(Ok(false), |error| Err(Broken::Io(error)));
                }
                Err(error) => return Err(Broken::Io(self.refused.take().unwrap_or(error.into()))),
            }
        }
    }

    fn is_sent(&self) -> bool {
        self.unsent.iter().all(Bytes::is_empty)
    }

    /// What it waits for.
    pub(super) fn waits_for(&self) -> PollFlags {
        if self.is_sent() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// The response, and the connection if it can be used again.
    pub(super) fn end(mut self) -> (Response<Bytes>, Option<OwnedFd>) {
        let sent = self.is_sent();
        let (response, keeps) = self.reader.take();
        (response, Some(self.connection).filter(|_| sent && keeps))
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
