//! The holder's socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use zipline_buffer::{Delivered, Store};
use zipline_protocol::{BootId, host};
use zipline_runtime::Tasks;
use zipline_seal::Keyring;

use super::serve::Serving;
use super::{CONNECTIONS_MAX, serve};

/// Pause after the process ran out of descriptors or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The socket could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}", path.display())]
pub struct HostPortError {
    /// Where.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// A socket in the tenant's directory; removed when dropped. [`HostPort::run`] serves it.
#[derive(Debug)]
pub struct HostPort {
    listener: UnixListener,
    path: PathBuf,
    serving: Arc<Serving>,
}

impl HostPort {
    /// Takes the socket. Who may enter `directory` may connect; what they get is decided by proofs alone.
    ///
    /// # Errors
    /// What the kernel says: no such directory, not ours, or a path that is too long for a socket.
    pub fn bind(
        directory: &Path,
        boot: BootId,
        keyring: Keyring,
        store: Store,
        on_delivered: impl Fn(Delivered) + Send + Sync + 'static,
    ) -> Result<Self, HostPortError> {
        let path = directory.join(host::socket_name(&boot));
        match UnixListener::bind(&path) {
            Ok(listener) => {
                let serving = Arc::new(Serving::new(boot, keyring, store, Box::new(on_delivered)));
                Ok(Self { listener, path, serving })
            }
            Err(source) => Err(HostPortError { path, source }),
        }
    }

    /// Serves until the token of `tasks` is cancelled; its connections are tasks of `tasks`, and end with it: their shares
    /// then last as long as their receivers keep the memory mapped.
    ///
    /// # Cancel safety
    /// Dropping the future removes the socket; connections go on.
    pub async fn run(self, tasks: Tasks) {
        let (stop, slots) = (tasks.token(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept(&slots) => accepted,
            };
            match accepted {
                Ok((slot, stream)) => {
                    let (serving, stop) = (Arc::clone(&self.serving), stop.clone());
                    drop(tasks.spawn("neighbour", async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = serve::connection(&serving, stream) => {}
                        }
                        drop(slot);
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a neighbour");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
    ) -> io::Result<(tokio::sync::OwnedSemaphorePermit, tokio::net::UnixStream)> {
        let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
        Ok((slot, self.listener.accept().await?.0))
    }
}

impl Drop for HostPort {
    fn drop(&mut self) {
        // The directory may be gone with everything in it.
        drop(std::fs::remove_file(&self.path));
    }
}
