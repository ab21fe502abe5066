//! What a giver tells a taker of a payload: one datagram each.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tokio::time::Duration;

/// Longest datagram; references are shorter by far.
const TICKET_MAX: usize = 4096;
/// Most payloads that are taken together.
const BATCH_MAX: usize = 64;
/// Nothing is told for this long: something is broken.
const SILENCE: Duration = Duration::from_secs(60);

/// A payload that can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) giver: u32,
    pub(super) payload: usize,
    pub(super) text: String,
}

impl Ticket {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(bytes).ok()?.splitn(3, ' ');
        let giver = fields.next()?.parse().ok()?;
        let payload = fields.next()?.parse().ok()?;
        Some(Self { giver, payload, text: fields.next()?.to_owned() })
    }
}

/// Where tickets are handed over.
#[derive(Debug)]
pub(super) struct Desk {
    socket: UnixDatagram,
    folder: PathBuf,
}

impl Desk {
    pub(super) fn of_giver(folder: &Path) -> anyhow::Result<Self> {
        let socket = UnixDatagram::unbound().context("Unix socket")?;
        Ok(Self { socket, folder: folder.to_owned() })
    }

    pub(super) fn of_taker(folder: &Path, index: u32) -> anyhow::Result<Self> {
        let path = path(folder, index);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
        socket.set_read_timeout(Some(SILENCE))?;
        Ok(Self { socket, folder: folder.to_owned() })
    }

    /// Tells a taker; waits while it has much to hear already.
    pub(super) fn tell(&self, taker: u32, ticket: &Ticket) -> anyhow::Result<()> {
        let text = format!("{} {} {}", ticket.giver, ticket.payload, ticket.text);
        ensure!(text.len() <= TICKET_MAX, "a reference of {} bytes", ticket.text.len());
        let to = path(&self.folder, taker);
        self.socket.send_to(text.as_bytes(), to).with_context(|| format!("cannot tell taker {taker}"))?;
        Ok(())
    }

    /// Waits for one, and takes those that are there already, up to `most`.
    pub(super) fn hear(&self, most: usize) -> anyhow::Result<Vec<Ticket>> {
        let mut buffer = [0; TICKET_MAX];
        let mut tickets = Vec::new();
        while tickets.len() < most.min(BATCH_MAX) {
            self.socket.set_nonblocking(!tickets.is_empty() && most > 1)?;
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    tickets.push(Ticket::parse(&buffer[..length]).context("a ticket not understood")?)
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !tickets.is_empty() => break,
                Err(error) => return Err(error).context("no ticket came"),
            }
        }
        if most > 1 {
            self.socket.set_nonblocking(false)?;
        }
        Ok(tickets)
    }
}

fn path(folder: &Path, index: u32) -> PathBuf {
    folder.join(format!("{index}.sock"))
}
