use crate::relay::{Fault, Relay};
use crate::rig::{MIB, Rig, pattern, until};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use std::task::{Context, Poll, Waker};
use zipline_protocol::{ErrorCode, Retrievals};
use zipline_transfer::{RetrieveErrorKind, RetrieveOptions, trailers};

#[tokio::test]
async fn a_body_that_is_read_to_its_end_is_acknowledged() {
    let rig = Rig::new();
    let bytes = pattern(5 * MIB);
    let record = rig.hold(&bytes).await;
    let retrieval = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    let (body, outcome) = retrieval.into_body();
    assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
    assert!(body.collect().await.unwrap().to_bytes() == bytes);
    let outcome = outcome.await;
    assert!(outcome.error.is_none() && outcome.acknowledged);
    assert_eq!(outcome.bytes, bytes.len() as u64);
    assert_eq!(rig.retrievals_left(&record), Some(4));
}

#[tokio::test]
async fn a_consumer_that_counts_bytes_acknowledges_without_asking_for_the_end() {
    let rig = Rig::new();
    for size in [0, 1, 300 * 1024, 2 * MIB] {
        let record = rig.hold(&pattern(size)).await;
        let mut retrieval = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
        retrieval.ready().await.unwrap();
        let (mut body, outcome) = retrieval.into_body();
        let mut left = size;
        while left > 0 {
            assert!(!body.is_end_stream());
            left -= body.frame().await.unwrap().unwrap().into_data().unwrap().len();
            assert_eq!(body.size_hint().exact(), Some(left as u64));
        }
        assert!(body.is_end_stream());
        drop(body);
        assert!(outcome.await.acknowledged, "{size} bytes");
        assert_eq!(rig.retrievals_left(&record), Some(4), "{size} bytes");
    }
}

#[tokio::test]
async fn a_range_gives_its_lease_back_at_the_end() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(1000)).await;
    let options = RetrieveOptions { from: 10, to: None };
    let (body, outcome) = rig.retriever().start(&record, options).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 990);
    let outcome = outcome.await;
    assert!(outcome.error.is_none() && !outcome.acknowledged);
    until(|| rig.leases() == 0).await;
    assert_eq!(rig.retrievals_left(&record), Some(5));
}

#[tokio::test]
async fn trailers_follow_the_bytes() {
    let rig = Rig::new();
    let (record, mut writer, _guard) = rig.grow().await;
    let mut sent = HeaderMap::new();
    sent.insert("grpc-status", HeaderValue::from_static("0"));
    writer.write(Bytes::from_static(b"message")).await.unwrap();
    writer.finish(trailers::encode(&sent).unwrap()).unwrap();
    let retrieval = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    let (body, outcome) = retrieval.into_body();
    let collected = body.collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&sent));
    assert_eq!(collected.to_bytes(), "message");
    assert!(outcome.await.acknowledged);
}

#[tokio::test]
async fn a_dropped_body_gives_the_lease_back() {
    let rig = Rig::new();
    let record = rig.hold_n(&pattern(5 * MIB), Retrievals::Limited(1)).await;
    let retrieval = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    let (mut body, outcome) = retrieval.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(rig.leases(), 1);
    drop(body);
    let outcome = outcome.await;
    assert_eq!(outcome.error.unwrap().kind(), &RetrieveErrorKind::Cancelled);
    assert!(!outcome.acknowledged);
    until(|| rig.leases() == 0).await;
    assert_eq!(rig.retrievals_left(&record), Some(1));
}

#[tokio::test]
async fn a_payload_that_breaks_off_breaks_its_body() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(2 * MIB)).await;
    let relay = Relay::new(rig.address, vec![Fault::Cut(300_000)], Fault::Cut(0)).await;
    let mut through = record.clone();
    through.addresses = vec![relay.address];
    let retrieval = rig.retriever().start(&through, RetrieveOptions::default()).await.unwrap();
    let (body, outcome) = retrieval.into_body();
    assert_eq!(body.collect().await.unwrap_err().code(), ErrorCode::PayloadLost);
    let outcome = outcome.await;
    assert!(!outcome.acknowledged && !outcome.error.unwrap().before_first_byte());
}

#[tokio::test]
async fn polling_early_and_often_loses_nothing() {
    let rig = Rig::new();
    let (record, mut writer, _guard) = rig.grow().await;
    let mut retrieval = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(retrieval.poll_next(&mut cx), Poll::Pending));
    drop(retrieval.next());
    writer.write(Bytes::from_static(b"late")).await.unwrap();
    assert_eq!(retrieval.next().await.unwrap().unwrap(), "late");
}
