//! Invokes of the Rust SDK, and everything it does over the HTTP API, with real queue-proxies.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tower_service::Service;
use zipline_sdk::{BoundedBy, ErrorCode, Options, PutOptions, Reference, Source, Transport, blocking};
use zipline_testkit::pattern;
use zipline_testkit::queue_proxy::QueueProxy;
use zipline_tests::pair::{Pair, RECEIVER};

use crate::sdk::{blocking as beside, clients, refused};

/// Below and above what travels by reference, and more than any socket takes at once.
const LENGTHS: [usize; 4] = [0, 1_000, 300_000, 20_000_000];

pub(crate) fn by_address(side: &QueueProxy) -> Result<Options> {
    Ok(Options::new().api(&format!("http://{}", side.api()))?.token(&side.token))
}

fn post(path: &str, body: impl Into<Bytes>) -> Result<Request<Bytes>> {
    Ok(Request::post(path).header("content-type", "application/x-test").body(body.into())?)
}

/// A response of `/echo` has what was sent.
fn echoed(response: &Response<Bytes>, body: &[u8]) -> Result<()> {
    ensure!(response.status() == StatusCode::OK, "{response:?}");
    ensure!(response.headers()["content-type"] == "application/x-test", "{:?}", response.headers());
    ensure!(response.body()[..] == *body, "{} bytes came back as others", body.len());
    Ok(())
}

