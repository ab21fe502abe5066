//! Zipline without an SDK: put and get over the local HTTP API.

use std::net::SocketAddr;

use anyhow::Context as _;

use super::http::Connection;
use super::rooms::Rooms;
use super::ticket::Ticket;
use crate::proxy::field;

pub(super) struct Giver {
    connection: Connection,
    token: String,
    rooms: Rooms,
}

impl Giver {
    pub(super) fn open(api: SocketAddr, token: &str) -> anyhow::Result<Self> {
        Ok(Self { connection: Connection::open(api)?, token: token.to_owned(), rooms: Rooms::default() })
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
        Ok(())
    }

    fn give(&mut self, payload: usize, takers: usize) -> anyhow::Result<Option<String>> {
        let bytes = self.rooms.of(payload);
        let head = format!(
            "POST /v1/payloads?retrievals={takers} HTTP/1.1\r\nHost: localhost\r\nZipline-Token: {}\r\nContent-Length: {}\r\n\r\n",
            self.token,
            bytes.len()
        );
        let answer = self.connection.ask(&head, bytes).context("put")?;
        self.connection.small(&answer)?;
        let reference = field(&answer.text, "zipline-reference").context("a put without reference")?;
        Ok(Some(reference.to_owned()))
    }

    fn release(&mut self) {
        self.rooms.clear();
    }
}

pub(super) struct Taker {
    connection: Connection,
    token: String,
    rooms: Rooms,
    taken: usize,
}

impl Taker {
    pub(super) fn open(api: SocketAddr, token: &str) -> anyhow::Result<Self> {
        Ok(Self {
            connection: Connection::open(api)?,
            token: token.to_owned(),
            rooms: Rooms::default(),
            taken: 0,
        })
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
            let head = format!(
                "GET /v1/payload HTTP/1.1\r\nHost: localhost\r\nZipline-Token: {}\r\nZipline-Reference: {}\r\n\r\n",
                self.token, ticket.text
            );
            let answer = self.connection.ask(&head, b"").context("get")?;
            self.connection.fill(&answer, self.rooms.of_mut(self.taken))?;
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
