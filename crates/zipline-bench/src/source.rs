//! The sending process: posts payloads over one connection to its local API and times each.
//!
//! Reads lines `SIZE RUNS` and answers each with one JSON array of seconds. The payload is written anew before each run, so
//! that it is as warm as a function's own result would be. Plain blocking sockets: no client library's time is measured.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, bail, ensure};
use tokio::time::Instant;

/// Serves lines until standard input ends.
pub(crate) fn run() -> anyhow::Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place in which this process reads its environment"
    )]
    let variable =
        |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: run it by zipline run"));
    let api = variable("ZIPLINE_API")?;
    let address = api.strip_prefix("http://").with_context(|| format!("ZIPLINE_API={api} is not http://"))?;
    let mut connection = Connection::open(address, &variable("ZIPLINE_TOKEN")?)?;
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input")?;
        let (size, runs) = line.split_once(' ').context("a line is SIZE RUNS")?;
        let (size, runs): (usize, usize) = (size.parse()?, runs.parse()?);
        let mut payload = vec![0; size];
        let mut seconds = Vec::with_capacity(runs);
        for run in 0..runs {
            payload.fill(u8::try_from(run % 251).unwrap_or(0));
            seconds.push(connection.post(&payload)?);
        }
        writeln!(out, "{}", serde_json::to_string(&seconds)?)?;
        out.flush()?;
    }
    Ok(())
}

struct Connection {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    head: String,
}

impl Connection {
    fn open(address: &str, token: &str) -> anyhow::Result<Self> {
        let writer = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        writer.set_nodelay(true)?;
        let head = format!(
            "POST /v1/invoke/sink.default/ HTTP/1.1\r\nHost: {address}\r\nZipline-Token: {token}\r\n"
        );
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer, head })
    }

    /// Seconds from the first byte of the request to the last of the response.
    fn post(&mut self, payload: &[u8]) -> anyhow::Result<f64> {
        let started = Instant::now();
        write!(self.writer, "{}Content-Length: {}\r\n\r\n", self.head, payload.len())?;
        self.writer.write_all(payload)?;
        let answer = self.answer()?;
        let elapsed = started.elapsed().as_secs_f64();
        ensure!(
            answer == payload.len().to_string(),
            "sent {} bytes, the function got {answer}",
            payload.len()
        );
        Ok(elapsed)
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().context("content-length of the answer")?;
            }
        }
        ensure!(length <= 64 * 1024, "an answer of {length} bytes");
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        if status != "200" {
            bail!("status {status}: {body}");
        }
        Ok(body)
    }
}
