use std::time::Duration;

use http::Request;
use tokio::time::Instant;
use zipline_protocol::{BootId, PayloadId, Record, ReferenceKind, Retrievals};
use zipline_seal::Keyring;

use super::*;
use crate::server::tests::{Proxy, TOKEN, bytes, install_keys, shared, text, until};

/// A request as the function sends it.
fn request(
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(uri).header("host", "127.0.0.1:1");
    if !headers.iter().any(|(name, _)| *name == "zipline-token") {
        builder = builder.header("zipline-token", TOKEN);
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Body::full(body)).unwrap()
}

async fn put(shared: &Arc<Shared>, query: &str, payload: impl Into<bytes::Bytes>) -> String {
    let response = serve(shared, request("POST", &format!("/v1/payloads{query}"), &[], payload)).await;
    assert_eq!(response.status(), 201, "{}", text(response).await);
    response.headers()["zipline-reference"].to_str().unwrap().to_owned()
}

async fn get(shared: &Arc<Shared>, reference: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let headers = [&[("zipline-reference", reference)], headers].concat();
    serve(shared, request("GET", "/v1/payload", &headers, "")).await
}

/// Status and code of an answer that must be a problem.
async fn refused(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let code = response.headers().get("zipline-error").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    let code = code.expect("every problem carries its code");
    assert_eq!(problem["type"], format!("urn:zipline:error:{code}"));
    assert_eq!(problem["status"], status);
    (status, code)
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn record(tenant: &str) -> Record {
    Record {
        kind: ReferenceKind::Put,
        payload: PayloadId::from_bytes([1; 16]),
        boot: BootId::from_bytes([2; 16]),
        addresses: vec!["127.0.0.1:9".parse().unwrap()],
        length: Some(5),
        expiry_unix_ms: None,
        retrievals: Retrievals::Limited(1),
        digest: None,
        binding: None,
        certificate: None,
        zone: String::new(),
        tenant: tenant.to_owned(),
        content_type: None,
    }
}

#[tokio::test]
async fn put_get_and_a_second_get() {
    let proxy = Proxy::start(&[]).await;
    let body = Body::full(vec![3; 1_000_000]);
    let put = Request::post("/v1/payloads?retrievals=1&ttl=2h").header("content-type", "text/x-test");
    let response = proxy.api(put.body(body).unwrap()).await;
    assert_eq!(response.status(), 201);
    let header = response.headers()["zipline-reference"].clone();
    let answer: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(answer["reference"], header.to_str().unwrap());
    assert_eq!((&answer["bounded_by"], &answer["ttl_seconds"]), (&"maximum".into(), &3600.0.into()));
    assert_eq!((&answer["length"], &answer["retrievals"]), (&1_000_000.into(), &1.into()));
    assert!(answer["expires_at"].as_u64().unwrap() > 1_600_000_000_000);

    let reference = header.to_str().unwrap();
    let response = proxy.get(reference).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/x-test");
    assert_eq!(response.headers()["content-length"], "1000000");
    assert_eq!(bytes(response).await, vec![3; 1_000_000]);
    assert_eq!(refused(proxy.get(reference).await).await, is(409, "retrievals-exhausted"));
    until(|| proxy.shared.store.totals().held_bytes == 0).await;
}

#[tokio::test]
async fn a_get_elsewhere_retrieves_from_the_holder_and_acknowledges() {
    let (holder, receiver) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    let payload: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let reference = holder.put("", payload.clone()).await;
    assert_eq!(bytes(receiver.get(&reference).await).await, payload);
    until(|| holder.shared.store.totals().payload_count == 0).await;
    assert_eq!(refused(receiver.get(&reference).await).await, is(409, "retrievals-exhausted"));
    let rows = receiver.shared.edges.rows();
    assert_eq!((rows.len(), rows[0].direction, rows[0].kind, rows[0].way), (1, "received", "put", "network"));
    assert_eq!(rows[0].bytes, 3_000_000);
    let rows = holder.shared.edges.rows();
    assert_eq!((rows.len(), rows[0].direction, rows[0].kind, rows[0].bytes), (1, "sent", "put", 3_000_000));
    until(|| receiver.shared.in_flight.used_bytes() == 0).await;
}

#[tokio::test]
async fn an_empty_payload_is_one() {
    let (holder, receiver) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    for proxy in [&holder, &receiver] {
        let reference = holder.put("", "").await;
        let response = proxy.get(&reference).await;
        assert_eq!(
            (response.status().as_u16(), response.headers()["content-length"].as_bytes()),
            (200, &b"0"[..])
        );
        assert_eq!(bytes(response).await.len(), 0);
    }
    until(|| holder.shared.store.totals().payload_count == 0).await;
}

#[tokio::test]
async fn ranges_spend_nothing() {
    let (holder, receiver) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    let payload: Vec<u8> = (0..=255).cycle().take(600_000).collect();
    let reference = holder.put("", payload.clone()).await;
    for (place, range, from, to) in [
        (&holder.shared, "bytes=100-199", 100, 200),
        (&receiver.shared, "bytes=300000-300009", 300_000, 300_010),
        (&receiver.shared, "bytes=-7", 599_993, 600_000),
        (&receiver.shared, "bytes=0-", 0, 600_000),
    ] {
        let response = get(place, &reference, &[("range", range)]).await;
        assert_eq!(response.status(), 206, "{range}");
        assert_eq!(response.headers()["content-range"], format!("bytes {from}-{}/600000", to - 1));
        assert_eq!(bytes(response).await, payload[from..to]);
    }
    let response = get(&receiver.shared, &reference, &[("range", "bytes=600000-")]).await;
    assert_eq!(response.headers()["content-range"], "bytes */600000");
    assert_eq!(refused(response).await, is(416, "range-invalid"));
    assert_eq!(bytes(get(&receiver.shared, &reference, &[]).await).await, payload);
}

#[tokio::test]
async fn a_client_that_goes_away_spends_nothing() {
    let (holder, receiver) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    let reference = holder.put("", vec![1; 2_000_000]).await;
    for place in [&holder.shared, &receiver.shared] {
        let mut response = get(place, &reference, &[]).await;
        response.body_mut().data().await.unwrap().unwrap();
        drop(response);
    }
    assert_eq!(bytes(get(&receiver.shared, &reference, &[]).await).await.len(), 2_000_000);
}

#[tokio::test]
async fn a_released_payload_is_gone() {
    let (holder, other) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    let reference = holder.put("?retrievals=unlimited", "12345").await;
    let release = || request("DELETE", "/v1/payload", &[("zipline-reference", &reference)], "");
    assert_eq!(refused(serve(&other.shared, release()).await).await, is(400, "request-invalid"));
    assert_eq!(serve(&holder.shared, release()).await.status(), 204);
    assert_eq!(refused(get(&holder.shared, &reference, &[]).await).await, is(424, "payload-lost"));
    assert_eq!(refused(get(&other.shared, &reference, &[]).await).await, is(424, "payload-lost"));
    assert_eq!(refused(serve(&holder.shared, release()).await).await, is(424, "payload-lost"));
}

#[tokio::test]
async fn references_that_are_none_of_ours() {
    let shared = shared(&[]).await;
    let good = put(&shared, "?retrievals=unlimited", "12345").await;
    let mut flipped = good.clone().into_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    let other = Keyring::new("other");
    install_keys(&other, "other");
    let foreign = other.seal_reference(&record("other")).unwrap();
    let kind = Record { kind: ReferenceKind::Request, ..record("default") };
    let wrong_kind = shared.keyring.seal_reference(&kind).unwrap();
    for (reference, expected) in [
        (&good[..good.len() - 4], is(400, "reference-invalid")),
        (&flipped, is(400, "reference-invalid")),
        ("zl1.", is(400, "reference-invalid")),
        ("nothing", is(400, "reference-invalid")),
        (&"z".repeat(2000), is(400, "reference-invalid")),
        (wrong_kind.as_str(), is(400, "reference-invalid")),
        (foreign.as_str(), is(403, "reference-forbidden")),
    ] {
        assert_eq!(refused(get(&shared, reference, &[]).await).await, expected, "{reference}");
    }
    let twice = get(&shared, &good, &[("zipline-reference", &good)]).await;
    assert_eq!(refused(twice).await, is(400, "request-invalid"));
    assert_eq!(get(&shared, &good, &[]).await.status(), 200);
}

#[tokio::test]
async fn a_dead_holder_is_a_lost_payload() {
    let (holder, receiver) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    let reference = holder.put("", "12345").await;
    holder.drain(Duration::ZERO).await;
    holder.ended().await;
    assert_eq!(refused(get(&receiver.shared, &reference, &[]).await).await, is(424, "payload-lost"));
}

#[tokio::test(start_paused = true)]
async fn a_put_expires() {
    let shared = shared(&[]).await;
    let reference = put(&shared, "?ttl=2s", "12345").await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(refused(get(&shared, &reference, &[]).await).await, is(410, "reference-expired"));
}

#[tokio::test(start_paused = true)]
async fn memory_is_waited_for_and_then_refused() {
    let shared = shared(&[("ZIPLINE_BUDGET_BYTES", "1MiB")]).await;
    let too_large = request("POST", "/v1/payloads", &[], vec![0; (1 << 20) + 1]);
    assert_eq!(refused(serve(&shared, too_large).await).await, is(413, "payload-too-large"));
    put(&shared, "", vec![0; 1 << 20]).await;
    let started = Instant::now();
    let one_more = request("POST", "/v1/payloads?wait=3s", &[], "1");
    assert_eq!(refused(serve(&shared, one_more).await).await, is(507, "buffer-full"));
    assert_eq!(started.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_is_given_up_and_its_memory_comes_free() {
    let shared = shared(&[]).await;
    let (sender, body) = Body::channel(1);
    sender.send("some".into()).await.unwrap();
    let stalled = request("POST", "/v1/payloads", &[], "").map(|_| body);
    assert_eq!(refused(serve(&shared, stalled).await).await, is(504, "deadline-exceeded"));
    assert_eq!(shared.store.totals().payload_count, 0);
    drop(sender);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let proxy = Proxy::start(&[]).await;
    let mut stream = tokio::net::TcpStream::connect(proxy.addresses.api).await.unwrap();
    let head = format!(
        "POST /v1/payloads HTTP/1.1\r\nHost: localhost\r\nZipline-Token: {TOKEN}\r\nContent-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[1; 1000]).await.unwrap();
    until(|| proxy.shared.store.totals().payload_count == 1).await;
    drop(stream);
    until(|| proxy.shared.store.totals().held_bytes == 0).await;
}

#[tokio::test]
async fn expect_is_answered_once_there_is_memory() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let proxy = Proxy::start(&[("ZIPLINE_BUDGET_BYTES", "1MiB")]).await;
    let filling = proxy.put("", vec![0; 1 << 20]).await;
    let mut stream = tokio::net::TcpStream::connect(proxy.addresses.api).await.unwrap();
    let head = format!(
        "POST /v1/payloads?wait=60s HTTP/1.1\r\nHost: localhost\r\nZipline-Token: {TOKEN}\r\n\
         Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    until(|| proxy.shared.store.totals().waiters == 1).await;
    let mut answer = [0; 25];
    assert!(stream.try_read(&mut answer).is_err(), "nothing may come before there is memory");
    assert_eq!(bytes(proxy.get(&filling).await).await.len(), 1 << 20);
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"123").await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 201");
}

#[tokio::test]
async fn only_the_function_itself_gets_in() {
    let shared = shared(&[]).await;
    let wrong = request("GET", "/openapi.yaml", &[("zipline-token", "0123456789abcdefTOKEM")], "");
    assert_eq!(refused(serve(&shared, wrong).await).await, is(401, "token-missing"));
    let mut none = request("GET", "/v1/payload", &[], "");
    none.headers_mut().remove("zipline-token");
    assert_eq!(refused(serve(&shared, none).await).await, is(401, "token-missing"));
    for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", "localhost.evil", ""] {
        let mut rebound = request("GET", "/openapi.yaml", &[], "");
        rebound.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(refused(serve(&shared, rebound).await).await, is(400, "request-invalid"), "{host}");
    }
    for host in ["localhost", "LOCALHOST:1", "[::1]:5", "127.9.9.9"] {
        let mut own = request("GET", "/openapi.yaml", &[], "");
        own.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(serve(&shared, own).await.status(), 200, "{host}");
    }
}

#[tokio::test]
async fn wrong_paths_and_methods() {
    let shared = shared(&[]).await;
    for (method, path, expected) in [
        ("GET", "/v1/payloads", is(400, "request-invalid")),
        ("PUT", "/v1/payload", is(400, "request-invalid")),
        ("POST", "/openapi.yaml", is(400, "request-invalid")),
        ("GET", "/v1/", is(404, "not-found")),
        ("GET", "/", is(404, "not-found")),
        ("POST", "/v1/invoke/", is(400, "request-invalid")),
        ("POST", "/v1/invoke/noname/x", is(400, "request-invalid")),
        ("POST", "/v1/invoke/A.b/x", is(400, "request-invalid")),
        ("POST", "/v1/payloads?ttl=-1s", is(400, "request-invalid")),
        ("GET", "/v1/payload", is(400, "request-invalid")),
    ] {
        assert_eq!(
            refused(serve(&shared, request(method, path, &[], "")).await).await,
            expected,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn without_a_key_nothing_can_be_put() {
    let shared = shared(&[]).await;
    shared.keyring.install(zipline_seal::KeyringUpdate::default()).unwrap();
    let refusal = refused(serve(&shared, request("POST", "/v1/payloads", &[], "1")).await).await;
    assert_eq!(refusal, is(502, "upstream-failed"));
}

#[tokio::test(start_paused = true)]
async fn after_the_grace_nothing_is_taken() {
    let shared = shared(&[]).await;
    let reference = put(&shared, "?retrievals=2&ttl=60s", "12345").await;
    shared.store.drain(Duration::ZERO);
    assert_eq!(
        refused(serve(&shared, request("POST", "/v1/payloads", &[], "1")).await).await,
        is(503, "draining")
    );
    assert_eq!(refused(get(&shared, &reference, &[]).await).await, is(503, "draining"));
}
