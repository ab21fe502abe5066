//! Holder, receiver or the link between them killed, stopped or cut in the middle of a transfer.
//!
//! What must hold each time: within a bound there is a complete, correct answer or a clear error; the function ran at
//! most once; no short body ended as if complete; nothing stays held; everybody who lives still serves.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, stream};
use http::Method;
use tokio::task::JoinSet;
use tokio::time::Instant;
use zipline_testkit::client::{Call, Protocol, Reply};
use zipline_testkit::function::BodyEnd;
use zipline_testkit::pattern;
use zipline_testkit::relay::{Direction, Fault, Relay, Rule, Then};
use zipline_tests::pair::{Pair, fresh_id};
use zipline_tests::{check, turn};

use crate::deferred::{get, put};

/// The promise is 4 s. Here is no place to measure it, since tests share their machine: this bound only tells a wait that
/// ends from one that hangs, and the longest one seen is printed.
const BOUND: Duration = Duration::from_secs(15);

/// What the sockets between two processes cannot swallow, so that a fault comes in the middle.
const LENGTH: u64 = 40_000_000;
/// Long enough for several segments, short enough for many runs.
const SHORT: u64 = 3_000_000;

/// Before, inside and after the head of the answer, around its chunks, and inside its final record.
const OFFSETS: [u64; 20] = [
    0,
    1,
    17,
    120,
    250,
    400,
    1_000,
    4_096,
    16_384,
    65_535,
    65_537,
    131_072,
    262_144,
    262_500,
    700_000,
    1_500_000,
    2_000_000,
    2_900_000,
    SHORT,
    SHORT + 400,
];

/// Pairs that run at a time.
const AT_A_TIME: usize = 5;

async fn at_every_offset<F>(what: &str, offsets: &[u64], play: impl Fn(u64) -> F) -> Result<()>
where
    F: Future<Output = Result<Duration>>,
{
    let _turn = turn::alone().await;
    let plays = offsets.iter().map(|offset| {
        let played = play(*offset);
        async move { played.await.with_context(|| format!("at byte {offset}")) }
    });
    let outcomes: Vec<Result<Duration>> = stream::iter(plays).buffer_unordered(AT_A_TIME).collect().await;
    let longest = outcomes.iter().flatten().max().copied().unwrap_or_default();
    zipline_tests::report(&format!("{what}: longest {:.1} s", longest.as_secs_f64()));
    let failed: Vec<String> =
        outcomes.into_iter().filter_map(|outcome| Some(format!("{:#}", outcome.err()?))).collect();
    ensure!(failed.is_empty(), "{} of {}: {}", failed.len(), offsets.len(), failed.join("\n"));
    Ok(())
}

/// Ends within the bound; answers how long it took.
async fn bounded<T>(what: impl Future<Output = T>) -> Result<(T, Duration)> {
    let begin = Instant::now();
    let outcome =
        tokio::time::timeout(BOUND, what).await.with_context(|| format!("hangs {} s", BOUND.as_secs()))?;
    Ok((outcome, begin.elapsed()))
}

/// A complete, correct answer, or a clear error: a problem, or a body that broke off. Answers whether it was the former.
fn complete_or_clear(reply: &Reply, seed: u64, length: u64) -> Result<bool> {
    if reply.status == 200 && reply.broken.is_none() {
        check::answered(reply, seed, length)?;
        return Ok(true);
    }
    if reply.status == 200 {
        ensure!(reply.length < length, "all bytes came, and then the end broke off");
        return Ok(false);
    }
    ensure!(matches!(reply.status.as_u16(), 502 | 504 | 424), "{} {}", reply.status, reply.text());
    if reply.text().starts_with("upstream: ") {
        // The gateway's own words for a receiver that it lost.
        return Ok(false);
    }
    check::problem(reply, reply.status.as_u16(), reply.code())?;
    ensure!(!reply.code().is_empty(), "no code");
    Ok(false)
}

/// The receiver and its function serve, whatever became of the sender.
async fn receiver_serves(pair: &Pair) -> Result<()> {
    let id = fresh_id();
    let call = Call::new(Protocol::Http1, Method::POST, "/sha256").header("x-request-id", &id);
    let (reply, _) = bounded(call.pattern(8, 5000, true).send(pair.receiver.inbound())).await?;
    ensure!(reply?.status == 200, "the receiver does not serve");
    check::arrived(&pair.function.runs, &id, 8, 5000)?;
    pair.receiver.holds_nothing().await?;
    Ok(())
}

