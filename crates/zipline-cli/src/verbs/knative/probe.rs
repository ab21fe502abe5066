//! `zipline knative probe`: whether data ports answer from here.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::exit::{Outcome, UNAVAILABLE};
use crate::output;

/// Longest wait for one of them.
const TIMEOUT: Duration = Duration::from_secs(3);
/// An answer's head is far shorter.
const HEAD_MAX: u64 = 8 * 1024;

/// `knative probe`
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Data ports, as IP:PORT
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<SocketAddr>,
}

/// One line per address: the address, a tab, `ok` or why not.
pub(crate) async fn run(args: ProbeArgs) -> Outcome {
    let mut status = 0;
    for address in args.addresses {
        let word = match timeout(TIMEOUT, ask(address)).await {
            Ok(Ok(true)) => "ok".to_owned(),
            Ok(Ok(false)) => "something else answers than a queue-proxy of Zipline".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no answer within {TIMEOUT:?}"),
        };
        if word != "ok" {
            status = UNAVAILABLE;
        }
        output::data(format!("{address}\t{word}\n"))?;
    }
    Ok(status)
}

/// Without a proof the data port refuses, in its own words; nothing is looked up for it.
async fn ask(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /zipline/v1/probe HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    stream.take(HEAD_MAX).read_to_end(&mut head).await?;
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    Ok(head.starts_with("http/1.1 4") && head.contains("\r\nzipline-error:"))
}
