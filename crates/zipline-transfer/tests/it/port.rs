//! The data port as seen by those who speak to it by hand.

use crate::rig::{MIB, Rig, pattern, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zipline_protocol::data::{DataRequest, Operation};
use zipline_protocol::{KeyId, LeaseId, PayloadId};
use zipline_seal::{new_lease_id, new_nonce, new_payload_id};

pub(crate) fn proof(
    rig: &Rig,
    operation: Operation,
    payload: &PayloadId,
    lease: &LeaseId,
    from: u64,
    to: Option<u64>,
) -> String {
    let mut request = DataRequest {
        key: KeyId::from_bytes([0; 8]),
        nonce: new_nonce(),
        boot: rig.boot,
        payload: *payload,
        lease: *lease,
        from,
        to,
    };
    rig.keyring.sign_request(operation, &mut request).unwrap().header().to_owned()
}

/// The whole answer to a well-proven request.
pub(crate) async fn ask(
    rig: &Rig,
    operation: &str,
    payload: &PayloadId,
    lease: &LeaseId,
    from: u64,
    to: Option<u64>,
) -> String {
    let named = Operation::ALL.into_iter().find(|known| known.as_str() == operation).unwrap();
    let proof = proof(rig, named, payload, lease, from, to);
    raw(rig, &format!("POST /v1/{operation}"), &format!("te: trailers\r\nzipline-auth: {proof}\r\n")).await
}

async fn raw(rig: &Rig, start: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let request = format!("{start} HTTP/1.1\r\nhost: holder\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn unproven_requests_learn_nothing() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(10)).await;
    let good = proof(&rig, Operation::Retrieve, &record.payload, &new_lease_id(), 0, None);
    let other = proof(&rig, Operation::Retrieve, &new_payload_id(), &new_lease_id(), 0, None);
    let moved = good.replace(&record.payload.to_text(), &new_payload_id().to_text());
    let auth = |value: &str| format!("te: trailers\r\nzipline-auth: {value}\r\n");
    for (start, headers, status, code) in [
        ("POST /v1/retrieve", String::new(), 403, "reference-forbidden"),
        ("POST /v1/retrieve", auth("v=1"), 400, "reference-invalid"),
        ("POST /v1/retrieve", auth(&moved), 403, "reference-forbidden"),
        ("POST /v1/retrieve", auth(&good) + &auth(&other), 400, "reference-invalid"),
        ("POST /v1/acknowledge", auth(&good), 403, "reference-forbidden"),
        ("GET /v1/retrieve", auth(&good), 405, "request-invalid"),
        ("POST /v1/retrieve", auth(&good) + "content-length: 5\r\n", 400, "request-invalid"),
        ("POST /v2/retrieve", auth(&good), 404, "not-found"),
    ] {
        let answer = raw(&rig, start, &headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{start} {headers}: {answer}");
        assert!(answer.contains(&format!("zipline-error: {code}")), "{answer}");
        assert!(!answer.contains("zipline-auth-reply"), "unproven requests get no proof: {answer}");
    }
    assert_eq!(rig.monitor.stats().unproven_requests, 8);
    assert_eq!(rig.leases(), 0);
}

#[tokio::test]
async fn every_refusal_is_proven_and_has_its_status() {
    let rig = Rig::new();
    let record = rig.hold_n(&pattern(10), zipline_protocol::Retrievals::Limited(1)).await;
    let (payload, lease) = (&record.payload, new_lease_id());
    let nobody = new_payload_id();
    for (operation, payload, from, to, status, code) in [
        ("retrieve", &nobody, 0, None, 404, "payload-lost"),
        ("retrieve", payload, 11, None, 416, "range-invalid"),
        ("retrieve", payload, 5, Some(4), 416, "range-invalid"),
        ("acknowledge", &nobody, 0, None, 404, "payload-lost"),
    ] {
        let answer = ask(&rig, operation, payload, &lease, from, to).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{operation} {from}: {answer}");
        assert!(answer.contains(&format!("zipline-error: {code}")), "{answer}");
        assert!(answer.contains("zipline-auth-reply: "), "{answer}");
        assert!(answer.contains(&format!("urn:zipline:error:{code}")), "{answer}");
    }
    let granted = ask(&rig, "retrieve", payload, &lease, 0, None).await;
    assert!(
        granted.contains("zipline-length: 10") && granted.contains("\r\nzipline-final: length=10, sha256=")
    );
    let cancelled = ask(&rig, "cancel", payload, &lease, 0, None).await;
    assert!(cancelled.starts_with("HTTP/1.1 204"), "{cancelled}");
    let again = ask(&rig, "retrieve", payload, &lease, 0, None).await;
    assert!(again.starts_with("HTTP/1.1 200"), "{again}");
    assert!(ask(&rig, "acknowledge", payload, &lease, 0, None).await.starts_with("HTTP/1.1 204"));
    let spent = ask(&rig, "retrieve", payload, &new_lease_id(), 0, None).await;
    assert!(spent.starts_with("HTTP/1.1 409") && spent.contains("retrievals-exhausted"), "{spent}");
}

#[tokio::test]
async fn parts_are_sent_for_leases_that_run_and_for_no_others() {
    let rig = Rig::new();
    let record = rig.hold_n(&pattern(100), zipline_protocol::Retrievals::Limited(1)).await;
    let (payload, lease) = (&record.payload, new_lease_id());
    let early = ask(&rig, "part", payload, &lease, 50, Some(60)).await;
    assert!(early.starts_with("HTTP/1.1 404") && early.contains("zipline-auth-reply: "), "{early}");
    assert!(ask(&rig, "retrieve", payload, &lease, 0, Some(50)).await.starts_with("HTTP/1.1 200"));
    let part = ask(&rig, "part", payload, &lease, 50, Some(60)).await;
    assert!(part.starts_with("HTTP/1.1 200") && part.contains("\r\n\r\na\r\n"), "one chunk of ten: {part}");
    assert!(part.contains("zipline-final: length=100"), "{part}");
    let other = ask(&rig, "part", payload, &new_lease_id(), 50, Some(60)).await;
    assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    let beyond = ask(&rig, "part", payload, &lease, 101, None).await;
    assert!(beyond.starts_with("HTTP/1.1 416"), "{beyond}");
    assert!(ask(&rig, "acknowledge", payload, &lease, 0, None).await.starts_with("HTTP/1.1 204"));
    until(|| rig.store.info(payload).is_none()).await;
    let late = ask(&rig, "part", payload, &lease, 50, Some(60)).await;
    assert!(late.starts_with("HTTP/1.1 404"), "{late}");
}

#[tokio::test]
async fn connections_of_one_address_are_bounded() {
    let rig = Rig::with(|config| config.connections_per_peer = 2);
    let mut kept = Vec::new();
    for open in 1..=2 {
        kept.push(TcpStream::connect(rig.address).await.unwrap());
        until(|| rig.monitor.stats().open_connections == open).await;
    }
    let mut refused = TcpStream::connect(rig.address).await.unwrap();
    let mut nothing = [0; 1];
    assert_eq!(refused.read(&mut nothing).await.unwrap_or(0), 0, "closed at once");
    assert_eq!(rig.monitor.stats().refused_connections, 1);
    drop(kept.pop());
    until(|| rig.monitor.stats().open_connections == 1).await;
    drop(TcpStream::connect(rig.address).await.unwrap());
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_closed() {
    let rig = Rig::with(|config| config.lease_lapse = std::time::Duration::from_millis(200));
    let record = rig.hold(&pattern(32 << 20)).await;
    let proof = proof(&rig, Operation::Retrieve, &record.payload, &new_lease_id(), 0, None);
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let request =
        format!("POST /v1/retrieve HTTP/1.1\r\nhost: h\r\nte: trailers\r\nzipline-auth: {proof}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    until(|| rig.monitor.stats().stuck_connections == 1).await;
    until(|| rig.monitor.stats().open_connections == 0).await;
    assert!(rig.monitor.stats().sent_bytes < 32 << 20);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let rig = Rig::with(|config| config.idle_timeout = std::time::Duration::from_millis(100));
    let mut idle = TcpStream::connect(rig.address).await.unwrap();
    idle.write_all(b"POST /v1/retr").await.unwrap();
    let mut nothing = Vec::new();
    drop(idle.read_to_end(&mut nothing).await);
    until(|| rig.monitor.stats().open_connections == 0).await;
    assert_eq!(rig.monitor.stats().stuck_connections, 0);
}

#[tokio::test]
async fn bytes_that_wait_in_a_socket_are_those_of_their_payload() {
    let rig = Rig::new();
    rig.store.keep_warm(64 << 20);
    let bytes = pattern(16 * MIB);
    let record = rig.hold(&bytes).await;
    let proof = proof(&rig, Operation::Retrieve, &record.payload, &new_lease_id(), 0, None);
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream
        .write_all(
            format!("POST /v1/retrieve HTTP/1.1\r\nhost: h\r\nzipline-auth: {proof}\r\n\r\n").as_bytes(),
        )
        .await
        .unwrap();
    let mut answer = vec![0; 100_000];
    stream.read_exact(&mut answer).await.unwrap();
    rig.store.release(&record.payload).unwrap();
    until(|| rig.store.totals().held_bytes == 0).await;
    let other = bytes::Bytes::from(vec![0xEE; 16 * MIB]);
    for _ in 0..3 {
        let record = rig.hold(&other).await;
        rig.store.release(&record.payload).unwrap();
    }
    let kept = rig.hold(&other).await;
    // The connection breaks off, so how the reading ends says nothing.
    drop(stream.read_to_end(&mut answer).await);
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let size = answer[head..].windows(2).position(|end| end == b"\r\n").unwrap() + 2;
    let arrived = &answer[head + size..];
    assert!(arrived.len() > 200_000, "{} bytes waited in the socket", arrived.len());
    assert!(arrived.len() < bytes.len() && *arrived == bytes[..arrived.len()], "other bytes arrived");
    rig.store.release(&kept.payload).unwrap();
}
