//! The test function: one server for HTTP/1.1 and h2c whose paths choose a behaviour, and which remembers how the body of
//! every request ended.
//!
//! | path | answers |
//! |---|---|
//! | `/sha256` | JSON about the request, after its whole body: digest, length, headers, trailers |
//! | `/echo` | the body, byte by byte as it comes, with its type and trailers; also `Upgrade`s |
//! | `/size?bytes=N&seed=S&chunked=1&trailers=1` | N seeded bytes, after the body |
//! | `/early` | at once; the body is read and forgotten |
//! | `/status?code=N` | that status, after the body |
//! | `/headers` | JSON of the request's headers, without reading a body |
//! | `/hold?gate=G` | after `/open?gate=G` was called |
//! | `/short?bytes=N` | promises N seeded bytes, sends half of them and breaks off |
//! | `/exit` | ends the process |
//! | `/runs` | JSON of all runs so far; `/runs` itself, `/open` and `/healthz` are none |

mod record;
mod respond;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::net::TcpListener;

pub use record::{BodyEnd, Run, Runs};

use crate::forward;
use crate::owner::Owner;

/// A test function in this process; it ends when dropped.
#[derive(Debug)]
pub struct TestFunction {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it remembers.
    pub runs: Runs,
    _owner: Owner,
}

impl TestFunction {
    /// Starts the function on a free port.
    ///
    /// # Errors
    /// No port.
    pub async fn start() -> Result<Self> {
        Self::serve(TcpListener::bind("127.0.0.1:0").await?)
    }

    /// Starts the function on `listener`.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn serve(listener: TcpListener) -> Result<Self> {
        let (address, owner, runs) = (listener.local_addr()?, Owner::default(), Runs::default());
        let (spawner, record) = (owner.spawner(), runs.clone());
        forward::serve(listener, &owner.spawner(), Arc::default(), move |request| {
            respond::respond(request, record.clone(), spawner.clone())
        });
        Ok(Self { address, runs, _owner: owner })
    }
}
