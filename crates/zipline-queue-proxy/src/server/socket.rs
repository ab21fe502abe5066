//! The Unix socket of the local API: a file only its owner can open, gone when the server is; or a name in the abstract space of
//! the network namespace, which all containers of a pod share.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::BindError;

/// A listening Unix socket, and its file if it has one.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) file: Option<SocketFile>,
}

/// Removes the file when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Socket {
    /// Listens on `path`; `@name` is the abstract `name`.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        let bound = || {
            if let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") {
                let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
                listener.set_nonblocking(true)?;
                return Ok(Self { listener: UnixListener::from_std(listener)?, file: None });
            }
            remove_dead(path)?;
            let listener = UnixListener::bind(path)?;
            let file = Some(SocketFile(path.to_owned()));
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(Self { listener, file })
        };
        bound().map_err(|source| BindError::Socket { path: path.to_owned(), source })
    }
}

/// Removes a socket that a process left behind when it was killed. One that is served, or a file of another kind, stays.
fn remove_dead(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    Ok(())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, "the socket's file was gone already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_open_it_and_it_goes_with_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Socket::bind(&path).is_err(), "it is served already");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_abstract_name_is_no_file_and_belongs_to_one() {
        let name = format!("zipline-test-{}", std::process::id());
        let path = PathBuf::from(format!("@{name}"));
        let socket = Socket::bind(&path).unwrap();
        assert!(socket.file.is_none() && !path.exists());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        drop(std::os::unix::net::UnixStream::connect_addr(&address).unwrap());
        assert!(Socket::bind(&path).is_err(), "it is served already");
        drop(socket);
        drop(Socket::bind(&path).unwrap());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_but_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Socket::bind(&path).unwrap());
        std::fs::write(&path, "data").unwrap();
        assert!(Socket::bind(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }
}
