//! The test function as a process: listens on `PORT`, ends when told to, or, with `--until-stdin-ends`, with the test
//! that started it.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use zipline_testkit::function::TestFunction;

#[expect(clippy::disallowed_methods, reason = "this binary's whole configuration is here")]
fn port() -> Result<u16> {
    std::env::var("PORT").context("PORT is not set")?.parse().context("PORT is no port")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port()?)).await?;
    let _function = TestFunction::serve(listener)?;
    if std::env::args().any(|argument| argument == "--until-stdin-ends") {
        let mut rest = [0; 64];
        while tokio::io::stdin().read(&mut rest).await? > 0 {}
    } else {
        std::future::pending::<()>().await;
    }
    Ok(())
}
