use crate::relay::{Fault, Relay};
use crate::rig::{MIB, Rig, keyring, pattern, retrieve};
use std::sync::Arc;
use zipline_protocol::{ErrorCode, Record, Retrievals};
use zipline_runtime::Tasks;
use zipline_seal::Keyring;
use zipline_transfer::{RetrieveError, RetrieveErrorKind, RetrieveOptions, Retriever, RetrieverConfig};

async fn through(rig: &Rig, record: &Record, fault: Fault) -> Result<Vec<u8>, RetrieveError> {
    let relay = Relay::new(rig.address, Vec::new(), fault).await;
    let record = Record { addresses: vec![relay.address], ..record.clone() };
    retrieve(&rig.retriever(), &record, RetrieveOptions::default()).await
}

fn replace(answer: &[u8], what: &str, with: &str) -> Vec<u8> {
    let at = answer
        .windows(what.len())
        .position(|window| window == what.as_bytes())
        .expect("there to be replaced");
    [&answer[..at], with.as_bytes(), &answer[at + what.len()..]].concat()
}

#[tokio::test]
async fn untouched_answers_pass_the_relay() {
    let rig = Rig::new();
    let bytes = pattern(5000);
    let record = rig.hold(&bytes).await;
    assert!(through(&rig, &record, Fault::tamper(|answer| answer)).await.unwrap() == bytes);
}

#[tokio::test]
async fn heads_without_the_right_proof_are_not_believed() {
    let rig = Rig::new();
    let record = rig.hold_n(&pattern(5000), Retrievals::Unlimited).await;
    let unproven = RetrieveErrorKind::Unauthenticated { status: 200 };
    for (what, with) in [
        ("zipline-length: 5000", "zipline-length: 4999"),
        ("zipline-length: 5000", "zipline-length: *"),
        ("zipline-length: 5000\r\n", ""),
        ("zipline-auth-reply: ", "zipline-auth-reply: A"),
        ("zipline-auth-reply: ", "zipline-other: "),
        ("zipline-auth-reply: ", "zipline-auth-reply: A\r\nzipline-auth-reply: "),
    ] {
        let result = through(&rig, &record, Fault::tamper(move |answer| replace(&answer, what, with))).await;
        assert_eq!(result.unwrap_err().kind(), &unproven, "{with}");
    }
    let result = through(
        &rig,
        &record,
        Fault::tamper(|answer| replace(&answer, "HTTP/1.1 200 OK", "HTTP/1.1 204 No")),
    );
    assert_eq!(result.await.unwrap_err().kind(), &RetrieveErrorKind::Unauthenticated { status: 204 });
}

#[tokio::test]
async fn final_records_without_the_right_proof_are_no_end() {
    let rig = Rig::new();
    let record = rig.hold_n(&pattern(5000), Retrievals::Limited(100)).await;
    for (what, with) in [
        ("length=5000,", "length=4999,"),
        ("mac=", "mac=A"),
        ("\r\nzipline-final: ", "\r\nzipline-other: "),
        ("\r\nzipline-final: ", "\r\nzipline-trailers: YTogYg0K\r\nzipline-final: "),
        ("\r\nzipline-final: ", "\r\nzipline-final: A\r\nzipline-final: "),
    ] {
        let result = through(&rig, &record, Fault::tamper(move |answer| replace(&answer, what, with))).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), &RetrieveErrorKind::FinalRecord, "{with}");
        assert_eq!(error.code(), ErrorCode::PayloadLost);
    }
    // A body that ends in good form, without any trailer section.
    let cut = |answer: Vec<u8>| {
        let at = answer.windows(5).rposition(|window| window == b"0\r\nzi").unwrap();
        [&answer[..at], b"0\r\n\r\n"].concat()
    };
    let error = through(&rig, &record, Fault::tamper(cut)).await.unwrap_err();
    assert_eq!(error.kind(), &RetrieveErrorKind::FinalRecord);
    assert_eq!(rig.retrievals_left(&record), Some(100), "nothing was acknowledged");
}

