//! The rest of a request whose response has begun: a task, so that neither waits for the other.

use super::connection::{Connection, Reader, Writer};
use super::outgoing::Outgoing;
use super::pool;
use crate::client::Inner;
use crate::client::target::HostPort;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a request body may go on after its response is over before the connection is closed.
const FINISH_GRACE: Duration = Duration::from_millis(50);

/// The response's hold on its upload; dropping it ends the upload.
pub(super) struct Upload {
    over: oneshot::Sender<Reader>,
    failed: Arc<AtomicBool>,
}

impl Upload {
    /// Sends the rest of `outgoing`, and keeps the connection when both it and the response are over.
    pub(super) fn spawn(inner: &Arc<Inner>, addr: &HostPort, writer: Writer, outgoing: Outgoing) -> Self {
        let (over, response) = oneshot::channel();
        let failed = Arc::new(AtomicBool::new(false));
        let pool = (Arc::downgrade(inner), addr.clone());
        let report = Arc::clone(&failed);
        let uploading = async move {
            let Some(connection) = run(writer, outgoing, response, &report).await else { return };
            if let (Some(inner), addr) = (pool.0.upgrade(), pool.1) {
                pool::put(&inner, &addr, connection);
            }
        };
        drop(inner.tasks.spawn("http/1.1 upload", uploading));
        Self { over, failed }
    }

    /// The response is over, and the connection good for another request.
    pub(super) fn finish(self, reader: Reader) {
        // If the task has ended, so has the connection.
        drop(self.over.send(reader));
    }

    /// Whether the request broke off; then what the peer says has no meaning.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

async fn run(
    mut writer: Writer,
    mut outgoing: Outgoing,
    mut response: oneshot::Receiver<Reader>,
    failed: &AtomicBool,
) -> Option<Connection> {
    let reader = tokio::select! {
        biased;
        over = &mut response => {
            let reader = over.ok()?;
            let sending = poll_fn(|cx| outgoing.poll(&mut writer.io, cx));
            timeout(FINISH_GRACE, sending).await.ok()?;
            reader
        }
        () = poll_fn(|cx| outgoing.poll(&mut writer.io, cx)) => {
            if outgoing.take_failure().is_some() {
                failed.store(true, Ordering::Relaxed);
                // With its writing half the connection's sending side ends, and the peer sees an abort.
                return None;
            }
            response.await.ok()?
        }
    };
    outgoing.is_sent().then_some(Connection { reader, writer })
}