/// The sender puts, gets and invokes.
async fn sender_serves(pair: &Pair) -> Result<()> {
    let reference = put(pair, "", 8, 5000).await?;
    let own = pair
        .sender
        .local(Protocol::Http1, Method::GET, "/v1/payload")
        .header("zipline-reference", &reference);
    check::answered(&own.send(pair.sender.api()).await?, 8, 5000)?;
    pair.sender.holds_nothing().await?;
    Ok(())
}

async fn both_serve(pair: &Pair) -> Result<()> {
    let (id, call) = pair.invoke(Protocol::Http1, "/size?bytes=300000&seed=5");
    let (reply, _) = bounded(call.pattern(8, 300_000, true).send(pair.sender.api())).await?;
    check::answered(&reply?, 5, 300_000)?;
    check::arrived(&pair.function.runs, &id, 8, 300_000)?;
    sender_serves(pair).await?;
    receiver_serves(pair).await?;
    pair.hold_nothing().await
}

fn logs(pair: &Pair) -> String {
    format!("sender:\n{}receiver:\n{}", pair.sender.process.log(), pair.receiver.process.log())
}

// ---- the link ----

/// Which payload crosses the faulty link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Request,
    Response,
    Put,
}

async fn cut(what: Cut, rule: Rule) -> Result<Duration> {
    let pair = Pair::start_in_turn(|_| {}).await?;
    cut_in(&pair, what, rule).await
}

async fn cut_in(pair: &Pair, what: Cut, rule: Rule) -> Result<Duration> {
    let (up, down) = match what {
        Cut::Request => (SHORT, 1000),
        Cut::Response | Cut::Put => (1000, SHORT),
    };
    let link: &Relay = if what == Cut::Response { &pair.answer_relay } else { &pair.relay };
    let (id, call, at) = if what == Cut::Put {
        let reference = put(pair, "?retrievals=2", 5, SHORT).await?;
        (reference.clone(), get(pair, &reference), pair.receiver.api())
    } else {
        let (id, call) = pair.invoke(Protocol::Http1, &format!("/size?bytes={down}&seed=5"));
        (id, call.pattern(4, up, true), pair.sender.api())
    };
    link.set_rule(Some(rule));
    let (reply, took) = bounded(call.send(at)).await?;
    let reply = reply?;
    let complete = complete_or_clear(&reply, 5, down)?;
    if what != Cut::Put {
        let run = check::ran_at_most_once(&pair.function.runs, &id, &pattern::sha256(4, up))?;
        ensure!(run.is_some() || !complete, "an answer without a run");
        if run.is_some() {
            check::body_ended(&pair.function.runs, &id).await?;
        }
    }
    // One cut is mended by resuming; a link that stays silent once is left for another connection as well.
    if rule.then == Then::Pass {
        ensure!(complete, "one fault was not mended: {reply:?}");
    }
    link.set_rule(None);
    if what == Cut::Put {
        let call = pair
            .sender
            .local(Protocol::Http1, Method::DELETE, "/v1/payload")
            .header("zipline-reference", &id);
        ensure!(call.send(pair.sender.api()).await?.status == 204, "not released");
    }
    pair.hold_nothing().await?;
    both_serve(pair).await?;
    Ok(took)
}

macro_rules! cuts {
    ($($name:ident: $cut:ident $fault:ident $direction:ident $then:ident, $offsets:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> Result<()> {
            at_every_offset(stringify!($name), $offsets, |after_bytes| {
                let (fault, direction, then) = (Fault::$fault, Direction::$direction, Then::$then);
                cut(Cut::$cut, Rule { fault, direction, after_bytes, then })
            })
            .await
        })+
    };
}

/// Inside the retrieve request, the acknowledgement and beyond.
const REQUEST_OFFSETS: [u64; 20] =
    [0, 1, 20, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 660, 720, 780, 840, 900, 1_000, 1_200];