/// Both directions go on at the same time: `/echo` answers while it reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_size_go_there_and_back() -> Result<()> {
    let pair = Pair::start().await?;
    for options in [clients(&pair).0, by_address(&pair.sender)?] {
        let threaded = options.clone();
        beside(move || {
            let client = blocking::Client::connect(threaded)?;
            for (seed, length) in (1..).zip(LENGTHS) {
                let body = pattern::bytes(seed, 0, length);
                echoed(&client.invoke(RECEIVER, post("/echo", body.clone())?)?, &body)?;
            }
            Ok(())
        })
        .await?;
        let client = zipline_sdk::Client::connect(options).await?;
        for (seed, length) in (1..).zip(LENGTHS) {
            let body = pattern::bytes(seed, 0, length);
            echoed(&client.invoke(RECEIVER, post("/echo", body.clone())?).await?, &body)?;
        }
    }
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_arrives_as_it_is_and_so_does_its_response() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    let client = zipline_sdk::Client::connect(sender.namespace("default")).await?;
    // The namespace is that of the options, and the rest of the URI is nobody's.
    let request = Request::get("http://elsewhere.example/headers?a=1&b=%20").header("x-mine", "1");
    let request = request.header("connection", "close").header("host", "evil.example").body(())?;
    let response = client.invoke("receiver", request).await?;
    let seen: serde_json::Value = serde_json::from_slice(response.body())?;
    let text = seen.to_string();
    ensure!(text.contains("x-mine") && !text.contains("zipline-token") && !text.contains("evil"), "{text}");
    ensure!(response.headers().keys().all(|name| !name.as_str().starts_with("zipline-")), "{response:?}");

    let teapot = client.invoke(RECEIVER, post("/status?code=418", "x")?).await?;
    ensure!(teapot.status() == StatusCode::IM_A_TEAPOT, "a function's status is its own affair: {teapot:?}");
    let head = Request::builder().method(Method::HEAD).uri("/size?bytes=5000").body(())?;
    ensure!(client.invoke(RECEIVER, head).await?.body().is_empty(), "HEAD has no body");
    let sized = client.invoke(RECEIVER, Request::get("/size?bytes=5000&seed=3&chunked=1").body(())?).await?;
    ensure!(sized.body()[..] == pattern::bytes(3, 0, 5_000)[..], "other bytes");
    // The rest of a body that nobody wants is not sent.
    let early = client.invoke(RECEIVER, post("/early", vec![1; 5_000_000])?).await?;
    ensure!(early.status().is_success(), "{early:?}");
    // A connection serves one request after the other, and none that broke.
    for _ in 0..3 {
        let short = client.invoke(RECEIVER, Request::get("/short?bytes=5000").body(())?).await;
        refused(short, ErrorCode::UpstreamFailed)?;
    }
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_was_put_is_a_body() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    let options = sender.clone();
    let typed = PutOptions::new().content_type("application/x-test");
    let (once, bytes) = (typed.clone(), pattern::bytes(1, 0, 500_000));
    let expected = bytes.clone();
    beside(move || {
        let client = blocking::Client::connect(options)?;
        let reference = client.put(&expected, &once)?;
        echoed(&client.invoke(RECEIVER, Request::post("/echo").body(&reference)?)?, &expected)?;
        let again = client.invoke(RECEIVER, Request::post("/echo").body(&reference)?);
        let error = refused(again, ErrorCode::RetrievalsExhausted)?;
        ensure!(error.call_site().is_some_and(|site| site.file().ends_with("sdk_invoke.rs")), "{error:?}");
        Ok(())
    })
    .await?;
    let client = zipline_sdk::Client::connect(sender).await?;
    let reference = client.put(&bytes, &typed).await?;
    let both = post("/echo", "a body of its own")?.map(zipline_sdk::Body::from);
    let (mut parts, body) = both.into_parts();
    parts.headers.insert("zipline-body", reference.as_str().parse()?);
    let both = client.invoke(RECEIVER, Request::from_parts(parts, body)).await;
    refused(both, ErrorCode::RequestInvalid)?;
    let request = Request::post("/echo").header("content-type", "text/x-other").body(reference)?;
    let response = client.invoke(RECEIVER, request).await?;
    ensure!(response.headers()["content-type"] == "text/x-other" && response.body()[..] == bytes[..]);
    drop(client);
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_has_its_code_and_names_the_invoke() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    let client = zipline_sdk::Client::connect(sender.clone().response_max(10_000)).await?;
    let get = |path: &str| Request::get(path).body(());
    for name in ["", "a b", "a.b.c", ".ns"] {
        refused(client.invoke(name, get("/")?).await, ErrorCode::RequestInvalid)?;
    }
    for path in ["/size?bytes=10001", "/size?bytes=10001&chunked=1"] {
        let error = refused(client.invoke(RECEIVER, get(path)?).await, ErrorCode::PayloadTooLarge)?;
        ensure!(error.message().contains("10000") && error.message().contains("response_max"), "{error}");
    }
    ensure!(client.invoke(RECEIVER, get("/size?bytes=10000")?).await?.body().len() == 10_000);
    let brief = client.with_timeout(Duration::from_millis(50));
    let late = refused(brief.invoke(RECEIVER, get("/hold?gate=never")?).await, ErrorCode::DeadlineExceeded)?;
    ensure!(late.message().contains("the invoke of receiver.default"), "{late}");
    let elsewhere = zipline_sdk::Client::connect(sender.clone().namespace("elsewhere")).await?;
    let missed = elsewhere.invoke("receiver", get("/")?).await;
    ensure!(!missed.is_ok_and(|response| response.status().is_success()), "another namespace's function");
    let local = zipline_sdk::Client::local();
    refused(local.invoke(RECEIVER, get("/")?).await, ErrorCode::NotFound)?;

    let options = sender.clone();
    let address = by_address(&pair.sender)?;
    beside(move || {
        let client = blocking::Client::connect(options)?.with_timeout(Duration::from_millis(50));
        let held = client.invoke(RECEIVER, Request::get("/hold?gate=never").body(())?);
        refused(held, ErrorCode::DeadlineExceeded)?;
        refused(client.invoke("a b", Request::get("/").body(())?), ErrorCode::RequestInvalid)?;
        refused(blocking::Client::connect(address.clone().token("wrong")), ErrorCode::TokenMissing)?;
        refused(blocking::Client::connect(Options::new()), ErrorCode::RequestInvalid)?;
        let nowhere = Options::new().api("http://127.0.0.1:1")?.token("t");
        refused(blocking::Client::connect(nowhere), ErrorCode::UpstreamFailed)?;
        Ok(())
    })
    .await?;
    pair.hold_nothing().await
}

