//! The engine's end of a control channel.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Duration, Interval, MissedTickBehavior, interval, timeout};
use zipline_protocol::FunctionName;
use zipline_protocol::control::{EngineMessage, KeyringMessage, LINE_MAX, QueueProxyMessage};
use zipline_protocol::limits;

/// A queue-proxy that does not read for this long is stuck; messages to it are a few kilobytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most functions told; with the longest names they stay below [`LINE_MAX`].
const RECEIVERS_MAX: usize = 1900;

/// Speaks with one queue-proxy, and keeps telling it keys and receivers.
#[derive(Debug)]
pub(super) struct Channel {
    read: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    write: OwnedWriteHalf,
    keys: watch::Receiver<KeyringMessage>,
    receivers: EngineMessage,
    tell: Interval,
}

impl Channel {
    /// A channel, and its other end as the queue-proxy's standard input.
    pub(super) fn pair(
        keys: watch::Receiver<KeyringMessage>,
        tenant: &str,
        receivers: &[FunctionName],
    ) -> io::Result<(Self, Stdio)> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        let mut tell = interval(limits::CAPABILITY_TOLD_EVERY);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut keys = keys;
        keys.mark_changed();
        // Those of its own tenant come first: they are what it can defer to.
        let mut functions: Vec<&FunctionName> = receivers.iter().collect();
        functions.sort_by_key(|function| function.namespace() != tenant);
        let functions = functions.into_iter().take(RECEIVERS_MAX).map(ToString::to_string).collect();
        let receivers =
            EngineMessage::Receivers { functions, valid_seconds: limits::CAPABILITY_TOLD.as_secs() };
        let channel = Self { read: BufReader::new(read), line: Vec::new(), write, keys, receivers, tell };
        Ok((channel, Stdio::from(OwnedFd::from(theirs))))
    }

    /// Waits for the next message, telling keys and receivers meanwhile: keys at first and whenever they change, receivers
    /// at first and every 20 s. `None`: the queue-proxy is gone.
    ///
    /// # Errors
    /// The socket broke, or a line is no message.
    ///
    /// # Cancel safety
    /// Parts of a line read so far are kept. Cancelled while it writes it may cut a message, so whoever cancels may only
    /// go on to [`Channel::drain`] a queue-proxy that reads; writes never wait in practice, they fit the socket's buffer.
    pub(super) async fn next(&mut self) -> io::Result<Option<QueueProxyMessage>> {
        loop {
            tokio::select! {
                biased;
                changed = self.keys.changed() => {
                    if changed.is_ok() {
                        let keyring = self.keys.borrow_and_update().clone();
                        write(&mut self.write, &EngineMessage::Keyring(keyring)).await?;
                    } else {
                        return Ok(None);
                    }
                }
                _ = self.tell.tick() => write(&mut self.write, &self.receivers).await?,
                line = read_line(&mut self.read, &mut self.line) => {
                    let Some(line) = line? else { return Ok(None) };
                    let message = serde_json::from_slice(&line)
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                    return Ok(Some(message));
                }
            }
        }
    }

    /// Asks the queue-proxy to finish and end.
    pub(super) async fn drain(&mut self, grace: Duration) -> io::Result<()> {
        write(&mut self.write, &EngineMessage::Drain { grace_seconds: grace.as_secs() }).await
    }
}

async fn write(to: &mut OwnedWriteHalf, message: &EngineMessage) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    match timeout(WRITE_TIMEOUT, to.write_all(&line)).await {
        Ok(written) => written,
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the queue-proxy does not read its control channel"))
        }
    }
}

/// The next line. Cancel safe: a part of a line stays in `line`.
async fn read_line(read: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let room = (LINE_MAX + 1).saturating_sub(line.len()) as u64;
    read.take(room).read_until(b'\n', line).await?;
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        return Ok(Some(std::mem::take(line)));
    }
    if line.len() > LINE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than any message"));
    }
    Ok(None)
}
