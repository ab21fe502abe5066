//! An S3 server: one bucket, `PUT` and `GET` by hand over a connection with `TCP_NODELAY`.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::http::Connection;
use super::rooms::Rooms;
use super::sigv4;
use super::ticket::Ticket;

const BUCKET: &str = "bench";

struct Client {
    connection: Connection,
    at: SocketAddr,
}

impl Client {
    fn open(at: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { connection: Connection::open(at)?, at })
    }

    fn head(&self, method: &str, path: &str, length: usize) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        sigv4::head(method, self.at, path, length, now)
    }

    /// A request whose answer is short.
    fn tell(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<()> {
        let head = self.head(method, path, body.len());
        let answer = self.connection.ask(&head, body).with_context(|| format!("{method} {path}"))?;
        self.connection.small(&answer)?;
        Ok(())
    }
}

/// Makes the bucket; also a way to see whether the server is ready.
pub(in crate::transfer) fn make_bucket(at: SocketAddr) -> anyhow::Result<()> {
    Client::open(at)?.tell("PUT", &format!("/{BUCKET}"), b"")
}

pub(super) struct Giver {
    client: Client,
    index: u32,
    rooms: Rooms,
    written: usize,
}

impl Giver {
    pub(super) fn open(at: SocketAddr, index: u32) -> anyhow::Result<Self> {
        Ok(Self { client: Client::open(at)?, index, rooms: Rooms::default(), written: 0 })
    }

    fn path(&self, payload: usize) -> String {
        format!("/{BUCKET}/{}-{payload}", self.index)
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
        self.written = payloads;
        (0..payloads).for_each(|payload| write(payload, self.rooms.of_mut(payload)));
        Ok(())
    }

    fn give(&mut self, payload: usize, _: usize) -> anyhow::Result<Option<String>> {
        let path = self.path(payload);
        self.client.tell("PUT", &path, self.rooms.of(payload))?;
        Ok(Some(path))
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        for payload in 0..std::mem::take(&mut self.written) {
            let path = self.path(payload);
            self.client.tell("DELETE", &path, b"")?;
        }
        Ok(())
    }

    fn release(&mut self) {
        self.rooms.clear();
    }
}

pub(super) struct Taker {
    client: Client,
    rooms: Rooms,
    taken: usize,
}

impl Taker {
    pub(super) fn open(at: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { client: Client::open(at)?, rooms: Rooms::default(), taken: 0 })
    }
}

impl super::Taker for Taker {
    fn make_ready(&mut self, payloads: usize, bytes: usize) -> anyhow::Result<()> {
        self.rooms.fit(payloads, bytes);
        self.taken = 0;
        Ok(())
    }

    fn take(&mut self, tickets: &[Ticket]) -> anyhow::Result<()> {
        for ticket in tickets {
            let head = self.client.head("GET", &ticket.text, 0);
            let answer =
                self.client.connection.ask(&head, b"").with_context(|| format!("GET {}", ticket.text))?;
            self.client.connection.fill(&answer, self.rooms.of_mut(self.taken))?;
            self.taken += 1;
        }
        Ok(())
    }

    fn read(&self, nth: usize) -> Vec<&[u8]> {
        vec![self.rooms.of(nth)]
    }

    fn release(&mut self) {
        self.rooms.clear();
    }
}
