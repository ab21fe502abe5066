//! TCP sockets with the options that data connections want, set before connect or listen.
//!
//! - `TCP_NODELAY`: otherwise Nagle and delayed acknowledgements together add 40 ms.
//! - `TCP_USER_TIMEOUT`: a peer that stops acknowledging is given up after 3 s, not after a quarter of an hour.
//! - Congestion control `cubic`: on short, fast links several times as fast as `bbr`. What users without privilege may set, the
//!   namespace says; if that is not cubic, it is `reno`, and if that neither, the default stays.
//! - Buffer sizes are left to the kernel: setting them switches its own tuning off.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use zipline_protocol::limits;

/// The first that is allowed is taken.
const CONGESTION_CONTROL: [&[u8]; 2] = [b"cubic", b"reno"];

/// Connections the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;

/// Listens on `address` (port 0: any free one). Accepted connections inherit the options; an IPv6 wildcard takes IPv4 too.
///
/// # Errors
/// What the kernel says: the address is taken, not ours, or not allowed.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = prepared(address)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects to `address`. There is no time limit here beyond the kernel's.
///
/// # Errors
/// What the kernel says.
/// # Cancel safety
/// Dropping the future closes the socket.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = prepared(address)?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

fn prepared(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(limits::TCP_USER_TIMEOUT))?;
    socket.set_keepalive(true)?;
    if !CONGESTION_CONTROL.iter().any(|name| socket.set_tcp_congestion(name).is_ok()) {
        tracing::trace!("congestion control stays at the namespace's default");
    }
    Ok(socket)
}

/// The options in force on a connection, for diagnosis and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// `TCP_NODELAY`.
    pub nodelay: bool,
    /// `TCP_USER_TIMEOUT`.
    pub user_timeout: Option<Duration>,
    /// Name of the congestion control.
    pub congestion_control: String,
}

/// Reads the options in force on `stream`.
///
/// # Errors
/// What the kernel says.
pub fn options(stream: &TcpStream) -> io::Result<SocketOptions> {
    let socket = socket2::SockRef::from(stream);
    let name = socket.tcp_congestion()?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(SocketOptions {
        nodelay: socket.tcp_nodelay()?,
        user_timeout: socket.tcp_user_timeout()?,
        congestion_control: String::from_utf8_lossy(name).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_ends_of_a_connection_have_the_options() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(connecting, listener.accept());
        for stream in [client.unwrap(), server.unwrap().0] {
            let options = options(&stream).unwrap();
            assert!(options.nodelay);
            assert_eq!(options.user_timeout, Some(limits::TCP_USER_TIMEOUT));
            assert!(!options.congestion_control.is_empty());
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let again = listen(listener.local_addr().unwrap());
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
