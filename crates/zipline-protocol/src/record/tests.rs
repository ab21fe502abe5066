use super::*;
use proptest::prelude::*;

fn sample() -> Record {
    Record {
        kind: ReferenceKind::Response,
        payload: PayloadId::from_bytes([1; 16]),
        boot: BootId::from_bytes([2; 16]),
        addresses: vec!["127.0.0.1:80".parse().unwrap(), "[::1]:81".parse().unwrap()],
        length: Some(7),
        expiry_unix_ms: Some(9),
        retrievals: Retrievals::Limited(3),
        digest: Some([4; 32]),
        binding: Some(Nonce::from_bytes([5; 16])),
        certificate: Some([6; 32]),
        zone: "z".into(),
        tenant: "t".into(),
        content_type: Some(b"text/plain".to_vec()),
    }
}

#[test]
fn round_trip_of_a_full_record() {
    let record = sample();
    assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
}

#[test]
fn every_truncation_and_any_surplus_is_refused() {
    let mut bytes = sample().encode().unwrap();
    for len in 0..bytes.len() {
        assert!(Record::decode(&bytes[..len]).is_err(), "{len}");
    }
    bytes.push(0);
    assert_eq!(Record::decode(&bytes), Err(RecordError::Malformed { field: "end" }));
}

#[test]
fn limits_are_refused_before_sealing() {
    let long_type = Record { content_type: Some(vec![b'x'; 256]), ..sample() };
    let error = long_type.encode().unwrap_err();
    assert_eq!(error.to_string(), "content type has 256, allowed are 0 to 255 bytes");
    assert!(Record { addresses: vec![], ..sample() }.encode().is_err());
    assert!(Record { tenant: String::new(), ..sample() }.encode().is_err());
    assert!(Record { retrievals: Retrievals::Limited(0), ..sample() }.encode().is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(record.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn round_trip(length in any::<u64>(), port in any::<u16>(), zone in "[a-z0-9-]{0,32}",
                  tenant in "[a-z]{1,63}", content_type in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=255))) {
        let record = Record {
            addresses: vec![SocketAddr::from(([10, 0, 0, 1], port))],
            length: Some(length).filter(|l| *l != u64::MAX),
            zone, tenant, content_type, digest: None, binding: None, certificate: None, expiry_unix_ms: None,
            retrievals: Retrievals::Unlimited,
            ..sample()
        };
        prop_assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
    }
}
