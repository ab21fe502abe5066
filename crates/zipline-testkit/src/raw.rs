//! HTTP/1.1 by hand: for `Expect`, false lengths, stalls, and heads that no client library sends.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest head that is read, in bytes.
const HEAD_MAX: usize = 1024 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Names in lower case, with their values, in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// No connection.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The peer closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref()).await.context("send")
    }

    /// Sends one chunk of a chunked body; an empty one ends it.
    ///
    /// # Errors
    /// The peer closed the connection.
    pub async fn send_chunk(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(format!("{:x}\r\n", bytes.len())).await?;
        self.send(bytes).await?;
        self.send("\r\n").await
    }

    /// Ends the sending direction only.
    ///
    /// # Errors
    /// The socket is gone.
    pub async fn finish_sending(&mut self) -> Result<()> {
        self.stream.shutdown().await.context("shutdown")
    }

    /// Reads one response head, also an informational one.
    ///
    /// # Errors
    /// The connection ended, or what came is no head.
    pub async fn head(&mut self) -> Result<Head> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            if self.read.len() > HEAD_MAX || !self.fill().await? {
                bail!("connection ended inside a head: {:?}", String::from_utf8_lossy(&self.read));
            }
        };
        let text = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Head { status: status.with_context(|| format!("no status line: {line:?}"))?, headers })
    }

    /// Reads the final response head, passing over informational ones.
    ///
    /// # Errors
    /// As [`Raw::head`].
    pub async fn final_head(&mut self) -> Result<Head> {
        loop {
            let head = self.head().await?;
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
        }
    }

    /// Reads the body that belongs to `head`.
    ///
    /// # Errors
    /// It broke off.
    pub async fn body(&mut self, head: &Head) -> Result<Vec<u8>> {
        if let Some(length) = head.header("content-length") {
            return self.exactly(length.parse()?).await;
        }
        let mut body = Vec::new();
        if head.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(self.line().await?.trim(), 16).context("chunk size")?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    return Ok(body);
                }
                body.extend(self.exactly(size).await?);
                self.line().await?;
            }
        }
        while self.fill().await? {}
        body.append(&mut self.read);
        Ok(body)
    }

    /// Reads exactly `length` bytes.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.read.len() < length {
            if !self.fill().await? {
                bail!("connection ended after {} of {length} bytes", self.read.len());
            }
        }
        let after = self.read.split_off(length);
        Ok(std::mem::replace(&mut self.read, after))
    }

    /// Reads until the peer closes; a reset counts as the end. Answers how many bytes came.
    pub async fn until_closed(&mut self) -> usize {
        let mut count = std::mem::take(&mut self.read).len();
        while self.fill().await.unwrap_or(false) {
            count += std::mem::take(&mut self.read).len();
        }
        count
    }

    async fn line(&mut self) -> Result<String> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                break end;
            }
            if !self.fill().await? {
                bail!("connection ended inside a chunked body");
            }
        };
        let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 2);
        Ok(line)
    }

    async fn fill(&mut self) -> Result<bool> {
        self.read.reserve(64 * 1024);
        Ok(self.stream.read_buf(&mut self.read).await.context("receive")? > 0)
    }
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}
