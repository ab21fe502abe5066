//! The SDK's part of the work: payloads written in place or copied in, received into memory that is looked at again later.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use zipline_sdk::{Client, ErrorCode, Options, Payload, PutOptions, Reference, Retrievals};
use zipline_testkit::pattern;

use crate::dice::Dice;
use crate::node::{Doors, Node};

/// Longest wait of one of the SDK's operations; several of them are one operation of a worker.
const LONGEST: Duration = Duration::from_secs(30);
/// Payloads up to this size are kept until a later operation: larger ones would leave no room for anything else.
const KEPT_MAX: u64 = 4 << 20;
/// Payloads up to this size may be put under a reference that was issued before.
const PRE_ISSUED_MAX: u64 = 64 << 10;

/// Why an operation did not succeed.
#[derive(Debug)]
pub enum Bad {
    /// With an error of this code.
    Refused(ErrorCode, String),
    /// The run itself does not work.
    Unable(anyhow::Error),
    /// With other bytes than were put.
    Altered(String),
}

impl From<zipline_sdk::Error> for Bad {
    fn from(error: zipline_sdk::Error) -> Self {
        Self::Refused(error.code(), error.to_string())
    }
}

impl From<anyhow::Error> for Bad {
    fn from(error: anyhow::Error) -> Self {
        Self::Unable(error)
    }
}

/// One worker's connections to queue-proxies, as a function has one, and what it still looks at.
#[derive(Debug, Default)]
pub struct Functions {
    clients: HashMap<String, (PathBuf, Client)>,
    /// A payload with the digest it had when it came.
    kept: Option<(Payload, String)>,
}

impl Functions {
    /// Puts `size` bytes of the pattern `seed` in `holder`, whose digest is `sha256`, and gets them in each of `getters`.
    ///
    /// # Errors
    /// [`Bad`].
    pub async fn put_get(
        &mut self,
        dice: &mut Dice,
        holder: &Node,
        getters: &[&Node],
        content: Content<'_>,
    ) -> Result<(), Bad> {
        let Content { seed, size, sha256, ttl } = content;
        let retrievals = u32::try_from(getters.len()).context("getters")?;
        let giver = self.client(holder).await?;
        let pre_issued = size <= PRE_ISSUED_MAX && dice.percent(50);
        let options =
            PutOptions::new().retrievals(Retrievals::Limited(retrievals)).ttl(ttl).pre_issued(pre_issued);
        let reference = put(&giver, seed, size, dice.percent(70), &options).await?;
        for getter in getters {
            let payload = match self.client(getter).await?.get(&reference).await {
                Ok(payload) => payload,
                // Nobody has waited for the put: what became of it says more than that nothing is there.
                Err(error) if pre_issued => {
                    giver.settle().await?;
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            };
            let found = digest(&payload).await?;
            if payload.len() as u64 != size || found != sha256 {
                let length = payload.len();
                return Err(Bad::Altered(format!("{size} bytes {sha256} put, {length} bytes {found} got")));
            }
            self.still_the_same().await?;
            self.kept = (size <= KEPT_MAX).then_some((payload, found));
        }
        Ok(())
    }

    /// What is still looked at has the bytes it came with: its memory was given to nobody else.
    ///
    /// # Errors
    /// [`Bad::Altered`].
    pub async fn still_the_same(&self) -> Result<(), Bad> {
        let Some((payload, sha256)) = &self.kept else { return Ok(()) };
        let found = digest(payload).await?;
        if found == *sha256 {
            return Ok(());
        }
        Err(Bad::Altered(format!(
            "{} bytes {sha256} became {found} while they were looked at",
            payload.len()
        )))
    }

    /// A connection to the queue-proxy that `node` has now.
    async fn client(&mut self, node: &Node) -> Result<Client, Bad> {
        let Doors { socket, token, .. } = node.doors();
        if let Some((of, client)) = self.clients.get(&node.name)
            && *of == socket
        {
            return Ok(client.clone());
        }
        let options = Options::new().socket(&socket.to_string_lossy()).token(token).timeout(LONGEST);
        let client = Client::connect(options).await?;
        self.clients.insert(node.name.clone(), (socket, client.clone()));
        Ok(client)
    }
}

/// What is put.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// Of the pattern.
    pub seed: u64,
    /// In bytes.
    pub size: u64,
    /// In lower-case hexadecimal.
    pub sha256: &'a str,
    /// How long it lives if nobody gets it.
    pub ttl: Duration,
}

async fn put(
    client: &Client,
    seed: u64,
    size: u64,
    in_place: bool,
    options: &PutOptions,
) -> Result<Reference, Bad> {
    let length = usize::try_from(size).context("size")?;
    if !in_place {
        let made = tokio::task::spawn_blocking(move || pattern::bytes(seed, 0, length)).await;
        return Ok(client.put(made.context("pattern")?, options).await?);
    }
    let mut buffer = client.create(length).await?;
    let written = tokio::task::spawn_blocking(move || {
        let mut offset = 0;
        for piece in buffer.chunks_mut(usize::try_from(pattern::CHUNK_BYTES).expect("a chunk fits")) {
            piece.copy_from_slice(&pattern::bytes(seed, offset, piece.len()));
            offset += piece.len() as u64;
        }
        buffer
    });
    Ok(client.put_buffer(written.await.context("pattern")?, options).await?)
}

/// A digest takes long enough for a thread of its own.
async fn digest(payload: &Payload) -> Result<String> {
    let payload = payload.clone();
    tokio::task::spawn_blocking(move || pattern::sha256_of(&payload)).await.context("digest")
}
