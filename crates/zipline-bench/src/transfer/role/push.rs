//! A function posts to another: through proxies, or through the queue-proxies of both.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use super::http::{Connection, Head};
use super::rooms::Rooms;
use super::ticket::Ticket;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
/// Proxies keep few connections to one function.
const CONNECTIONS_MAX: usize = 64;

pub(super) struct Giver {
    connection: Option<Connection>,
    post: SocketAddr,
    head: String,
    rooms: Rooms,
}

impl Giver {
    pub(super) fn new(post: SocketAddr, head: &str) -> Self {
        Self { connection: None, post, head: head.to_owned(), rooms: Rooms::default() }
    }
}

impl super::Giver for Giver {
    fn write(
        &mut self,
        payloads: usize,
        bytes: usize,
        write: &mut dyn FnMut(usize, &mut [u8]),
    ) -> anyhow::Result<()> {
        self.rooms.fit(payloads, bytes);
        (0..payloads).for_each(|payload| write(payload, self.rooms.of_mut(payload)));
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.post)?);
        }
        Ok(())
    }

    fn give(&mut self, payload: usize, _: usize) -> anyhow::Result<Option<String>> {
        let connection = self.connection.as_mut().context("nothing was written")?;
        let body = self.rooms.of(payload);
        let head = connection.ask(&format!("{}Content-Length: {}\r\n\r\n", self.head, body.len()), body)?;
        connection.small(&head)?;
        Ok(None)
    }

    fn release(&mut self) {
        self.rooms.clear();
    }
}

/// The function that is posted to. One thread: the first connection with a request is read to its end.
pub(super) struct Taker {
    listener: TcpListener,
    connections: Vec<TcpStream>,
    rooms: Rooms,
    taken: usize,
}

impl Taker {
    pub(super) fn open(listen: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen at {listen}"))?;
        Ok(Self { listener, connections: Vec::new(), rooms: Rooms::default(), taken: 0 })
    }

    /// The place of a connection on which something came.
    fn readable(&mut self) -> anyhow::Result<usize> {
        loop {
            let mut waits: Vec<PollFd<'_>> = vec![PollFd::new(&self.listener, PollFlags::IN)];
            waits.extend(self.connections.iter().map(|stream| PollFd::new(stream, PollFlags::IN)));
            match poll(&mut waits, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("poll"),
            }
            let ready: Vec<bool> = waits.iter().map(|wait| !wait.revents().is_empty()).collect();
            if let Some(place) = ready[1..].iter().position(|ready| *ready) {
                return Ok(place);
            }
            if ready[0] {
                ensure!(self.connections.len() < CONNECTIONS_MAX, "more than {CONNECTIONS_MAX} connections");
                let (stream, _) = self.listener.accept().context("accept")?;
                stream.set_nodelay(true)?;
                self.connections.push(stream);
            }
        }
    }
}

impl super::Taker for Taker {
    fn make_ready(&mut self, payloads: usize, bytes: usize) -> anyhow::Result<()> {
        self.rooms.fit(payloads, bytes);
        self.taken = 0;
        Ok(())
    }

    fn take(&mut self, _: &[Ticket]) -> anyhow::Result<()> {
        loop {
            let place = self.readable()?;
            let stream = &mut self.connections[place];
            let Ok(Some(head)) = Head::read(stream) else {
                // A probe, or a connection that its proxy no longer wants.
                self.connections.swap_remove(place);
                continue;
            };
            let room = self.rooms.of_mut(self.taken);
            let length = head.length()?;
            ensure!(length == room.len(), "{length} bytes were posted in place of {}", room.len());
            head.body(stream, room)?;
            stream.write_all(ANSWER)?;
            self.taken += 1;
            return Ok(());
        }
    }

    fn read(&self, nth: usize) -> Vec<&[u8]> {
        vec![self.rooms.of(nth)]
    }

    fn release(&mut self) {
        self.rooms.clear();
    }

    fn is_pushed(&self) -> bool {
        true
    }
}
