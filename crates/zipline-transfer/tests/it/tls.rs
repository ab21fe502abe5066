use crate::relay::{Fault, Relay};
use crate::rig::{MIB, Rig, hasty, pattern, retrieve, until};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use zipline_protocol::Record;
use zipline_transfer::{RetrieveErrorKind, RetrieveOptions};

#[tokio::test]
async fn a_payload_and_ranges_of_it_arrive_over_tls() {
    let rig = Rig::with_tls();
    let bytes = pattern(5 * MIB);
    let record = rig.hold(&bytes).await;
    let retriever = rig.retriever();
    assert!(retrieve(&retriever, &record, RetrieveOptions::default()).await.unwrap() == bytes);
    assert_eq!(rig.retrievals_left(&record), Some(4));
    for (from, to) in [(0, 1), (262_143, 700_001), (5 * MIB - 1, 5 * MIB)] {
        let options = RetrieveOptions { from: from as u64, to: Some(to as u64) };
        assert!(retrieve(&retriever, &record, options).await.unwrap() == bytes[from..to], "{from}..{to}");
    }
}

#[tokio::test]
async fn one_connection_serves_many_retrievals() {
    let rig = Rig::with_tls();
    let (record, retriever) = (rig.hold(&pattern(5000)).await, rig.retriever());
    let relay = Relay::new(rig.address, Vec::new(), Fault::Pass).await;
    let record = Record { addresses: vec![relay.address], ..record };
    for _ in 0..3 {
        retrieve(&retriever, &record, RetrieveOptions::default()).await.unwrap();
    }
    assert_eq!((relay.accepted(), retriever.idle_connections()), (1, 1));
}

#[tokio::test]
async fn a_cut_connection_is_resumed_over_tls() {
    let rig = Rig::with_tls();
    let bytes = pattern(5 * MIB);
    // After the handshake, in the first record with bytes, and far into them.
    for cut in [1_500, 4_000, 300_000, 3_000_000] {
        let record = rig.hold(&bytes).await;
        let relay = Relay::new(rig.address, vec![Fault::Cut(cut)], Fault::Pass).await;
        let through = Record { addresses: vec![relay.address], ..record.clone() };
        let arrived = retrieve(&rig.retriever(), &through, RetrieveOptions::default()).await;
        assert!(arrived.unwrap() == bytes, "cut after {cut}");
        assert_eq!((rig.retrievals_left(&record), relay.accepted()), (Some(4), 2), "cut after {cut}");
    }
}

#[tokio::test]
async fn another_certificate_is_refused_before_anything_is_sent() {
    let rig = Rig::with_tls();
    let mut record = rig.hold(&pattern(5000)).await;
    record.certificate.as_mut().unwrap()[31] ^= 1;
    let error = retrieve(&rig.retriever(), &record, RetrieveOptions::default()).await.unwrap_err();
    assert!(matches!(error.kind(), RetrieveErrorKind::Connect { .. }), "{error}");
    assert!(error.before_first_byte());
    until(|| rig.monitor.stats().open_connections == 0).await;
    let stats = rig.monitor.stats();
    assert_eq!((stats.proven_requests, stats.unproven_requests, stats.sent_bytes), (0, 0, 0));
}

#[tokio::test]
async fn a_plain_receiver_gets_nothing_from_a_port_with_tls() {
    let rig = Rig::with_tls();
    let record = Record { certificate: None, ..rig.hold(&pattern(5000)).await };
    let error = retrieve(&rig.retriever(), &record, RetrieveOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), &RetrieveErrorKind::Connect { addresses: vec![rig.address] });
    let stats = rig.monitor.stats();
    assert_eq!((stats.proven_requests, stats.unproven_requests, stats.sent_bytes), (0, 0, 0));
}

#[tokio::test]
async fn a_plain_port_is_not_connected_for_a_reference_with_a_certificate() {
    let rig = Rig::new();
    let record = Record { certificate: Some([9; 32]), ..rig.hold(&pattern(5000)).await };
    let error = retrieve(&rig.retriever(), &record, RetrieveOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), &RetrieveErrorKind::Connect { addresses: vec![rig.address] });
    assert_eq!(rig.monitor.stats().proven_requests, 0);
}

#[tokio::test]
async fn idle_connections_are_used_only_for_the_certificate_they_have_shown() {
    for (rig, other) in
        [(Rig::with_tls(), None), (Rig::with_tls(), Some([9; 32])), (Rig::new(), Some([9; 32]))]
    {
        let (record, retriever) = (rig.hold(&pattern(5000)).await, rig.retriever());
        retrieve(&retriever, &record, RetrieveOptions::default()).await.unwrap();
        assert_eq!(retriever.idle_connections(), 1);
        let proven = rig.monitor.stats().proven_requests;
        let mixed = Record { certificate: other, ..record.clone() };
        assert!(retrieve(&retriever, &mixed, RetrieveOptions::default()).await.is_err());
        assert_eq!(rig.monitor.stats().proven_requests, proven, "the idle connection was used");
        retrieve(&retriever, &record, RetrieveOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_bounded_on_both_sides() {
    let rig = Rig::with(|config| {
        config.certificate = Some(zipline_transfer::DataCertificate::generate().unwrap());
        config.handshake_timeout = Duration::from_millis(50);
    });
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0, "the port closes it");

    let record = rig.hold(&pattern(5000)).await;
    let relay = Relay::new(rig.address, Vec::new(), Fault::Stall(0)).await;
    let through = Record { addresses: vec![relay.address], ..record };
    let error =
        retrieve(&rig.retriever_with(hasty()), &through, RetrieveOptions::default()).await.unwrap_err();
    assert!(matches!(error.kind(), RetrieveErrorKind::Connect { .. }), "{error}");
}
