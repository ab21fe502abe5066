//! Zipline by its Rust SDK, blocking, over the queue-proxy's socket.

use std::path::Path;

use anyhow::{Context as _, ensure};
use zipline_sdk::blocking::Client;
use zipline_sdk::{Buffer, Options, Payload, PutOptions, Reference, Retrievals};

use super::Put;
use super::rooms::Rooms;
use super::ticket::Ticket;

fn client(socket: &Path, token: &str) -> anyhow::Result<Client> {
    let socket = socket.to_str().context("a socket's path that is not text")?;
    Client::connect(Options::new().socket(socket).token(token)).context("cannot connect to the queue-proxy")
}

pub(super) struct Giver {
    client: Client,
    put: Put,
    /// Payloads that are written where they will be taken from.
    buffers: Vec<Option<Buffer>>,
    /// Payloads that will be copied.
    rooms: Rooms,
}

impl Giver {
    pub(super) fn open(socket: &Path, token: &str, put: Put) -> anyhow::Result<Self> {
        Ok(Self { client: client(socket, token)?, put, buffers: Vec::new(), rooms: Rooms::default() })
    }
}

impl super::Giver for Giver {
    fn write(
        &mut self,
        payloads: usize,
        bytes: usize,
        write: &mut dyn FnMut(usize, &mut [u8]),
    ) -> anyhow::Result<()> {
        self.buffers.clear();
        if self.put != Put::InPlace {
            self.rooms.fit(payloads, bytes);
            (0..payloads).for_each(|payload| write(payload, self.rooms.of_mut(payload)));
            return Ok(());
        }
        for payload in 0..payloads {
            let mut buffer = self.client.create(bytes).context("create")?;
            write(payload, &mut buffer);
            self.buffers.push(Some(buffer));
        }
        Ok(())
    }

    fn give(&mut self, payload: usize, takers: usize) -> anyhow::Result<Option<String>> {
        let options = PutOptions::new()
            .retrievals(Retrievals::Limited(u32::try_from(takers)?))
            .pre_issued(self.put == Put::PreIssued);
        let reference = match self.buffers.get_mut(payload).and_then(Option::take) {
            Some(buffer) => self.client.put_buffer(buffer, &options),
            None => self.client.put(self.rooms.of(payload), &options),
        };
        Ok(Some(reference.context("put")?.to_string()))
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        self.client.settle().context("a put with a reference issued before")
    }

    fn release(&mut self) {
        self.buffers.clear();
        self.rooms.clear();
    }
}

pub(super) struct Taker {
    client: Client,
    taken: Vec<Payload>,
}

impl Taker {
    pub(super) fn open(socket: &Path, token: &str) -> anyhow::Result<Self> {
        Ok(Self { client: client(socket, token)?, taken: Vec::new() })
    }
}

impl super::Taker for Taker {
    fn make_ready(&mut self, _: usize, _: usize) -> anyhow::Result<()> {
        Ok(())
    }

    fn take(&mut self, tickets: &[Ticket]) -> anyhow::Result<()> {
        let references =
            tickets.iter().map(|ticket| ticket.text.parse::<Reference>().context("the reference"));
        let references = references.collect::<anyhow::Result<Vec<_>>>()?;
        if let [reference] = &references[..] {
            self.taken.push(self.client.get(reference).context("get")?);
            return Ok(());
        }
        let before = self.taken.len();
        let mut arrived: Vec<Option<Payload>> = references.iter().map(|_| None).collect();
        for (index, payload) in self.client.get_many(&references) {
            arrived[index] = Some(payload.context("get_many")?);
        }
        self.taken.extend(arrived.into_iter().flatten());
        ensure!(self.taken.len() == before + tickets.len(), "get_many did not give all payloads");
        Ok(())
    }

    fn read(&self, nth: usize) -> Vec<&[u8]> {
        vec![&self.taken[nth]]
    }

    fn forget(&mut self) {
        self.taken.clear();
    }

    fn release(&mut self) {
        self.taken.clear();
    }
}