#[tokio::test]
async fn a_changed_byte_is_noticed_before_the_last_ones_are_let_go() {
    let rig = Rig::new();
    let bytes = pattern(200 * 1024);
    let mut record = rig.hold(&bytes).await;
    let flip = |mut answer: Vec<u8>| {
        let at = answer.len() / 2;
        answer[at] ^= 1;
        answer
    };
    // Whether the reference names the digest, or only the final record does.
    for digest in [record.digest, None] {
        record.digest = digest;
        let relay = Relay::new(rig.address, Vec::new(), Fault::tamper(flip)).await;
        let changed = Record { addresses: vec![relay.address], ..record.clone() };
        let mut retrieval = rig.retriever().start(&changed, RetrieveOptions::default()).await.unwrap();
        let (arrived, error) = crate::rig::drain(&mut retrieval).await;
        assert_eq!(error.unwrap().kind(), &RetrieveErrorKind::Digest);
        assert_eq!(arrived.len(), bytes.len() - 64 * 1024);
    }
    record.digest = Some([0; 32]);
    let result = retrieve(&rig.retriever(), &record, RetrieveOptions::default()).await;
    assert_eq!(result.unwrap_err().kind(), &RetrieveErrorKind::Digest, "the reference's digest counts too");
}

#[tokio::test]
async fn bytes_added_to_a_long_payload_are_noticed() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(2 * MIB)).await;
    let add =
        |answer: Vec<u8>| replace(&answer, "\r\n0\r\nzipline-final", "\r\n1\r\nx\r\n0\r\nzipline-final");
    let error = through(&rig, &record, Fault::tamper(add)).await.unwrap_err();
    assert!(matches!(error.kind(), RetrieveErrorKind::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_replayed_for_another_payload_is_not_believed() {
    let rig = Rig::new();
    let (first, second) = (rig.hold(&pattern(5000)).await, rig.hold(&pattern(5000)).await);
    let relay = Relay::new(rig.address, Vec::new(), Fault::tamper(|answer| answer)).await;
    let recorded = Record { addresses: vec![relay.address], ..first.clone() };
    retrieve(&rig.retriever(), &recorded, RetrieveOptions::default()).await.unwrap();
    let replay = Arc::new(relay.answers()[0].clone());
    let result = through(&rig, &second, Fault::tamper(move |_| replay.to_vec())).await;
    assert_eq!(result.unwrap_err().kind(), &RetrieveErrorKind::Unauthenticated { status: 200 });
}

#[tokio::test]
async fn holder_and_receiver_must_share_a_key_and_a_life() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(5000)).await;
    let start = |keyring: Keyring, record: Record| async move {
        let retriever = Retriever::new(keyring, Tasks::new(), RetrieverConfig::default());
        retriever.start(&record, RetrieveOptions::default()).await.unwrap_err()
    };
    let error = start(keyring(2), record.clone()).await;
    assert_eq!(error.kind(), &RetrieveErrorKind::Unauthenticated { status: 403 });
    assert_eq!(error.code(), ErrorCode::ReferenceForbidden);

    let error = start(Keyring::new("default"), record.clone()).await;
    assert_eq!(error.kind(), &RetrieveErrorKind::NoKey);

    let other_life = Record { boot: zipline_seal::new_boot_id(), ..record.clone() };
    let error = start(keyring(1), other_life).await;
    assert_eq!(error.kind(), &RetrieveErrorKind::Refused { status: 421, code: ErrorCode::PayloadLost });

    let unknown = Record { payload: zipline_seal::new_payload_id(), ..record.clone() };
    let error = start(keyring(1), unknown).await;
    assert_eq!(error.kind(), &RetrieveErrorKind::Refused { status: 404, code: ErrorCode::PayloadLost });

    let longer = Record { length: Some(5001), ..record };
    let error = start(keyring(1), longer).await;
    assert!(matches!(error.kind(), RetrieveErrorKind::Malformed { .. }));
}
