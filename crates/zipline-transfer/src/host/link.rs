//! One connection to a holder, and the task that speaks on it: asks one after another, returns as they come.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use zipline_protocol::ErrorCode;
use zipline_protocol::host::{Ask, Reply};
use zipline_protocol::limits;

use super::frames::{Frames, invalid};

/// Asks that wait for the one before them.
const QUEUE: usize = 64;
/// A connection with nothing shared is closed after this time without an ask.
const IDLE: Duration = Duration::from_secs(60);

/// One ask.
pub(super) struct Command {
    /// Its frame.
    pub(super) frame: Vec<u8>,
    /// The frame that takes it back, in case nobody waits for the answer any more.
    pub(super) undo: Option<Vec<u8>>,
    /// Who waits.
    pub(super) answer: Option<oneshot::Sender<Answered>>,
}

/// What a holder answered, out of its frame.
#[derive(Debug)]
pub(super) enum Answered {
    Shared {
        share: Returning,
        descriptor: OwnedFd,
        offset: u64,
        length: u64,
        digest: Option<[u8; 32]>,
        proof: String,
    },
    Inline {
        digest: Option<[u8; 32]>,
        proof: String,
        bytes: Bytes,
    },
    Done,
    Refused {
        status: u16,
        code: Option<ErrorCode>,
        proof: String,
    },
}

/// A connection as those who ask see it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    commands: mpsc::Sender<Command>,
}

impl Link {
    /// A connection and the future that serves it, whose owner runs it as a task.
    pub(super) fn new(frames: Frames) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let serving = async move {
            if let Err(error) = serve(frames, queue, Arc::default()).await {
                tracing::debug!(%error, "the connection to a neighbour broke");
            }
        };
        (Self { commands }, serving)
    }

    /// Whether an ask would not wait for another one.
    pub(super) fn is_free(&self) -> bool {
        self.commands.capacity() == QUEUE
    }

    pub(super) fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }

    /// Asks and waits; `None` if the connection broke or was silent for too long.
    pub(super) async fn ask(&self, frame: Vec<u8>, undo: Option<Vec<u8>>) -> Option<Answered> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command { frame, undo, answer: Some(answer) }).await.ok()?;
        answered.await.ok()
    }

    /// Says something whose answer nobody waits for. When the queue is full it is not said, and the lease lapses.
    pub(super) fn tell(&self, frame: Vec<u8>) {
        drop(self.commands.try_send(Command { frame, undo: None, answer: None }));
    }
}

/// Shares that are to be returned.
#[derive(Debug, Default)]
struct Returns {
    /// Shares of this connection that are still used.
    used: AtomicUsize,
    /// No longer than what was shared, of which the holder allows so many.
    done: Mutex<Vec<u64>>,
    changed: Notify,
}

/// Returns one share when dropped.
#[derive(Debug)]
pub(super) struct Returning {
    share: u64,
    returns: Arc<Returns>,
}

impl Drop for Returning {
    fn drop(&mut self) {
        self.returns.done.lock().push(self.share);
        self.returns.used.fetch_sub(1, Ordering::Relaxed);
        self.returns.changed.notify_one();
    }
}

/// Until it breaks, or nobody asks and nothing is shared any more.
async fn serve(
    mut frames: Frames,
    mut commands: mpsc::Receiver<Command>,
    returns: Arc<Returns>,
) -> io::Result<()> {
    let mut asking = true;
    loop {
        let is_used = returns.used.load(Ordering::Relaxed) > 0 || !returns.done.lock().is_empty();
        if !asking && !is_used {
            return Ok(());
        }
        let idle = async {
            match is_used {
                true => std::future::pending().await,
                false => tokio::time::sleep(IDLE).await,
            }
        };
        tokio::select! {
            biased;
            () = returns.changed.notified() => give_back(&frames, &returns).await?,
            command = commands.recv(), if asking => match command {
                Some(command) => obey(&mut frames, command, &returns).await?,
                None => asking = false,
            },
            ended = frames.next() => return match ended? {
                Some(_) => Err(invalid("an answer that nobody asked for")),
                None => Ok(()),
            },
            () = idle => return Ok(()),
        }
    }
}

async fn give_back(frames: &Frames, returns: &Returns) -> io::Result<()> {
    let done = std::mem::take(&mut *returns.done.lock());
    let mut out = Vec::new();
    for share in done {
        Ask::Returned { share }.write(&mut out);
    }
    frames.send(&out, None).await
}

async fn obey(frames: &mut Frames, command: Command, returns: &Arc<Returns>) -> io::Result<()> {
    let Command { frame, undo, answer } = command;
    let silent = |_elapsed| io::Error::from(io::ErrorKind::TimedOut);
    let exchange = exchange(frames, &frame, returns);
    let answered = timeout(limits::PROGRESS_TIMEOUT, exchange).await.map_err(silent)??;
    let unheard = match answer {
        Some(answer) => answer.send(answered).err(),
        None => None,
    };
    // Whoever asked is gone: what was granted goes back, the memory with it.
    if let (Some(Answered::Shared { .. } | Answered::Inline { .. }), Some(undo)) = (unheard, undo) {
        let undone = timeout(limits::PROGRESS_TIMEOUT, self::exchange(frames, &undo, returns));
        drop(undone.await.map_err(silent)??);
    }
    Ok(())
}

async fn exchange(frames: &mut Frames, frame: &[u8], returns: &Arc<Returns>) -> io::Result<Answered> {
    frames.send(frame, None).await?;
    let (head, body, descriptor) = frames.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let reply = Reply::read(head, body).map_err(invalid)?;
    Ok(match (reply, descriptor) {
        (Reply::Shared { share, offset, length, digest, proof }, Some(descriptor)) => {
            returns.used.fetch_add(1, Ordering::Relaxed);
            let share = Returning { share, returns: Arc::clone(returns) };
            Answered::Shared { share, descriptor, offset, length, digest, proof: proof.to_owned() }
        }
        (Reply::Inline { digest, proof, bytes }, None) => {
            Answered::Inline { digest, proof: proof.to_owned(), bytes: Bytes::copy_from_slice(bytes) }
        }
        // Its proof says nothing that its absence could not: the holder told of it in any case, or is gone.
        (Reply::Done { .. }, None) => Answered::Done,
        (Reply::Refused { status, code, proof, .. }, None) => {
            Answered::Refused { status, code, proof: proof.to_owned() }
        }
        (_, _) => return Err(invalid("a descriptor where none belongs, or none where one does")),
    })
}
