//! The Rust SDK over its socket, with real queue-proxies on both sides.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zipline_protocol::sdk;
use zipline_sdk::blocking::Client;
use zipline_sdk::{BoundedBy, ErrorCode, Options, PutOptions, Reference, Retrievals, Source};
use zipline_testkit::client::Protocol;
use zipline_testkit::pattern;
use zipline_testkit::queue_proxy::QueueProxy;
use zipline_tests::check;
use zipline_tests::pair::Pair;

use crate::deferred::get;

/// From a payload in its frame to one of several segments.
const LENGTHS: [usize; 7] = [0, 1, 10_000, 65_536, 65_537, 1 << 20, 20_000_000];

pub(crate) fn options(side: &QueueProxy) -> Options {
    Options::new().socket(&side.socket.display().to_string()).token(&side.token)
}

/// Runs what blocks beside the test's own tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// A client of each side.
pub(crate) fn clients(pair: &Pair) -> (Options, Options) {
    (options(&pair.sender), options(&pair.receiver))
}

#[track_caller]
pub(crate) fn refused<T>(result: zipline_sdk::Result<T>, code: ErrorCode) -> Result<zipline_sdk::Error> {
    match result {
        Ok(_) => anyhow::bail!("it was not refused with {code}"),
        Err(error) if error.code() == code => Ok(error),
        Err(error) => anyhow::bail!("{code} was expected, not {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_of_every_size_arrive_by_every_way() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    blocking(move || {
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        let typed = PutOptions::new().content_type("application/x-test");
        for (seed, length) in (1..).zip(LENGTHS) {
            let bytes = pattern::bytes(seed, 0, length);
            for pre_issued in [false, true] {
                let options = typed.clone().pre_issued(pre_issued);
                let copied = sender.put(&bytes, &options)?;
                let mut buffer = sender.create(length)?;
                ensure!(buffer.as_ptr().align_offset(64) == 0, "a buffer starts anywhere");
                buffer.copy_from_slice(&bytes);
                let in_place = sender.put_buffer(buffer, &options)?;
                for reference in [copied, in_place] {
                    let reference: Reference = reference.to_string().parse()?;
                    let payload =
                        receiver.get(&reference).with_context(|| format!("{length} {pre_issued}"))?;
                    ensure!(payload[..] == bytes[..], "{length} bytes arrived as others");
                    ensure!(payload.content_type() == Some("application/x-test"), "{payload:?}");
                    ensure!(payload.source() == Source::Network, "{payload:?}");
                    refused(receiver.get(&reference), ErrorCode::RetrievalsExhausted)?;
                }
                let own = sender.put(&bytes, &options)?;
                let payload = sender.get(&own)?;
                ensure!(payload[..] == bytes[..] && payload.source() == Source::Own, "{payload:?}");
                refused(sender.get(&own), ErrorCode::RetrievalsExhausted)?;
            }
        }
        sender.settle()?;
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sdk_puts_http_gets_and_the_other_way_round() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    for (length, pre_issued) in [(1_000, false), (1_000, true), (3_000_000, false), (3_000_000, true)] {
        let sender = sender.clone();
        let reference = blocking(move || {
            let options = PutOptions::new().content_type("text/x-put").pre_issued(pre_issued);
            Ok(Client::connect(sender)?.put(pattern::bytes(3, 0, length), &options)?.to_string())
        });
        let reference = reference.await?;
        check::answered(&get(&pair, &reference).send(pair.receiver.api()).await?, 3, length as u64)?;
        let reference = crate::deferred::put(&pair, "", 4, length as u64).await?;
        let receiver = receiver.clone();
        blocking(move || {
            let payload = Client::connect(receiver)?.get(&reference.parse()?)?;
            ensure!(payload[..] == pattern::bytes(4, 0, length)[..], "other bytes");
            Ok(())
        })
        .await?;
    }
    let call = pair.sender.local(Protocol::Http1, http::Method::GET, "/openapi.yaml");
    let reply = call.open_unix(&pair.sender.socket).await?.read().await;
    ensure!(reply.status == 200, "the same socket speaks HTTP: {}", reply.status);
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_used_again_only_when_nobody_looks_at_it() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    blocking(move || {
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        let length = 2_000_000;
        let (first, second) = (pattern::bytes(1, 0, length), pattern::bytes(2, 0, length));
        let one = sender.put(&first, &PutOptions::new())?;
        let kept = receiver.get(&one)?;
        let at = kept.as_ptr();
        let other = receiver.get(&sender.put(&second, &PutOptions::new())?)?;
        ensure!(kept[..] == first[..] && other[..] == second[..], "a payload that is kept has changed");
        ensure!(other.as_ptr() != at, "memory of a payload that is kept was used again");
        drop(kept);
        let third = receiver.get(&sender.put(&first, &PutOptions::new())?)?;
        ensure!(third.as_ptr() == at, "memory of a payload that was dropped was not used again");
        drop((other, third));

        let mut buffer = sender.create(length)?;
        buffer.copy_from_slice(&first);
        let (held, at) = (buffer.hold(), buffer.as_ptr());
        let reference = sender.put_buffer(buffer, &PutOptions::new())?;
        ensure!(receiver.get(&reference)?[..] == first[..], "other bytes");
        let next = sender.create(length)?;
        ensure!(next.as_ptr() != at, "memory that is held was offered again");
        drop((next, held));
        // It is free once its holder knows of the delivery, which nobody waits for.
        let offered = (0..1_000).any(|_| {
            let several: Vec<_> = (0..6).map(|_| sender.create(length)).collect();
            several.iter().flatten().any(|buffer| buffer.as_ptr() == at)
        });
        ensure!(offered, "memory that is held no more was not offered");
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

/// What a function has mapped counts against the budget, and goes when it stands in the way of what is got next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_warm_gives_way_to_what_is_larger() -> Result<()> {
    let pair = Pair::start_with(|config| config.receiver.in_flight_bytes = 8 << 20).await?;
    let (sender, receiver) = clients(&pair);
    // Less than the time after which a client gives back by itself what it does not use.
    let receiver = receiver.timeout(Duration::from_secs(10));
    let lengths = [1_500_000, 3_000_000, 6_000_000, 1_000_000, 8_000_000, 2_000_000, 7_000_000];
    let (putting, options) = (sender.clone(), receiver.clone());
    blocking(move || {
        let (sender, receiver) = (Client::connect(putting)?, Client::connect(options)?);
        for (seed, length) in (1..).zip(lengths) {
            let bytes = pattern::bytes(seed, 0, length);
            let payload = receiver.get(&sender.put(&bytes, &PutOptions::new())?)?;
            ensure!(payload[..] == bytes[..], "{length}: other bytes");
        }
        Ok(())
    })
    .await?;
    let (sender, receiver) =
        (zipline_sdk::Client::connect(sender).await?, zipline_sdk::Client::connect(receiver).await?);
    for (seed, length) in (1..).zip(lengths) {
        let bytes = pattern::bytes(seed, 0, length);
        let payload = receiver.get(&sender.put(&bytes, &PutOptions::new()).await?).await?;
        ensure!(payload[..] == bytes[..], "{length}: other bytes");
    }
    drop((sender, receiver));
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_payloads_written_in_place_use_their_memory_again() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    blocking(move || {
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        for seed in 0..sdk::SEGMENTS_MAX + 100 {
            let length = [1, 10_000][seed % 2];
            let bytes = pattern::bytes(seed as u64, 0, length);
            let mut buffer = sender.create(length).with_context(|| format!("buffer {seed}"))?;
            buffer.copy_from_slice(&bytes);
            let reference = sender.put_buffer(buffer, &PutOptions::new())?;
            ensure!(receiver.get(&reference)?[..] == bytes[..], "payload {seed} arrived as another");
        }
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_got_at_once() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    blocking(move || {
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        let mut references = Vec::new();
        for seed in 0..150 {
            let length = if seed % 10 == 0 { 300_000 } else { 2_000 };
            references.push(
                sender.put(pattern::bytes(seed, 0, length), &PutOptions::new().pre_issued(seed % 2 == 0))?,
            );
        }
        let released = 17;
        sender.release(&references[released])?;
        let mut seen = vec![false; references.len()];
        for (index, got) in receiver.get_many(&references) {
            ensure!(!std::mem::replace(&mut seen[index], true), "{index} came twice");
            if index == released {
                let error = refused(got, ErrorCode::PayloadLost)?;
                ensure!(error.call_site().is_some_and(|site| site.file().ends_with("sdk.rs")), "{error:?}");
                ensure!(error.to_string().contains("; put at "), "{error}");
                ensure!(!error.message().contains("; put at "), "{}", error.message());
            } else {
                let payload = got?;
                ensure!(
                    payload[..] == pattern::bytes(index as u64, 0, payload.len())[..],
                    "{index} has other bytes"
                );
            }
        }
        ensure!(seen.iter().all(|seen| *seen), "some never came");
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_get_many_and_as_many_at_a_time_as_they_like() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    let (sender, receiver) =
        (zipline_sdk::Client::connect(sender).await?, zipline_sdk::Client::connect(receiver).await?);
    for in_flight in [1, 3, 64, 1_000] {
        let mut references = Vec::new();
        for seed in 0..150 {
            let length = if seed % 10 == 0 { 300_000 } else { 2_000 };
            references.push(sender.put(pattern::bytes(seed, 0, length), &PutOptions::new()).await?);
        }
        sender.release(&references[17]).await?;
        let mut got = receiver.get_many(&references).in_flight(in_flight);
        let mut seen = vec![false; references.len()];
        while let Some((index, payload)) = got.next().await {
            ensure!(!std::mem::replace(&mut seen[index], true), "{index} came twice");
            if index == 17 {
                refused(payload, ErrorCode::PayloadLost)?;
                continue;
            }
            let payload = payload?;
            let expected = pattern::bytes(index as u64, 0, payload.len());
            ensure!(payload[..] == expected[..], "{index} has other bytes");
        }
        ensure!(seen.iter().all(|seen| *seen), "some never came with {in_flight} at a time");
    }
    drop((sender, receiver));
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_says_how_long_its_payload_lives() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    blocking(move || {
        for client in [Client::connect(sender)?, Client::local()] {
            let lives = |options: PutOptions| -> Result<_> {
                let reference = client.put(b"x", &options)?;
                client.release(&reference)?;
                Ok((reference.ttl(), reference.bounded_by()))
            };
            let (brief, long) = (Duration::from_secs(7), Duration::from_secs(7_200));
            let plain = PutOptions::new();
            ensure!(lives(plain.clone().ttl(brief))? == (Some(brief), Some(BoundedBy::Requested)));
            ensure!(lives(plain.ttl(long))? == (Some(long / 2), Some(BoundedBy::Maximum)));
            let text: Reference = client.put(b"x", &PutOptions::new())?.to_string().parse()?;
            client.release(&text)?;
            ensure!(text.ttl().is_none() && text.bounded_by().is_none());
        }
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

/// Whichever comes first bounds a put: the wait for memory or the client's timeout; and nothing stays of one that was given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_memory_end_as_they_were_told_to() -> Result<()> {
    let pair = Pair::start_with(|config| config.sender.budget_bytes = 8 << 20).await?;
    let (sender, _) = clients(&pair);
    let options = sender.clone();
    blocking(move || {
        let client = Client::connect(options)?;
        let full = client.put(vec![1; 7 << 20], &PutOptions::new())?;
        refused(client.create_within(2 << 20, Duration::from_millis(1)), ErrorCode::BufferFull)?;
        refused(client.create_within(1, Duration::from_secs(61)), ErrorCode::RequestInvalid)?;
        let patient = PutOptions::new().wait(Duration::from_secs(60));
        let brief = client.with_timeout(Duration::from_millis(50));
        refused(brief.create_within(2 << 20, Duration::from_secs(60)), ErrorCode::DeadlineExceeded)?;
        refused(brief.put(vec![1; 2 << 20], &patient), ErrorCode::DeadlineExceeded)?;
        client.release(&full)?;
        Ok(())
    })
    .await?;
    pair.hold_nothing().await?;
    let client = zipline_sdk::Client::connect(sender).await?;
    let full = client.put(vec![1; 7 << 20], &PutOptions::new()).await?;
    refused(client.create_within(2 << 20, Duration::from_millis(1)).await, ErrorCode::BufferFull)?;
    let brief = client.with_timeout(Duration::from_millis(50));
    let created = brief.create_within(2 << 20, Duration::from_secs(60)).await;
    refused(created, ErrorCode::DeadlineExceeded)?;
    client.release(&full).await?;
    drop(client);
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_puts_of_a_kind_that_comes_again_take_references_in_advance() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    let (asynchronous, got_by) = (sender.clone(), receiver.clone());
    blocking(move || {
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        let options = PutOptions::new().pre_issued_if_ready();
        let mut ahead = 0;
        for seed in 0..100 {
            let bytes = pattern::bytes(seed, 0, 600);
            let reference = sender.put(&bytes, &options)?;
            ahead += usize::from(reference.ttl().is_none());
            if seed % 3 == 0 {
                // Nothing is waited for in between.
                sender.release(&reference)?;
                refused(receiver.get(&reference), ErrorCode::PayloadLost)?;
            } else {
                ensure!(receiver.get(&reference)?[..] == bytes[..], "{seed}: other bytes");
            }
        }
        ensure!(ahead > 50, "only {ahead} of 100 took one");
        let large = sender.put(vec![1; 100_000], &options)?;
        ensure!(large.ttl().is_some(), "a large payload's length is to be known");
        sender.release(&large)?;
        sender.settle()?;
        Ok(())
    })
    .await?;
    pair.hold_nothing().await?;
    let (sender, receiver) =
        (zipline_sdk::Client::connect(asynchronous).await?, zipline_sdk::Client::connect(got_by).await?);
    let options = PutOptions::new().pre_issued_if_ready();
    let mut ahead = 0;
    for seed in 0..100 {
        let bytes = pattern::bytes(seed, 0, 600);
        let reference = sender.put(&bytes, &options).await?;
        ahead += usize::from(reference.ttl().is_none());
        ensure!(receiver.get(&reference).await?[..] == bytes[..], "{seed}: other bytes");
    }
    ensure!(ahead > 50, "only {ahead} of 100 took one");
    drop((sender, receiver));
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_share_one_client() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    blocking(move || {
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        std::thread::scope(|scope| {
            let work = |seed: u64| {
                let (sender, receiver) = (&sender, &receiver);
                move || -> Result<()> {
                    for round in 0..20 {
                        let length = if round % 4 == 0 { 200_000 } else { 500 };
                        let bytes = pattern::bytes(seed * 100 + round, 0, length);
                        let reference = sender.put(&bytes, &PutOptions::new().pre_issued(round % 2 == 0))?;
                        ensure!(receiver.get(&reference)?[..] == bytes[..], "{seed} {round}: other bytes");
                    }
                    Ok(())
                }
            };
            let threads: Vec<_> = (0..8).map(|seed| scope.spawn(work(seed))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a panic"))?)
        })
    })
    .await?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_happened_by_their_code() -> Result<()> {
    let pair = Pair::start_with(|config| {
        config.sender.budget_bytes = 8 << 20;
        config.sender.in_flight_bytes = 8 << 20;
    })
    .await?;
    let (sender, receiver) = clients(&pair);
    let wrong = sender.clone().token("wrong");
    let nowhere = Options::new().socket("/nonexistent/socket");
    let foreign = {
        let ring = crate::deferred::ring("other", &[1])?;
        let record =
            crate::deferred::record(zipline_protocol::ReferenceKind::Put, "other", pair.sender.data());
        ring.seal_reference(&record).context("seal")?.as_str().to_owned()
    };
    blocking(move || {
        refused(Client::connect(wrong), ErrorCode::TokenMissing)?;
        refused(Client::connect(nowhere), ErrorCode::UpstreamFailed)?;
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        let plain = PutOptions::new();

        refused("zl9.nothing".parse::<Reference>(), ErrorCode::ReferenceInvalid)?;
        refused(receiver.get(&"zl1.AAAA".parse()?), ErrorCode::ReferenceInvalid)?;
        refused(receiver.get(&foreign.parse()?), ErrorCode::ReferenceForbidden)?;

        refused(
            sender.put(b"x", &plain.clone().retrievals(Retrievals::Limited(0))),
            ErrorCode::RequestInvalid,
        )?;
        refused(sender.put(b"x", &plain.clone().ttl(Duration::ZERO)), ErrorCode::RequestInvalid)?;
        refused(sender.put(b"x", &plain.clone().linger(Duration::from_secs(61))), ErrorCode::RequestInvalid)?;
        refused(sender.put(b"x", &plain.clone().content_type(&"x".repeat(256))), ErrorCode::RequestInvalid)?;
        refused(sender.create(9 << 20), ErrorCode::PayloadTooLarge)?;

        let impatient = plain.clone().wait(Duration::from_millis(10));
        let full = sender.put(vec![1; 6 << 20], &plain)?;
        let error = refused(sender.put(vec![1; 6 << 20], &impatient), ErrorCode::BufferFull)?;
        ensure!(error.call_site().is_some(), "{error:?}");
        sender.release(&full)?;
        refused(receiver.get(&full), ErrorCode::PayloadLost)?;
        refused(sender.release(&full), ErrorCode::PayloadLost)?;

        let spent = sender.put(b"once", &plain)?;
        receiver.get(&spent)?;
        refused(receiver.get(&spent), ErrorCode::RetrievalsExhausted)?;
        let elsewhere = sender.put(b"here", &plain)?;
        refused(receiver.release(&elsewhere), ErrorCode::RequestInvalid)?;
        sender.release(&elsewhere)?;

        // A lease that runs keeps the only retrieval, so the next get waits for it.
        let twice = sender.put(b"again", &plain.clone().retrievals(Retrievals::Limited(2)))?;
        for _ in 0..2 {
            ensure!(receiver.get(&twice)?[..] == b"again"[..], "other bytes");
        }
        let brief = sender.put(b"brief", &plain.clone().ttl(Duration::from_millis(1)))?;
        // Got in time or not, it is not there for long.
        let code = loop {
            if let Err(error) = receiver.get(&brief) {
                break error.code();
            }
        };
        ensure!(
            matches!(code, ErrorCode::ReferenceExpired | ErrorCode::RetrievalsExhausted),
            "a payload of a brief life ended as {code}"
        );
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_async_client_does_the_same() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = clients(&pair);
    let (sender, receiver) =
        (zipline_sdk::Client::connect(sender).await?, zipline_sdk::Client::connect(receiver).await?);
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..40 {
        let (sender, receiver) = (sender.clone(), receiver.clone());
        tasks.spawn(async move {
            let length = if seed % 4 == 0 { 400_000 } else { 3_000 };
            let bytes = pattern::bytes(seed, 0, length);
            let options = PutOptions::new().pre_issued(seed % 2 == 0);
            let copied = sender.put(&bytes, &options).await?;
            let mut buffer = sender.create(length).await?;
            buffer.copy_from_slice(&bytes);
            let in_place = sender.put_buffer(buffer, &options).await?;
            // Given up half-way, it spends nothing, or the payload as a whole.
            drop(tokio::time::timeout(Duration::ZERO, receiver.get(&copied)).await);
            match receiver.get(&copied).await {
                Ok(payload) => ensure!(payload[..] == bytes[..], "{seed}: other bytes"),
                Err(error) => ensure!(error.code() == ErrorCode::RetrievalsExhausted, "{error:?}"),
            }
            ensure!(receiver.get(&in_place).await?[..] == bytes[..], "{seed}: other bytes in place");
            refused(receiver.get(&in_place).await, ErrorCode::RetrievalsExhausted)?;
            let released = sender.put(&bytes, &options).await?;
            sender.settle().await?;
            sender.release(&released).await?;
            refused(receiver.get(&released).await, ErrorCode::PayloadLost)?;
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    drop((sender, receiver));
    pair.hold_nothing().await
}

/// A client of which nothing works but its frames.
struct Raw(std::os::unix::net::UnixStream);

impl Raw {
    fn open(socket: &std::path::Path, token: &str) -> Result<Self> {
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut bytes = sdk::PREFACE.to_vec();
        sdk::Request::Hello { version: sdk::VERSION, token: token.as_bytes() }.write(&mut bytes);
        stream.write_all(&bytes)?;
        let mut raw = Self(stream);
        ensure!(raw.hear()? == 64, "no welcome");
        Ok(raw)
    }

    fn say(&mut self, request: &sdk::Request<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        Ok(self.0.write_all(&bytes)?)
    }

    /// The type of the next frame.
    fn hear(&mut self) -> Result<u8> {
        let mut head = [0; sdk::HEAD_BYTES];
        self.0.read_exact(&mut head)?;
        let head = sdk::FrameHead::read(&head)?.context("a head")?;
        self.0.read_exact(&mut vec![0; head.body_bytes])?;
        Ok(head.kind)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_killed_leaves_nothing_behind() -> Result<()> {
    let pair = Pair::start().await?;
    let reference = crate::deferred::put(&pair, "?retrievals=2", 3, 1_000_000).await?;
    let socket = pair.receiver.socket.clone();
    let token = pair.receiver.token.clone();
    let named = reference.clone();
    blocking(move || {
        for _ in 0..3 {
            let mut raw = Raw::open(&socket, &token)?;
            raw.say(&sdk::Request::Grant { request: 1, bytes: 5_000_000, wait: Duration::from_secs(5) })?;
            ensure!(raw.hear()? == 65, "no segment");
            let references = vec![named.as_str()];
            let get = sdk::Get { mapped: true, timeout: Duration::from_secs(5), references };
            raw.say(&sdk::Request::Get { request: 2, get })?;
            raw.hear()?;
            // In the middle of a frame.
            raw.0.write_all(&[0, 0, 1])?;
        }
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_frame_ends_its_connection_and_no_other() -> Result<()> {
    let pair = Pair::start().await?;
    let socket = pair.sender.socket.clone();
    let (side, token) = (options(&pair.sender), pair.sender.token.clone());
    blocking(move || {
        let client = Client::connect(side)?;
        let garbage: [&[u8]; 5] = [
            &[0xff, 0xff, 0xff, 0xff, 1],
            &[0, 0, 0, 0, 99],
            &[0, 0, 0, 1, 12, 0],
            // Done with what was never given.
            &[0, 0, 0, 10, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5],
            // A get of nothing.
            &[0, 0, 0, 11, 8, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0],
        ];
        for bytes in garbage {
            let mut raw = Raw::open(&socket, &token)?;
            raw.0.write_all(bytes)?;
            ensure!(raw.hear().is_err(), "{bytes:?} did not end the connection");
        }
        let mut raw = Raw::open(&socket, &token)?;
        let place = sdk::Place { segment: 7, offset: 0, len: 1 };
        let put = sdk::Put::Issued(zipline_protocol::PayloadId::from_bytes([1; 16]));
        raw.say(&sdk::Request::Put { request: 3, put, bytes: sdk::PutBytes::Segment(place) })?;
        ensure!(raw.hear()? == 72, "a put of an id that was not issued is refused by name");
        ensure!(client.get(&client.put("still", &PutOptions::new())?)?[..] == b"still"[..], "other bytes");
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

/// What a connection says next is not read while it waits for all that may be outstanding: here, what would end the wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settles_that_wait_are_outstanding_requests() -> Result<()> {
    let pair = Pair::start_with(|config| config.sender.budget_bytes = 8 << 20).await?;
    let (socket, token) = (pair.sender.socket.clone(), pair.sender.token.clone());
    let side = options(&pair.sender);
    blocking(move || {
        let client = Client::connect(side)?;
        let (bytes, mut held) = (vec![1; 60_000], Vec::new());
        // With the put that waits for memory as many as are allowed, or one less.
        for (settles, put) in [(sdk::OUTSTANDING_MAX - 1, 72), (sdk::OUTSTANDING_MAX - 2, 66)] {
            loop {
                match client.put(&bytes, &PutOptions::new().wait(Duration::from_millis(1))) {
                    Ok(reference) => held.push(reference),
                    Err(error) if error.code() == ErrorCode::BufferFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let mut raw = Raw::open(&socket, &token)?;
            let terms = sdk::Terms {
                retrievals: zipline_protocol::Retrievals::Limited(1),
                ttl: Duration::from_secs(60),
                linger: Duration::ZERO,
                wait: Duration::from_millis(if put == 72 { 300 } else { 60_000 }),
                content_type: None,
            };
            let answered = sdk::Put::Answered(terms);
            raw.say(&sdk::Request::Put { request: 1, put: answered, bytes: sdk::PutBytes::Inline(&bytes) })?;
            for request in (2..).take(settles) {
                raw.say(&sdk::Request::Settle { request })?;
            }
            let freed = held.pop().context("something is held")?;
            raw.say(&sdk::Request::Release { request: 9_999, reference: freed.as_str() })?;
            let mut heard = Vec::new();
            for _ in 0..settles + 2 {
                heard.push(raw.hear()?);
            }
            ensure!(heard.contains(&put), "{settles} settles: the put was not answered with {put}");
            ensure!(heard.iter().filter(|kind| **kind == 71).count() == settles + 1, "one is not answered");
        }
        for reference in held {
            client.release(&reference)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_ahead_and_failed_is_told_and_nothing_is_got_ahead_of_its_turn() -> Result<()> {
    let pair = Pair::start_with(|config| config.sender.budget_bytes = 8 << 20).await?;
    let (sender, receiver) = clients(&pair);
    blocking(move || {
        let (sender, receiver) = (Client::connect(sender)?, Client::connect(receiver)?);
        let references = (0..5).map(|seed| sender.put(pattern::bytes(seed, 0, 100), &PutOptions::new()));
        let references = references.collect::<Result<Vec<_>, _>>()?;
        let mut several = receiver.get_many(&references).in_flight(1);
        let (first, got) = several.next().context("one")?;
        ensure!(first == 0 && got?[..] == pattern::bytes(0, 0, 100)[..], "{first} came first");
        drop(several);
        for reference in &references[1..] {
            receiver.get(reference).context("it was got although nobody took it")?;
        }
        // More than there is room for, and gone by itself.
        let brief = PutOptions::new().ttl(Duration::from_secs(1)).wait(Duration::from_millis(1));
        for _ in 0..200 {
            sender.put([1; 60_000], &brief.clone().pre_issued(true))?;
        }
        refused(sender.settle(), ErrorCode::BufferFull)?;
        sender.settle()?;
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}
