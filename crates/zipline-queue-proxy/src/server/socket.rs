//! The Unix socket of the local API: a file only its owner can open, gone when the server is.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::BindError;

/// A listening Unix socket and its file.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// Removes the file when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Socket {
    pub(super) fn bind(path: &Path) -> Result<Self, BindError> {
        let bound = || {
            remove_dead(path)?;
            let listener = UnixListener::bind(path)?;
            let file = SocketFile(path.to_owned());
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