/// Requests for [`map`](blocking::Client::map), counted as they are taken.
fn counted(taken: &Cell<usize>) -> impl Iterator<Item = Request<Bytes>> {
    (0..30_usize).map(|index| {
        taken.set(taken.get() + 1);
        let length = [300_000, 10][index % 2];
        post("/echo", pattern::bytes(index as u64, 0, length)).expect("a request")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_is_mapped_over_requests_in_their_order() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    let options = sender.clone();
    beside(move || {
        let (client, taken) = (blocking::Client::connect(options)?, Cell::new(0));
        let mut responses = client.map(RECEIVER, counted(&taken)).concurrency(4);
        for index in 0..30_usize {
            let response = responses.next().context("too few")??;
            echoed(&response, &pattern::bytes(index as u64, 0, [300_000, 10][index % 2]))?;
            ensure!(taken.get() <= index + 4, "{} were taken for {index}", taken.get());
        }
        ensure!(responses.next().is_none(), "too many");
        let mut wrong = client.map("a b", [Request::new("")]);
        refused(wrong.next().context("an error")?, ErrorCode::RequestInvalid)?;
        ensure!(wrong.next().is_none(), "it is said once");
        Ok(())
    })
    .await?;
    let (client, taken) = (zipline_sdk::Client::connect(sender).await?, Cell::new(0));
    let mut responses = client.map(RECEIVER, counted(&taken)).concurrency(4);
    for index in 0..30_usize {
        let response = responses.next().await.context("too few")??;
        echoed(&response, &pattern::bytes(index as u64, 0, [300_000, 10][index % 2]))?;
        ensure!(taken.get() <= index + 4, "{} were taken for {index}", taken.get());
    }
    ensure!(responses.next().await.is_none(), "too many");
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_of_several_invokes_are_waited_for() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    let (options, long) = (sender.clone(), Duration::from_secs(60));
    let hold = |gate: u32| Request::get(format!("/hold?gate=g{gate}")).body(());
    let open = |gate: u32| Request::get(format!("/open?gate=g{gate}")).body(());
    beside(move || {
        let client = blocking::Client::connect(options)?;
        let mut all =
            (0..3).map(|gate| Ok(client.submit(RECEIVER, hold(gate)?)?)).collect::<Result<Vec<_>>>()?;
        ensure!(client.wait_for(&mut all, 1, Duration::from_millis(20))? == 0, "none is open");
        client.invoke(RECEIVER, open(1)?)?;
        ensure!(client.wait_for(&mut all, 1, long)? == 1 && all[1].is_done() && !all[0].is_done());
        client.invoke(RECEIVER, open(0)?)?;
        client.invoke(RECEIVER, open(2)?)?;
        ensure!(client.wait_for(&mut all, 99, long)? == 3, "all are done");
        ensure!(client.wait_for(&mut all, 1, long)? == 3, "all that are done are counted");
        for one in all {
            ensure!(one.response()?.status().is_success());
        }
        Ok(())
    })
    .await?;
    let client = zipline_sdk::Client::connect(sender).await?;
    let mut all = (3..6).map(|gate| Ok(client.submit(RECEIVER, hold(gate)?))).collect::<Result<Vec<_>>>()?;
    ensure!(client.wait_for(&mut all, 1, Duration::from_millis(20)).await == 0, "none is open");
    client.invoke(RECEIVER, open(4)?).await?;
    ensure!(client.wait_for(&mut all, 1, long).await == 1 && all[1].is_done() && !all[0].is_done());
    // One that is dropped is given up, whatever it waits for.
    drop(all.pop());
    client.invoke(RECEIVER, open(3)?).await?;
    ensure!(client.wait_for(&mut all, 2, long).await == 2, "all are done");
    ensure!(client.wait_for(&mut all, 1, long).await == 2, "all that are done are counted");
    for one in all {
        ensure!(one.await?.status().is_success());
    }
    client.invoke(RECEIVER, open(5)?).await?;
    pair.hold_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_is_a_tower_service() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    let client = zipline_sdk::Client::connect(sender).await?;
    let mut function = client.function(RECEIVER)?;
    std::future::poll_fn(|cx| Service::<Request<Bytes>>::poll_ready(&mut function, cx)).await?;
    echoed(&function.call(post("/echo", "hello")?).await?, b"hello")?;
    refused(client.function("a b"), ErrorCode::RequestInvalid)?;
    pair.hold_nothing().await
}

/// All that needs no shared memory, by the address alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_socket_payloads_go_over_http() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, receiver) = (by_address(&pair.sender)?, by_address(&pair.receiver)?);
    let gone = sender.clone().socket("/nonexistent/socket");
    let (one, two) = (sender.clone(), receiver.clone());
    beside(move || {
        let (sender, receiver) = (blocking::Client::connect(one)?, blocking::Client::connect(two)?);
        ensure!(sender.transport() == Transport::Http, "{:?}", sender.transport());
        ensure!(blocking::Client::connect(gone)?.transport() == Transport::Http);
        let options = PutOptions::new().content_type("application/x-test").ttl(Duration::from_secs(9));
        for (seed, length) in (1..).zip(LENGTHS) {
            let bytes = pattern::bytes(seed, 0, length);
            let mut buffer = sender.create(length)?;
            buffer.copy_from_slice(&bytes);
            for reference in [sender.put(&bytes, &options)?, sender.put_buffer(buffer, &options)?] {
                ensure!(reference.ttl() == Some(Duration::from_secs(9)), "{:?}", reference.ttl());
                ensure!(reference.bounded_by() == Some(BoundedBy::Requested));
                let payload = receiver.get(&reference)?;
                ensure!(payload[..] == bytes[..] && payload.source() == Source::Api, "{payload:?}");
                ensure!(payload.content_type() == Some("application/x-test"), "{payload:?}");
                let error = refused(receiver.get(&reference), ErrorCode::RetrievalsExhausted)?;
                ensure!(error.call_site().is_some(), "{error:?}");
            }
        }
        let plain = PutOptions::new();
        let references = (0..5).map(|seed| sender.put(pattern::bytes(seed, 0, 100), &plain));
        let references = references.collect::<Result<Vec<Reference>, _>>()?;
        sender.release(&references[3])?;
        sender.settle()?;
        for (index, got) in receiver.get_many(&references) {
            if index == 3 {
                refused(got, ErrorCode::PayloadLost)?;
            } else {
                ensure!(got?[..] == pattern::bytes(index as u64, 0, 100)[..], "other bytes");
            }
        }
        Ok(())
    })
    .await?;
    let sender = zipline_sdk::Client::connect(sender).await?;
    let receiver = zipline_sdk::Client::connect(receiver).await?;
    let bytes = pattern::bytes(7, 0, 3_000_000);
    let mut buffer = sender.create(bytes.len()).await?;
    buffer.copy_from_slice(&bytes);
    let reference = sender.put_buffer(buffer, &PutOptions::new()).await?;
    let mut got = receiver.get_many(std::slice::from_ref(&reference));
    ensure!(got.next().await.context("one")?.1?[..] == bytes[..] && got.next().await.is_none());
    let reference = sender.put("x", &PutOptions::new()).await?;
    sender.release(&reference).await?;
    refused(receiver.get(&reference).await, ErrorCode::PayloadLost)?;
    pair.hold_nothing().await
}

/// A queue-proxy that says nothing: both kinds of clients end by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_proxy_that_is_silent_is_not_waited_for_longer_than_was_said() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let at: SocketAddr = listener.local_addr()?;
    let options = Options::new().api(&format!("http://{at}"))?.token("t").timeout(Duration::from_millis(50));
    refused(zipline_sdk::Client::connect(options.clone()).await, ErrorCode::DeadlineExceeded)?;
    beside(move || {
        refused(blocking::Client::connect(options.clone()), ErrorCode::DeadlineExceeded)?;
        let error = refused(
            blocking::Client::connect(options.interrupted(|| true).timeout(Duration::from_secs(60))),
            ErrorCode::DeadlineExceeded,
        )?;
        ensure!(error.is_interrupted(), "{error:?}");
        Ok(())
    })
    .await?;
    drop(listener);
    Ok(())
}
