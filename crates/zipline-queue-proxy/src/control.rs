//! The control channel to the engine: JSON lines both ways over one inherited socket.
//!
//! The engine's words are applied as they come; its silence changes nothing. The end of the stream means that the engine
//! is gone, and this process then drains briefly and ends. Lines longer than [`LINE_MAX`] end the channel the same way,
//! since nothing after them can be trusted to be a message.

use std::io;
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use zipline_protocol::FunctionName;
use zipline_protocol::control::{EngineMessage, LINE_MAX, QueueProxyMessage};

use crate::keys;
use crate::state::Shared;

#[cfg(test)]
mod tests;

/// Messages to the engine that wait to be written. When full, whoever reports waits.
const REPORTS: usize = 16;

/// How long requests may still run once the engine is gone.
pub const ENGINE_GONE_GRACE: Duration = Duration::from_secs(2);

/// Takes standard input, which the engine made one end of a Unix socket pair.
///
/// # Errors
/// The descriptor cannot be used as a socket.
pub fn stdin() -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(rustix::io::dup(rustix::stdio::stdin())?);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// The order to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainOrder {
    /// Longest time for requests and payloads.
    pub grace: Duration,
}

/// Splits a control channel: what the process says, what writes it, and what listens.
pub fn open<S: AsyncRead + AsyncWrite>(stream: S) -> (Reports, Speaker<S>, Listener<S>) {
    let (read, write) = tokio::io::split(stream);
    let (queue, reports) = mpsc::channel(REPORTS);
    let listener = Listener { read: BufReader::new(read), line: Vec::new(), ended: false };
    (Reports { queue: Some(queue) }, Speaker { write, reports }, listener)
}

/// What is said to the engine, from anywhere in the process.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    queue: Option<mpsc::Sender<QueueProxyMessage>>,
}

impl Reports {
    /// Reports to nobody, for a queue-proxy without an engine.
    #[must_use]
    pub fn to_nobody() -> Self {
        Self::default()
    }

    /// Says `message`; waits while many others are unwritten. If the engine is gone it goes nowhere.
    pub async fn say(&self, message: QueueProxyMessage) {
        if let Some(queue) = &self.queue {
            // An engine that is gone is noticed by the listener.
            let _ = queue.send(message).await;
        }
    }
}

/// Writes reports.
#[derive(Debug)]
pub struct Speaker<S> {
    write: WriteHalf<S>,
    reports: mpsc::Receiver<QueueProxyMessage>,
}

impl<S: AsyncWrite> Speaker<S> {
    /// Writes until every [`Reports`] is dropped or the engine no longer reads.
    pub async fn run(mut self) {
        while let Some(message) = self.reports.recv().await {
            let mut line = serde_json::to_vec(&message).expect("control messages always serialise");
            line.push(b'\n');
            if let Err(error) = self.write.write_all(&line).await {
                tracing::debug!(%error, "the engine does not read");
                return;
            }
        }
    }
}

/// Hears the engine.
#[derive(Debug)]
pub struct Listener<S> {
    read: BufReader<ReadHalf<S>>,
    line: Vec<u8>,
    ended: bool,
}

impl<S: AsyncRead> Listener<S> {
    /// Applies what the engine says until it orders a drain or is gone, which is an order with [`ENGINE_GONE_GRACE`].
    ///
    /// # Cancel safety
    /// Nothing is lost; called again, it goes on.
    pub async fn order(&mut self, shared: &Shared) -> DrainOrder {
        loop {
            match self.next().await {
                Ok(Some(line)) => {
                    if let Some(order) = apply(shared, &line) {
                        return order;
                    }
                    continue;
                }
                Ok(None) => tracing::info!("the engine is gone"),
                Err(error) => tracing::error!(%error, "the control channel broke"),
            }
            self.ended = true;
            return DrainOrder { grace: ENGINE_GONE_GRACE };
        }
    }

    /// Whether the engine is gone, so that nothing more will come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next line. Cancel safe: a part of a line is kept.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = (LINE_MAX + 1).saturating_sub(self.line.len()) as u64;
        (&mut self.read).take(room).read_until(b'\n', &mut self.line).await?;
        if self.line.pop_if(|byte| *byte == b'\n').is_some() {
            return Ok(Some(std::mem::take(&mut self.line)));
        }
        if self.line.len() > LINE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than any message"));
        }
        Ok(None)
    }
}

/// Does what one line says; an order to drain is handed back.
fn apply(shared: &Shared, line: &[u8]) -> Option<DrainOrder> {
    // The line may hold keys: it is never logged, and serde's own message could quote it.
    let Ok(message) = serde_json::from_slice::<EngineMessage>(line) else {
        tracing::error!(bytes = line.len(), "a control message is not understood");
        return None;
    };
    match message {
        EngineMessage::Keyring(keyring) => match keys::install(&shared.keyring, &keyring) {
            Ok(()) => tracing::debug!(serials = ?shared.keyring.serials(), "keys installed"),
            Err(error) => tracing::error!(%error, "the keyring is refused"),
        },
        EngineMessage::Receivers { functions, valid_seconds } => {
            let known: Vec<FunctionName> = functions.iter().filter_map(|name| name.parse().ok()).collect();
            if known.len() < functions.len() {
                tracing::error!(
                    count = functions.len() - known.len(),
                    "receivers whose names are no functions'"
                );
            }
            shared.capabilities.told(&known, Duration::from_secs(valid_seconds));
        }
        EngineMessage::Drain { grace_seconds } => {
            return Some(DrainOrder { grace: Duration::from_secs(grace_seconds) });
        }
    }
    None
}
