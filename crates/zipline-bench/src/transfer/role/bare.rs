//! The limit for payloads: a pull over two connections, out of a warm memory file by `sendfile`, into warm memory. No proof, no
//! lease, no framing.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};

use super::rooms::Rooms;
use super::ticket::Ticket;

/// Below this a second connection costs more than it brings.
const SPLIT_FROM: usize = 1_000_000;
/// Payload, first byte, number of bytes.
const REQUEST: usize = 24;

type Files = Arc<Mutex<Vec<Arc<File>>>>;

pub(super) struct Giver {
    files: Files,
    scratch: Vec<u8>,
}

impl Giver {
    pub(super) fn open(at: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
        let files = Files::default();
        let served = files.clone();
        // These threads end with the process, which is a role and nothing else.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let files = served.clone();
                thread::spawn(move || serve(stream, &files));
            }
        });
        Ok(Self { files, scratch: Vec::new() })
    }
}

/// Sends what is asked for until the other side has gone.
fn serve(mut stream: TcpStream, files: &Files) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST];
    loop {
        stream.read_exact(&mut request)?;
        let number = |at: usize| u64::from_be_bytes(request[at..at + 8].try_into().unwrap_or_default());
        let file = files.lock().get(usize::try_from(number(0))?).cloned().context("no such payload")?;
        let mut offset = number(8);
        let end = offset + number(16);
        while offset < end {
            let left = usize::try_from(end - offset)?;
            ensure!(sendfile(&stream, &*file, Some(&mut offset), left)? > 0, "the payload is shorter");
        }
    }
}

impl super::Giver for Giver {
    fn write(
        &mut self,
        payloads: usize,
        bytes: usize,
        write: &mut dyn FnMut(usize, &mut [u8]),
    ) -> anyhow::Result<()> {
        let mut files = self.files.lock();
        if files.first().is_some_and(|file| file.metadata().is_ok_and(|found| found.len() != bytes as u64)) {
            files.clear();
        }
        while files.len() < payloads {
            let file = File::from(memfd_create("bare", MemfdFlags::CLOEXEC).context("memfd")?);
            files.push(Arc::new(file));
        }
        self.scratch.resize(bytes, 0);
        for payload in 0..payloads {
            write(payload, &mut self.scratch);
            files[payload].write_all_at(&self.scratch, 0).context("memfd")?;
        }
        Ok(())
    }

    fn give(&mut self, payload: usize, _: usize) -> anyhow::Result<Option<String>> {
        Ok(Some(payload.to_string()))
    }

    fn release(&mut self) {
        self.files.lock().clear();
        self.scratch = Vec::new();
    }
}

/// Takes the first half itself and lets a second thread take the other one.
pub(super) struct Taker {
    at: SocketAddr,
    first: Option<TcpStream>,
    orders: Option<SyncSender<Part>>,
    parts: Receiver<anyhow::Result<Vec<u8>>>,
    answers: SyncSender<anyhow::Result<Vec<u8>>>,
    heads: Rooms,
    tails: Rooms,
    taken: usize,
}

struct Part {
    payload: u64,
    from: u64,
    room: Vec<u8>,
}

impl Taker {
    pub(super) fn open(at: SocketAddr) -> anyhow::Result<Self> {
        let (answers, parts) = sync_channel(1);
        let (heads, tails) = (Rooms::default(), Rooms::default());
        Ok(Self { at, first: None, orders: None, parts, answers, heads, tails, taken: 0 })
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        let open = || -> anyhow::Result<TcpStream> {
            let stream =
                TcpStream::connect(self.at).with_context(|| format!("cannot connect to {}", self.at))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        self.first = Some(open()?);
        let mut second = open()?;
        let (orders, received) = sync_channel::<Part>(1);
        self.orders = Some(orders);
        let answers = self.answers.clone();
        // Ends with the process.
        thread::spawn(move || {
            for Part { payload, from, mut room } in received {
                let pulled = pull(&mut second, payload, from, &mut room).map(|()| room);
                if answers.send(pulled).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

fn pull(stream: &mut TcpStream, payload: u64, from: u64, room: &mut [u8]) -> anyhow::Result<()> {
    let mut request = [0; REQUEST];
    for (at, number) in [(0, payload), (8, from), (16, room.len() as u64)] {
        request[at..at + 8].copy_from_slice(&number.to_be_bytes());
    }
    stream.write_all(&request)?;
    stream.read_exact(room).context("the pull broke off")
}

impl super::Taker for Taker {
    fn make_ready(&mut self, payloads: usize, bytes: usize) -> anyhow::Result<()> {
        let tail = if bytes < SPLIT_FROM { 0 } else { bytes / 2 };
        self.heads.fit(payloads, bytes - tail);
        self.tails.fit(payloads, tail);
        self.taken = 0;
        if self.first.is_none() {
            self.connect()?;
        }
        Ok(())
    }

    fn take(&mut self, tickets: &[Ticket]) -> anyhow::Result<()> {
        for ticket in tickets {
            let payload: u64 = ticket.text.parse().context("ticket")?;
            let (head, tail) = (self.heads.of_mut(self.taken), self.tails.of_mut(self.taken));
            let (stream, orders) = self.first.as_mut().zip(self.orders.as_ref()).context("not connected")?;
            let split = !tail.is_empty();
            if split {
                let part = Part { payload, from: head.len() as u64, room: std::mem::take(tail) };
                orders.send(part).map_err(|_| anyhow::anyhow!("the second connection has ended"))?;
            }
            pull(stream, payload, 0, head)?;
            if split {
                *tail = self.parts.recv().context("the second connection has ended")??;
            }
            self.taken += 1;
        }
        Ok(())
    }

    fn read(&self, nth: usize) -> Vec<&[u8]> {
        vec![self.heads.of(nth), self.tails.of(nth)]
    }

    fn release(&mut self) {
        self.heads.clear();
        self.tails.clear();
    }
}
