//! Large payloads wait for each other; nothing else does.

use crate::port::proof;
use crate::relay::{Fault, Relay};
use crate::rig::{MIB, Rig, drain, pattern, retrieve, until};
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use zipline_protocol::data::Operation;
use zipline_protocol::{ErrorCode, Record};
use zipline_seal::new_lease_id;
use zipline_transfer::{DataPortConfig, RetrieveErrorKind, RetrieveOptions};

/// More than sockets take of a reader that does not read.
const LARGE: usize = 32 * MIB;

/// One large send at a time, however slow its receiver is.
fn one_at_a_time(config: &mut DataPortConfig) {
    config.max_sends = 1;
    config.slow_after = Duration::from_secs(3600);
}

/// Asks for all of a payload from an address of this machine, and reads nothing of what comes.
async fn ask(rig: &Rig, record: &Record, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::from(from), 0).into()).unwrap();
    let mut stream = socket.connect(rig.address).await.unwrap();
    let proof = proof(rig, Operation::Retrieve, &record.payload, &new_lease_id(), 0, None);
    let request = format!("POST /v1/retrieve HTTP/1.1\r\nhost: h\r\nzipline-auth: {proof}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads the answer to its end.
async fn take(mut stream: TcpStream) {
    let mut end = Vec::new();
    let mut piece = vec![0; MIB];
    while !end.ends_with(b"\r\n\r\n") || !String::from_utf8_lossy(&end).contains("zipline-final") {
        let got = stream.read(&mut piece).await.unwrap();
        assert!(got > 0, "the answer ended early");
        end.extend_from_slice(&piece[..got]);
        end.drain(..end.len().saturating_sub(300));
    }
}

#[tokio::test]
async fn a_large_send_waits_for_another_and_a_small_one_does_not() {
    let rig = Rig::with(one_at_a_time);
    let large = rig.hold(&pattern(LARGE)).await;
    let small = rig.hold(&pattern(MIB - 1)).await;
    let first = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().large_sends == 1).await;
    let second = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().waiting_sends == 1).await;
    let retriever = rig.retriever();
    let arrived = retrieve(&retriever, &small, RetrieveOptions::default()).await.unwrap();
    assert_eq!(arrived.len(), MIB - 1);
    let mut range = retriever.start(&large, RetrieveOptions { from: 5, to: Some(10) }).await.unwrap();
    assert_eq!(drain(&mut range).await.0.len(), 5, "a small part of a large payload is small");
    assert_eq!(rig.monitor.stats().waiting_sends, 1);
    take(first).await;
    take(second).await;
    until(|| rig.monitor.stats().large_sends == 0).await;
}

#[tokio::test]
async fn a_payload_that_fills_goes_at_the_pace_of_its_sender() {
    let rig = Rig::with(one_at_a_time);
    let large = rig.hold(&pattern(LARGE)).await;
    let first = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().large_sends == 1).await;
    let spec = Rig::spec(Some(3 * MIB as u64));
    let record = rig.record(spec.id, spec.length);
    let (mut writer, _guard) = rig.store.begin(spec).await.unwrap();
    writer.write(pattern(2 * MIB)).await.unwrap();
    let mut filling = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    filling.ready().await.unwrap();
    assert_eq!(rig.monitor.stats().large_sends, 1);
    take(first).await;
}

#[tokio::test]
async fn peers_take_turns() {
    let rig = Rig::with(one_at_a_time);
    let large = rig.hold_n(&pattern(LARGE), zipline_protocol::Retrievals::Limited(9)).await;
    let first = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().large_sends == 1).await;
    let mut waiting = Vec::new();
    for (name, peer) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2), ("b2", 2)] {
        let before = rig.monitor.stats().waiting_sends;
        waiting.push((name, ask(&rig, &large, [127, 0, 0, peer]).await));
        until(|| rig.monitor.stats().waiting_sends == before + 1).await;
    }
    take(first).await;
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let readable = waiting.iter().map(|(_, stream)| Box::pin(stream.readable()));
        let (ready, at, rest) = futures_util::future::select_all(readable).await;
        ready.unwrap();
        drop(rest);
        let (name, stream) = waiting.remove(at);
        order.push(name);
        take(stream).await;
    }
    assert_eq!(order, ["a1", "b1", "a2", "b2", "a3"]);
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_lets_others_pass() {
    let rig = Rig::with(|config| {
        config.max_sends = 1;
        config.slow_after = Duration::from_millis(20);
    });
    let large = rig.hold(&pattern(LARGE)).await;
    let slow = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().sends == 1).await;
    take(ask(&rig, &large, [127, 0, 0, 1]).await).await;
    // It was only passed: what it was granted still comes.
    take(slow).await;
}

#[tokio::test]
async fn whoever_waits_too_long_is_told_to_ask_again() {
    let rig = Rig::with(|config| {
        one_at_a_time(config);
        config.send_wait = Duration::from_millis(20);
    });
    let large = rig.hold(&pattern(LARGE)).await;
    let first = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().large_sends == 1).await;
    let error = rig.retriever().start(&large, RetrieveOptions::default()).await.unwrap_err();
    let busy = RetrieveErrorKind::Refused { status: 429, code: ErrorCode::BufferFull };
    assert_eq!(error.kind(), &busy);
    assert_eq!(rig.monitor.stats().refused_sends, 3, "it was asked as often as connections may break");
    assert_eq!(rig.leases(), 1, "a lease is taken only when it can be sent");
    let mut once = large.clone();
    once.kind = zipline_protocol::ReferenceKind::Request;
    let error = rig.retriever().start(&once, RetrieveOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), rig.monitor.stats().refused_sends), (&busy, 4), "it can be sent inline");
    take(first).await;
    until(|| rig.monitor.stats().large_sends == 0).await;
    retrieve(&rig.retriever(), &large, RetrieveOptions::default()).await.unwrap();
}

#[tokio::test]
async fn the_queue_is_bounded_and_a_place_in_it_can_be_given_up() {
    let rig = Rig::with(|config| {
        one_at_a_time(config);
        config.max_waiting_sends = 1;
    });
    let large = rig.hold(&pattern(LARGE)).await;
    let first = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().large_sends == 1).await;
    let second = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().waiting_sends == 1).await;
    let mut third = ask(&rig, &large, [127, 0, 0, 1]).await;
    let mut answer = vec![0; 600];
    let got = third.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..got]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("zipline-error: buffer-full"), "{answer}");
    assert!(answer.contains("zipline-auth-reply: "), "{answer}");
    drop(second);
    until(|| rig.monitor.stats().waiting_sends == 0).await;
    let fourth = ask(&rig, &large, [127, 0, 0, 1]).await;
    until(|| rig.monitor.stats().waiting_sends == 1).await;
    take(first).await;
    take(fourth).await;
}

#[tokio::test]
async fn a_lease_that_runs_is_resumed_whoever_waits() {
    let rig = Rig::with(one_at_a_time);
    let large = rig.hold(&pattern(LARGE)).await;
    let relay = Relay::new(rig.address, vec![Fault::Cut(3 * MIB)], Fault::Pass).await;
    let through = Record { addresses: vec![relay.address], ..large.clone() };
    let mut broken = rig.retriever().start(&through, RetrieveOptions::default()).await.unwrap();
    broken.ready().await.unwrap();
    // It takes the place of the one that breaks, and keeps it.
    let other = ask(&rig, &large, [127, 0, 0, 1]).await;
    let (arrived, error) = drain(&mut broken).await;
    assert!(error.is_none(), "{error:?}");
    assert!(arrived == pattern(LARGE));
    take(other).await;
}