cuts! {
    a_request_is_reset_once: Request Reset FromTarget Pass, &OFFSETS;
    a_request_is_reset_always: Request Reset FromTarget Again, &OFFSETS;
    a_request_is_closed_once: Request Fin FromTarget Pass, &OFFSETS;
    a_request_is_closed_always: Request Fin FromTarget Again, &OFFSETS;
    a_request_is_cut_for_good: Request Reset FromTarget Dead, &OFFSETS;
    a_response_is_cut_for_good: Response Fin FromTarget Dead, &OFFSETS;
    a_request_stalls_once: Request Stall FromTarget Pass, &OFFSETS;
    a_request_stalls_always: Request Stall FromTarget Dead, &OFFSETS;
    a_retrieve_is_reset_always: Request Reset ToTarget Again, &REQUEST_OFFSETS;
    a_response_is_reset_once: Response Reset FromTarget Pass, &OFFSETS;
    a_response_is_reset_always: Response Reset FromTarget Again, &OFFSETS;
    a_response_stalls_always: Response Stall FromTarget Dead, &OFFSETS;
    a_put_is_reset_once: Put Reset FromTarget Pass, &OFFSETS;
    a_put_is_closed_always: Put Fin FromTarget Again, &OFFSETS;
    a_put_stalls_always: Put Stall FromTarget Dead, &OFFSETS;
}

// ---- the processes ----

