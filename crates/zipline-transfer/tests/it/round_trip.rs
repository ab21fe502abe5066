use crate::rig::{MIB, Rig, drain, pattern, retrieve};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use zipline_protocol::ErrorCode;

use zipline_transfer::{RetrieveErrorKind, RetrieveOptions, trailers};

#[tokio::test]
async fn payloads_of_every_size_arrive_whole_over_one_connection() {
    let rig = Rig::new();
    let retriever = rig.retriever();
    for size in [0, 1, 64 * 1024, 64 * 1024 + 1, 300 * 1024, 5 * MIB] {
        let bytes = pattern(size);
        let record = rig.hold(&bytes).await;
        assert_eq!(record.digest.is_some(), size as u64 <= crate::rig::DIGEST_MAX_BYTES);
        let arrived = retrieve(&retriever, &record, RetrieveOptions::default()).await.unwrap();
        assert!(arrived == bytes, "{size} bytes");
        assert_eq!(rig.retrievals_left(&record), Some(4), "{size} bytes");
    }
    assert_eq!(rig.monitor.stats().open_connections, 1, "the connection is used again");
    assert_eq!(retriever.idle_connections(), 1);
    assert_eq!(rig.leases(), 0);
}

#[tokio::test]
async fn ranges_arrive_and_spend_nothing_unless_acknowledged() {
    let rig = Rig::new();
    let retriever = rig.retriever();
    let bytes = pattern(300 * 1024);
    let record = rig.hold(&bytes).await;
    let length = bytes.len();
    for (from, to) in [
        (0, Some(1)),
        (1, None),
        (100_000, Some(200_000)),
        (299_999, Some(1 << 40)),
        (7, Some(7)),
        (length as u64, None),
    ] {
        let mut retrieval = retriever.start(&record, RetrieveOptions { from, to }).await.unwrap();
        let expected = &bytes[usize::try_from(from).unwrap()
            ..to.map_or(length, |to| length.min(usize::try_from(to).unwrap()))];
        assert_eq!(retrieval.expected_bytes(), Some(expected.len() as u64));
        assert_eq!(retrieval.length(), Some(length as u64));
        let (arrived, error) = drain(&mut retrieval).await;
        assert!(error.is_none());
        assert!(arrived == expected, "{from}..{to:?}");
        assert!(retrieval.is_complete());
        // A complete range that must not count is cancelled in so many words.
        retrieval.cancel();
    }
    for (from, to) in [(length as u64 + 1, None), (5, Some(4))] {
        let error = retriever.start(&record, RetrieveOptions { from, to }).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::RangeInvalid);
        assert!(error.before_first_byte());
    }
}

#[tokio::test]
async fn a_growing_payload_arrives_as_it_grows_with_its_trailers() {
    let rig = Rig::new();
    let (record, mut writer, _guard) = rig.grow().await;
    let mut retrieval = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    assert_eq!(retrieval.expected_bytes(), None);
    for part in ["here ", "are ", "small ", "parts"] {
        writer.write(Bytes::from_static(part.as_bytes())).await.unwrap();
        // Every part comes through before the next is written: nothing of a growing payload is held back.
        assert_eq!(retrieval.next().await.unwrap().unwrap(), part);
    }
    let mut sent = HeaderMap::new();
    sent.insert("grpc-status", HeaderValue::from_static("0"));
    writer.finish(trailers::encode(&sent).unwrap()).unwrap();
    assert!(retrieval.next().await.is_none());
    assert!(retrieval.is_complete());
    assert_eq!(retrieval.length(), Some(20));
    assert_eq!(retrieval.trailer_map().unwrap(), sent);
    retrieval.acknowledge().await.unwrap();
}

#[tokio::test]
async fn a_range_of_a_growing_payload_ends_when_the_payload_does() {
    let rig = Rig::new();
    let (record, mut writer, _guard) = rig.grow().await;
    writer.write(Bytes::from_static(b"0123456789")).await.unwrap();
    let options = RetrieveOptions { from: 2, to: Some(5) };
    let mut retrieval = rig.retriever().start(&record, options).await.unwrap();
    assert_eq!(retrieval.next().await.unwrap().unwrap(), "234");
    writer.finish(Vec::new()).unwrap();
    assert!(retrieval.next().await.is_none());
    assert!(retrieval.is_complete());
}

#[tokio::test]
async fn a_sender_that_breaks_off_is_an_error_never_an_end() {
    let rig = Rig::new();
    let (record, mut writer, guard) = rig.grow().await;
    let mut retrieval = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    writer.write(pattern(100_000)).await.unwrap();
    retrieval.ready().await.unwrap();
    drop((writer, guard));
    let (arrived, error) = drain(&mut retrieval).await;
    assert_eq!(arrived.len(), 100_000);
    let error = error.expect("the payload never ended");
    assert_eq!(error.code(), ErrorCode::PayloadLost);
    assert!(!error.before_first_byte());
    assert!(!retrieval.is_complete());
    assert!(retrieval.next().await.is_none(), "nothing follows the error");
    let error = retrieval.acknowledge().await.unwrap_err();
    assert_eq!(error.kind(), &RetrieveErrorKind::Cancelled);
}

#[tokio::test]
async fn two_addresses_lead_to_the_holder_if_one_of_them_does() {
    let rig = Rig::new();
    let bytes = pattern(1000);
    let dead =
        zipline_transfer::sockets::listen("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
    for addresses in [vec![dead, rig.address], vec![rig.address, dead]] {
        let mut record = rig.hold(&bytes).await;
        record.addresses = addresses;
        let arrived = retrieve(&rig.retriever(), &record, RetrieveOptions::default()).await.unwrap();
        assert!(arrived == bytes);
    }
    let mut record = rig.hold(&bytes).await;
    record.addresses = vec![dead];
    let error = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), &RetrieveErrorKind::Connect { addresses: vec![dead] });
    assert!(error.before_first_byte());
}
