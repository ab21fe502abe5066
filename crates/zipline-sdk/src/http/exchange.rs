//! One request and its response on one connection.
//!
//! Both directions go on at the same time, so that a function which answers while it reads never stands against a client that only
//! writes. Nothing here waits: threads and tasks differ in how they do, and in nothing else.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sockopt};

use super::outbox::Outbox;
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
    pub(super) outbox: Outbox,
    /// Nothing more is taken from us, which a response should explain.
    refused: Option<io::Error>,
    pub(super) reader: Reader,
    moved: u64,
}

impl Exchange {
    pub(super) fn new(connection: OwnedFd, outbox: Outbox, reader: Reader) -> Self {
        Self { connection, outbox, refused: None, reader, moved: 0 }
    }

    /// Goes on as far as the connection lets it, and until something is to be taken from the reader: `true` once the response is whole.
    pub(super) fn advance(&mut self) -> Result<bool, Broken> {
        self.send();
        self.receive()
    }

    fn send(&mut self) {
        while self.refused.is_none() && self.outbox.has_unsent() {
            let sent = self.outbox.send(|parts| {
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                rustix::net::sendmsg(&self.connection, parts, &mut SendAncillaryBuffer::default(), flags)
            });
            match sent {
                Ok(sent) => self.moved += sent as u64,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(error) => self.refused = Some(error.into()),
            }
        }
    }

    fn receive(&mut self) -> Result<bool, Broken> {
        let mut whole = self.reader.go_on().map_err(Broken::Unreadable)?;
        while !whole && !self.reader.is_full() {
            match rustix::io::read(&self.connection, spare_capacity(self.reader.room())) {
                Ok(0) => {
                    let ended = self.reader.ended();
                    return match (ended, self.refused.take()) {
                        (Ok(()), _) => Ok(true),
                        (Err(_), Some(error)) if !self.reader.has_begun() => Err(Broken::Io(error)),
                        (Err(unreadable), _) => Err(Broken::Unreadable(unreadable)),
                    };
                }
                Ok(count) => {
                    self.moved += count as u64;
                    whole = self.reader.came(count).map_err(Broken::Unreadable)?;
                }
                Err(rustix::io::Errno::INTR) => {}
                // An answer to what was refused is there already, or never comes.
                Err(rustix::io::Errno::AGAIN) if !self.reader.has_begun() => {
                    return self.refused.take().map_or(Ok(false), |error| Err(Broken::Io(error)));
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(Broken::Io(self.refused.take().unwrap_or(error.into()))),
            }
        }
        Ok(whole)
    }

    /// Whether the next piece of the request's body is wanted.
    pub(super) fn wants(&self) -> bool {
        self.refused.is_none() && self.outbox.wants()
    }

    /// Whether what is to be sent waits for the connection.
    pub(super) fn sends(&self) -> bool {
        self.refused.is_none() && self.outbox.has_unsent()
    }

    /// Bytes that went either way.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// What it waits for.
    pub(super) fn waits_for(&self) -> PollFlags {
        if self.sends() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
    }

    /// The connection, if it can be used again after a response that is whole.
    pub(super) fn end(self) -> Option<OwnedFd> {
        (self.outbox.is_sent() && self.reader.persists()).then_some(self.connection)
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
