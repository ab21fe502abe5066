//! The folder of an instance's Unix socket, and ports for functions.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};

/// A folder that only the instance's user can enter; removed when dropped.
#[derive(Debug)]
pub(super) struct InstanceFolder(PathBuf);

impl InstanceFolder {
    pub(super) fn make(path: PathBuf, user: Option<u32>) -> io::Result<Self> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&path, Some(user), Some(user))?;
        }
        Ok(Self(path))
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for InstanceFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that nobody else gets as long as this is held. It is bound and does not listen, so that a readiness probe cannot
/// take it for the function. The function binds it itself, so it is let go of just before
/// the function starts; whoever is faster then makes the start fail, and the next one gets another port.
#[derive(Debug)]
pub(super) struct ReservedPort {
    _socket: Socket,
    port: u16,
}

impl ReservedPort {
    pub(super) fn take() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Self { _socket: socket, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// Whether somebody listens on a port; asked after a function ended early.
pub(super) fn is_taken(port: u16) -> bool {
    matches!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}
