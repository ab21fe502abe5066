//! Data ports with TLS on both sides, on one, and on none.

use anyhow::{Context, Result, ensure};
use http::Method;
use zipline_protocol::ReferenceKind;
use zipline_testkit::client::Protocol;
use zipline_testkit::pattern;
use zipline_testkit::relay::Relay;
use zipline_tests::check;
use zipline_tests::pair::{Pair, PairConfig};

use crate::deferred::{get, open, put};

const UP: u64 = 700_000;
const DOWN: u64 = 600_001;

/// Short enough to lie inside one chunk and one TCP read somewhere, long enough to be no accident.
const TELLTALE: usize = 32;

async fn pair(sender: bool, receiver: bool) -> Result<Pair> {
    let change = |config: &mut PairConfig| {
        for (side, tls) in [(&mut config.sender, sender), (&mut config.receiver, receiver)] {
            let word = if tls { "on" } else { "off" };
            side.variables.push(("ZIPLINE_DATA_TLS".to_owned(), word.to_owned()));
        }
    };
    let pair = Pair::start_with(change).await?;
    pair.relay.record();
    pair.answer_relay.record();
    Ok(pair)
}

/// Whether some of the payload passed the relay readably: any one of its pieces is enough.
fn readable(relay: &Relay, seed: u64, length: u64) -> Result<bool> {
    let recorded = relay.recorded();
    ensure!(recorded.len() as u64 > length, "the payload did not pass here: {} bytes", recorded.len());
    Ok((0..length / 50_000).any(|piece| {
        let telltale = pattern::bytes(seed, piece * 50_000 + 17, TELLTALE);
        recorded.windows(TELLTALE).any(|window| window == telltale)
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deferred_messages_are_read_on_the_wire_only_where_there_is_no_tls() -> Result<()> {
    for (sender, receiver) in [(true, true), (true, false), (false, true), (false, false)] {
        let pair = pair(sender, receiver).await?;
        for protocol in Protocol::ALL {
            let (id, call) = pair.invoke(protocol, &format!("/size?bytes={DOWN}&seed=5"));
            let reply = call.pattern(4, UP, true).send(pair.sender.api()).await?;
            check::answered(&reply, 5, DOWN)?;
            check::arrived(&pair.function.runs, &id, 4, UP)?;
        }
        let crossed = pair.gateway.traffic.total();
        ensure!(crossed < 2 * 64 * 1024, "{crossed} bytes crossed the gateway");
        for (what, relay, seed, length, tls) in
            [("request", &pair.relay, 4, UP, sender), ("response", &pair.answer_relay, 5, DOWN, receiver)]
        {
            let readable = readable(relay, seed, length)?;
            ensure!(readable != tls, "{what} with TLS {tls} is readable: {readable}");
        }
        pair.hold_nothing().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_name_the_certificate_and_are_got_by_whoever_has_none() -> Result<()> {
    let pair = pair(true, false).await?;
    let reference = put(&pair, "", 6, UP).await?;
    let certificate = open(&reference, ReferenceKind::Put)?.certificate.context("no certificate")?;
    let again = open(&put(&pair, "", 7, UP).await?, ReferenceKind::Put)?.certificate;
    ensure!(again == Some(certificate), "one certificate per life");
    let reply = get(&pair, &reference).send(pair.receiver.api()).await?;
    check::answered(&reply, 6, UP)?;
    ensure!(!readable(&pair.relay, 6, UP)?, "the put is readable");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_does_not_show_its_certificate_counts_as_unreachable() -> Result<()> {
    // Every reference of the sender leads to another queue-proxy, with a certificate of its own, or with none.
    for impostor_tls in [true, false] {
        let pair = pair(true, impostor_tls).await?;
        pair.relay.set_target(pair.receiver.data());
        let (id, call) = pair.invoke_by(Protocol::Http1, Method::POST, "/sha256");
        let reply = call.pattern(4, UP, true).send(pair.sender.api()).await?;
        check::succeeded(&reply)?;
        check::arrived(&pair.function.runs, &id, 4, UP)?;
        let status = pair.sender.status().await?;
        ensure!(status.count("sent", "request", "network") == 0, "{:?}", status.transfers.edges);
        ensure!(pair.gateway.traffic.total() > UP, "it was sent inline");
        pair.hold_nothing().await?;
    }
    Ok(())
}
