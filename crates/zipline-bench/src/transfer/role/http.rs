//! As much of an HTTP/1.1 client as these means need, over TCP with `TCP_NODELAY`.

use std::io::{IoSlice, Read as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, ensure};

use super::rooms::write_parts;
use crate::proxy::{field, head_end};

const HEAD_MAX: usize = 16 * 1024;

/// One connection.
pub(super) struct Connection {
    stream: TcpStream,
    at: SocketAddr,
    /// The server has said that it closes the connection.
    closes: bool,
}

/// A head, with what came after it already.
pub(super) struct Head {
    pub(super) text: String,
    pub(super) rest: Vec<u8>,
}

impl Head {
    /// Reads a message's head; `None` if the stream ended before it.
    pub(super) fn read(stream: &mut TcpStream) -> anyhow::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(4096);
        let mut buffer = [0; 4096];
        let end = loop {
            if let Some(end) = head_end(&bytes) {
                break end;
            }
            ensure!(bytes.len() <= HEAD_MAX, "a head of {} bytes", bytes.len());
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                ensure!(bytes.is_empty(), "the connection ended within a head");
                return Ok(None);
            }
            bytes.extend_from_slice(&buffer[..read]);
        };
        let rest = bytes.split_off(end);
        Ok(Some(Self { text: String::from_utf8(bytes).context("a head that is not text")?, rest }))
    }

    /// The body's announced length.
    pub(super) fn length(&self) -> anyhow::Result<usize> {
        ensure!(field(&self.text, "transfer-encoding").is_none(), "a body without announced length");
        field(&self.text, "content-length").map_or(Ok(0), str::parse).context("content-length")
    }

    /// Reads the body into `room`, which has its length.
    pub(super) fn body(&self, stream: &mut TcpStream, room: &mut [u8]) -> anyhow::Result<()> {
        ensure!(self.rest.len() <= room.len(), "more than one message at once");
        room[..self.rest.len()].copy_from_slice(&self.rest);
        stream.read_exact(&mut room[self.rest.len()..]).context("the body broke off")
    }
}

impl Connection {
    pub(super) fn open(at: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { stream: connect(at)?, at, closes: false })
    }

    /// Sends a request and hears the head of its answer, whose status is one of success.
    pub(super) fn ask(&mut self, head: &str, body: &[u8]) -> anyhow::Result<Head> {
        if std::mem::take(&mut self.closes) {
            self.stream = connect(self.at)?;
        }
        write_parts(&mut self.stream, &mut [IoSlice::new(head.as_bytes()), IoSlice::new(body)])
            .context("cannot send the request")?;
        let head = Head::read(&mut self.stream)?.context("the connection was closed without an answer")?;
        self.closes =
            field(&head.text, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let status = head.text.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            let status = status.to_owned();
            let problem = self.small(&head).unwrap_or_default();
            anyhow::bail!("status {status}: {}", String::from_utf8_lossy(&problem));
        }
        Ok(head)
    }

    /// The body of a short answer.
    pub(super) fn small(&mut self, head: &Head) -> anyhow::Result<Vec<u8>> {
        let length = head.length()?;
        ensure!(length <= HEAD_MAX, "an answer of {length} bytes");
        let mut body = vec![0; length];
        head.body(&mut self.stream, &mut body)?;
        Ok(body)
    }

    /// The body of an answer that fills `room`.
    pub(super) fn fill(&mut self, head: &Head, room: &mut [u8]) -> anyhow::Result<()> {
        let length = head.length()?;
        ensure!(length == room.len(), "{length} bytes in place of {}", room.len());
        head.body(&mut self.stream, room)
    }
}

fn connect(at: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(at).with_context(|| format!("cannot connect to {at}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