/// Lets a transfer reach `offset`, does something to one side, and lets the link go on.
async fn strike<T>(
    link: &Relay,
    offset: u64,
    transfer: impl Future<Output = T>,
    strike: impl AsyncFnOnce() -> Result<()>,
) -> Result<(T, Duration)> {
    link.set_rule(Some(Rule {
        fault: Fault::Stall,
        direction: Direction::FromTarget,
        after_bytes: offset,
        then: Then::Dead,
    }));
    let striking = async {
        zipline_testkit::wait::until("the offset", || async { Ok((link.struck() > 0).then_some(())) })
            .await?;
        strike().await?;
        link.set_rule(None);
        anyhow::Ok(())
    };
    let ((outcome, took), struck) =
        futures_util::future::try_join(bounded(transfer), async { Ok(striking.await) }).await?;
    struck?;
    Ok((outcome, took))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_of_a_request_is_killed() -> Result<()> {
    at_every_offset("holder of a request killed", &OFFSETS, |offset| async move {
        let mut pair = Pair::start_in_turn(|_| {}).await?;
        let (id, call) = pair.invoke(Protocol::Http1, "/sha256");
        let call = call.pattern(4, LENGTH, true).send(pair.sender.api());
        let process = &mut pair.sender.process;
        let (reply, took) = strike(&pair.relay, offset, call, async || process.kill()).await?;
        if let Ok(reply) = reply {
            complete_or_clear(&reply, 0, u64::MAX)?;
        }
        let run = check::ran_at_most_once(&pair.function.runs, &id, &pattern::sha256(4, LENGTH))?;
        if run.is_some() {
            let run = check::body_ended(&pair.function.runs, &id).await?;
            ensure!(run.end == BodyEnd::Aborted, "{run:?}");
        }
        receiver_serves(&pair).await.with_context(|| pair.receiver.process.log())?;
        Ok(took)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_of_a_put_is_killed() -> Result<()> {
    at_every_offset("holder of a put killed", &OFFSETS, |offset| async move {
        let mut pair = Pair::start_in_turn(|_| {}).await?;
        let reference = put(&pair, "", 5, LENGTH).await?;
        let call = get(&pair, &reference).send(pair.receiver.api());
        let process = &mut pair.sender.process;
        let (reply, took) = strike(&pair.relay, offset, call, async || process.kill()).await?;
        ensure!(!complete_or_clear(&reply?, 5, LENGTH)?, "complete without a holder");
        check::problem(&get(&pair, &reference).send(pair.receiver.api()).await?, 424, "payload-lost")?;
        receiver_serves(&pair).await.with_context(|| pair.receiver.process.log())?;
        Ok(took)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_of_a_put_is_stopped() -> Result<()> {
    at_every_offset("holder of a put stopped", &OFFSETS, |offset| async move {
        let pair = Pair::start_in_turn(|_| {}).await?;
        let reference = put(&pair, "", 5, LENGTH).await?;
        let call = get(&pair, &reference).send(pair.receiver.api());
        let (reply, took) = strike(&pair.relay, offset, call, async || pair.sender.stop()).await?;
        ensure!(!complete_or_clear(&reply?, 5, LENGTH)?, "complete without a holder");
        receiver_serves(&pair).await.with_context(|| pair.receiver.process.log())?;
        pair.sender.go_on()?;
        // Nothing was spent, so the payload is there for another try, once the lease that broke off has lapsed.
        check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 5, LENGTH)?;
        both_serve(&pair).await.with_context(|| logs(&pair))?;
        Ok(took)
    })
    .await
}

/// Its function is out of luck, since its own queue-proxy is stopped; the receiver is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_of_a_request_is_stopped() -> Result<()> {
    at_every_offset("holder of a request stopped", &OFFSETS, |offset| async move {
        let pair = Pair::start_in_turn(|_| {}).await?;
        let (id, call) = pair.invoke(Protocol::Http1, "/sha256");
        let mut calls = JoinSet::new();
        calls.spawn(call.pattern(4, LENGTH, true).send(pair.sender.api()));
        // What the receiver makes of it: nothing runs, or a run that was aborted, and nothing in flight.
        let settled = async {
            zipline_testkit::wait::until("the transfer", || async {
                Ok((pair.relay.struck() > 0).then_some(()))
            })
            .await?;
            pair.receiver.holds_nothing().await
        };
        let (settled, took) =
            Box::pin(strike(&pair.relay, offset, settled, async || pair.sender.stop())).await?;
        settled.with_context(|| pair.receiver.process.log())?;
        pair.sender.go_on()?;
        let (reply, _) = bounded(calls.join_next()).await?;
        let reply = reply.context("a call")???;
        let sha256 = pattern::sha256(4, LENGTH);
        if let Some(run) = check::ran_at_most_once(&pair.function.runs, &id, &sha256)? {
            ensure!(run.end != BodyEnd::Unread, "{run:?}");
        }
        if reply.status == 200 {
            check::succeeded(&reply)?;
            ensure!(reply.json()?["sha256"] == sha256, "{}", reply.text());
        } else {
            complete_or_clear(&reply, 0, 0)?;
        }
        both_serve(&pair).await.with_context(|| logs(&pair))?;
        Ok(took)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receiver_of_a_request_is_killed() -> Result<()> {
    at_every_offset("receiver of a request killed", &OFFSETS, |offset| async move {
        let mut pair = Pair::start_in_turn(|_| {}).await?;
        let (id, call) = pair.invoke(Protocol::Http1, "/sha256");
        let call = call.pattern(4, LENGTH, true).send(pair.sender.api());
        let process = &mut pair.receiver.process;
        let (reply, took) = strike(&pair.relay, offset, call, async || process.kill()).await?;
        ensure!(!complete_or_clear(&reply?, 0, 0)?, "an answer from a killed process");
        check::ran_at_most_once(&pair.function.runs, &id, &pattern::sha256(4, LENGTH))?;
        pair.sender.holds_nothing().await.with_context(|| pair.sender.process.log())?;
        sender_serves(&pair).await.with_context(|| pair.sender.process.log())?;
        Ok(took)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receiver_of_a_request_is_stopped() -> Result<()> {
    at_every_offset("receiver of a request stopped", &OFFSETS, |offset| async move {
        let pair = Pair::start_in_turn(|_| {}).await?;
        let (id, call) = pair.invoke(Protocol::Http1, "/sha256");
        let call = call.pattern(4, LENGTH, true).send(pair.sender.api());
        let (reply, took) = strike(&pair.relay, offset, call, async || pair.receiver.stop()).await?;
        ensure!(!complete_or_clear(&reply?, 0, 0)?, "an answer from a stopped process");
        pair.sender.holds_nothing().await.with_context(|| pair.sender.process.log())?;
        sender_serves(&pair).await.with_context(|| pair.sender.process.log())?;
        pair.receiver.go_on()?;
        if check::ran_at_most_once(&pair.function.runs, &id, &pattern::sha256(4, LENGTH))?.is_some() {
            check::body_ended(&pair.function.runs, &id).await?;
        }
        both_serve(&pair).await.with_context(|| logs(&pair))?;
        Ok(took)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_of_a_response_is_killed() -> Result<()> {
    at_every_offset("holder of a response killed", &OFFSETS, |offset| async move {
        let mut pair = Pair::start_in_turn(|_| {}).await?;
        let (id, call) = pair.invoke(Protocol::Http1, &format!("/size?bytes={LENGTH}&seed=5"));
        let call = call.pattern(4, 1000, true).send(pair.sender.api());
        let process = &mut pair.receiver.process;
        let (reply, took) = strike(&pair.answer_relay, offset, call, async || process.kill()).await?;
        ensure!(!complete_or_clear(&reply?, 5, LENGTH)?, "complete without a holder");
        check::arrived(&pair.function.runs, &id, 4, 1000)?;
        pair.sender.holds_nothing().await.with_context(|| pair.sender.process.log())?;
        sender_serves(&pair).await.with_context(|| pair.sender.process.log())?;
        Ok(took)
    })
    .await
}
