//! Lines for standard output, written by a task of their own so that no request waits for whoever reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;
/// Bytes that wait to be written.
const BYTES_MAX: usize = 4 << 20;
/// Bytes written at once.
const WRITE_BYTES: usize = 64 << 10;

/// Takes lines. Clones share one queue.
///
/// It never waits: a line that finds 4096 lines or 4 MiB waiting is dropped and counted. Knative's queue-proxy lets the
/// request wait for its log instead.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    queue: mpsc::Sender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// Writes them.
#[derive(Debug)]
pub(crate) struct LineWriter {
    queue: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// A queue of lines and its writer.
pub(crate) fn lines() -> (Lines, LineWriter) {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    let (waiting, dropped) = (Arc::default(), Arc::default());
    let lines = Lines { queue: sender, waiting: Arc::clone(&waiting), dropped: Arc::clone(&dropped) };
    (lines, LineWriter { queue: receiver, waiting, dropped })
}

impl Lines {
    /// Writes `line`, which ends with a line break, soon.
    pub(crate) fn write(&self, line: Vec<u8>) {
        let bytes = line.len();
        let room = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= BYTES_MAX;
        if !room || self.queue.try_send(line).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl LineWriter {
    /// Writes to `out` until `stop`, then what is left.
    ///
    /// # Cancel safety
    /// Dropped, lines may be cut or lost.
    pub(crate) async fn run(mut self, mut out: impl AsyncWrite + Unpin, stop: CancellationToken) {
        let mut told = 0;
        loop {
            let line = tokio::select! {
                line = self.queue.recv() => line,
                () = stop.cancelled() => self.queue.try_recv().ok(),
            };
            let Some(mut text) = line else { break };
            while text.len() < WRITE_BYTES {
                let Ok(line) = self.queue.try_recv() else { break };
                text.extend_from_slice(&line);
            }
            let written = async {
                out.write_all(&text).await?;
                out.flush().await
            };
            if let Err(error) = written.await {
                tracing::warn!(%error, "lines for standard output are lost");
            }
            self.waiting.fetch_sub(text.len(), Ordering::Relaxed);
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > told {
                tracing::warn!(
                    lines = dropped - told,
                    "standard output is read too slowly, lines were dropped"
                );
                told = dropped;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn lines_come_out_whole_and_in_order() {
        let (lines, writer) = lines();
        for number in 0..1000 {
            lines.write(format!("{number}\n").into_bytes());
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let (out, mut read) = tokio::io::duplex(1 << 20);
        writer.run(out, stop).await;
        let mut text = String::new();
        read.read_to_string(&mut text).await.unwrap();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!((text == expected, lines.dropped()), (true, 0));
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let (lines, writer) = lines();
        for _ in 0..LINES_MAX + 3 {
            lines.write(b"x\n".to_vec());
        }
        assert_eq!(lines.dropped(), 3);
        let stop = CancellationToken::new();
        stop.cancel();
        let mut out = Vec::new();
        writer.run(&mut out, stop).await;
        assert_eq!(out.len(), 2 * LINES_MAX);
        // Few large lines fill it as well.
        let (lines, _writer) = super::lines();
        lines.write(vec![b'x'; BYTES_MAX]);
        lines.write(b"x\n".to_vec());
        assert_eq!(lines.dropped(), 1);
    }
}
