use crate::*;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::time::Duration;
use zipline_protocol::control::{KeyMessage, KeyringMessage};
use zipline_protocol::data::{DataRequest, FinalRecord, Operation};
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{ErrorCode, KeyId, Record, ReferenceKind, ReferenceText, Retrievals, to_text};

fn key(serial: u32) -> TenantKey {
    TenantKey { serial, secret: Secret::from_bytes([u8::try_from(serial).unwrap(); 32]) }
}

fn update(serials: &[u32], seal_with: Option<u32>) -> KeyringUpdate {
    KeyringUpdate { keys: serials.iter().copied().map(key).collect(), seal_with }
}

fn ring(tenant: &str, serials: &[u32], seal_with: Option<u32>) -> Keyring {
    let ring = Keyring::new(tenant);
    let mut install = update(serials, seal_with);
    if tenant != "default" {
        for key in &mut install.keys {
            key.secret = Secret::from_bytes([200; 32]);
        }
    }
    ring.install(install).unwrap();
    ring
}

fn record(tenant: &str, kind: ReferenceKind) -> Record {
    Record {
        kind,
        payload: new_payload_id(),
        boot: new_boot_id(),
        addresses: vec!["10.0.0.1:8031".parse::<SocketAddr>().unwrap()],
        length: Some(50_000_000),
        expiry_unix_ms: None,
        retrievals: Retrievals::Limited(1),
        digest: Some([9; 32]),
        binding: None,
        certificate: None,
        zone: "eu-central-1a".to_owned(),
        tenant: tenant.to_owned(),
        content_type: Some(b"application/octet-stream".to_vec()),
    }
}

fn request() -> DataRequest {
    DataRequest {
        key: KeyId::from_bytes([0; 8]),
        nonce: new_nonce(),
        boot: new_boot_id(),
        payload: new_payload_id(),
        lease: new_lease_id(),
        from: 0,
        to: None,
    }
}

#[test]
fn a_reference_opens_for_its_tenant_and_kind_only() {
    let ours = ring("default", &[1], Some(1));
    let theirs = ring("other", &[1], Some(1));
    let sealed = record("default", ReferenceKind::Put);
    let text = ours.seal_reference(&sealed).unwrap();
    assert!(text.as_str().len() < 400, "typical references stay short");
    assert_eq!(ours.open_reference(&text, ReferenceKind::Put), Ok(sealed));

    let other_kind = ours.open_reference(&text, ReferenceKind::Request).unwrap_err();
    assert_eq!(
        other_kind,
        OpenError::WrongKind { expected: ReferenceKind::Request, found: ReferenceKind::Put }
    );
    assert_eq!(other_kind.code(), ErrorCode::ReferenceInvalid);
    let other_tenant = theirs.open_reference(&text, ReferenceKind::Put).unwrap_err();
    assert_eq!(other_tenant.code(), ErrorCode::ReferenceForbidden);
}

#[test]
fn the_sealed_tenant_decides_even_under_our_own_key() {
    let ours = ring("default", &[1], Some(1));
    assert!(matches!(ours.seal_reference(&record("other", ReferenceKind::Put)), Err(SealError::OtherTenant)));
}

#[test]
fn two_seals_of_one_record_share_nothing_but_the_key_id() {
    let ours = ring("default", &[1], Some(1));
    let sealed = record("default", ReferenceKind::Put);
    let (a, b) = (ours.seal_reference(&sealed).unwrap(), ours.seal_reference(&sealed).unwrap());
    assert_eq!(a.as_str()[..14], b.as_str()[..14]);
    assert_ne!(a.as_str()[15..40], b.as_str()[15..40]);
}

#[test]
fn a_wrong_secret_under_the_same_serial_opens_nothing() {
    let ours = ring("default", &[1], Some(1));
    let text = ours.seal_reference(&record("default", ReferenceKind::Put)).unwrap();
    let forged = Keyring::new("default");
    let keys = vec![TenantKey { serial: 1, secret: Secret::from_bytes([77; 32]) }];
    forged.install(KeyringUpdate { keys, seal_with: None }).unwrap();
    assert_eq!(forged.open_reference(&text, ReferenceKind::Put), Err(OpenError::Unauthentic));
}

#[test]
fn every_truncation_is_refused() {
    let ours = ring("default", &[1], Some(1));
    let text = ours.seal_reference(&record("default", ReferenceKind::Put)).unwrap();
    for end in 5..text.as_str().len() {
        let cut = ReferenceText::parse(&text.as_str()[..end]).unwrap();
        assert!(ours.open_reference(&cut, ReferenceKind::Put).is_err(), "{end} characters");
    }
}

#[test]
fn rotation_never_fails_a_reference() {
    let (sender, receiver) = (ring("default", &[1], Some(1)), ring("default", &[1], Some(1)));
    let mut made = Vec::new();
    let mut seal = || {
        made.push(sender.seal_reference(&record("default", ReferenceKind::Put)).unwrap());
        for text in &made {
            receiver.open_reference(text, ReferenceKind::Put).unwrap();
        }
    };
    seal();
    receiver.install(update(&[1, 2], Some(1))).unwrap();
    seal();
    sender.install(update(&[1, 2], Some(1))).unwrap();
    seal();
    sender.install(update(&[1, 2], Some(2))).unwrap();
    seal();
    receiver.install(update(&[1, 2], Some(2))).unwrap();
    seal();
    // Only after the longest expiry does the old key leave; then its references are refused.
    receiver.install(update(&[2], Some(2))).unwrap();
    let old = receiver.open_reference(&made[0], ReferenceKind::Put);
    assert_eq!(old, Err(OpenError::UnknownKey { serial: 1 }));
    receiver.open_reference(&made[4], ReferenceKind::Put).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_arrives_in_time_opens_a_waiting_reference() {
    let (sender, receiver) = (ring("default", &[2], Some(2)), ring("default", &[1], Some(1)));
    let text = sender.seal_reference(&record("default", ReferenceKind::Put)).unwrap();
    let arrives = async {
        tokio::time::sleep(Duration::from_millis(1900)).await;
        receiver.install(update(&[1], Some(1))).unwrap();
        receiver.install(update(&[1, 2], Some(1))).unwrap();
    };
    let (opened, ()) = tokio::join!(receiver.open_reference_waiting(&text, ReferenceKind::Put), arrives);
    opened.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_never_comes_is_waited_for_two_seconds() {
    let (sender, receiver) = (ring("default", &[2], Some(2)), ring("default", &[1], Some(1)));
    let text = sender.seal_reference(&record("default", ReferenceKind::Put)).unwrap();
    let started = tokio::time::Instant::now();
    let opened = receiver.open_reference_waiting(&text, ReferenceKind::Put).await;
    assert_eq!(opened, Err(OpenError::UnknownKey { serial: 2 }));
    assert_eq!(started.elapsed().as_secs(), 2);

    let foreign = ring("other", &[2], Some(2));
    let started = tokio::time::Instant::now();
    let opened = foreign.open_reference_waiting(&text, ReferenceKind::Put).await;
    assert_eq!(opened, Err(OpenError::OtherTenant));
    assert_eq!(started.elapsed(), Duration::ZERO, "another tenant's key is not waited for");
}

#[test]
fn without_a_key_for_sealing_nothing_is_sealed_but_all_is_opened() {
    let sender = ring("default", &[1], Some(1));
    let opener = ring("default", &[1], None);
    let text = sender.seal_reference(&record("default", ReferenceKind::Put)).unwrap();
    assert!(!opener.can_seal());
    assert!(matches!(opener.seal_reference(&record("default", ReferenceKind::Put)), Err(SealError::NoKey)));
    opener.open_reference(&text, ReferenceKind::Put).unwrap();
    let payload = new_payload_id();
    assert!(sender.verify_opened(&payload, 200, &opener.proof_opened(&payload, 200).unwrap()));
    assert_eq!(Keyring::new("default").proof_opened(&payload, 200), None);
}

#[test]
fn keyrings_that_make_no_sense_are_refused_and_change_nothing() {
    let ours = ring("default", &[1, 2], Some(1));
    let too_many: Vec<u32> = (1..=17).collect();
    assert_eq!(ours.install(update(&too_many, None)), Err(InstallError::TooManyKeys { count: 17, max: 16 }));
    assert_eq!(ours.install(update(&[3, 3], None)), Err(InstallError::DuplicateSerial { serial: 3 }));
    assert_eq!(ours.install(update(&[3], Some(4))), Err(InstallError::SealingKeyMissing { serial: 4 }));
    let changed =
        KeyringUpdate { keys: vec![TenantKey { serial: 1, secret: Secret::random() }], seal_with: None };
    assert_eq!(ours.install(changed), Err(InstallError::SecretChanged { serial: 1 }));
    assert_eq!(ours.serials(), [1, 2]);
    assert!(ours.can_seal());
}

#[test]
fn control_messages_become_keyrings() {
    let mut message = KeyringMessage {
        tenant: "default".to_owned(),
        keys: vec![KeyMessage { serial: 1, secret: to_text(&[1; 32]) }],
        seal_with: Some(1),
    };
    let ours = Keyring::new("default");
    ours.install(KeyringUpdate::try_from(&message).unwrap()).unwrap();
    let text = ring("default", &[1], Some(1)).seal_reference(&record("default", ReferenceKind::Put)).unwrap();
    ours.open_reference(&text, ReferenceKind::Put).unwrap();
    for secret in ["", "AAAA", "!", &to_text(&[1; 33])] {
        message.keys[0].secret = secret.to_owned();
        assert_eq!(KeyringUpdate::try_from(&message).unwrap_err(), InstallError::Secret { serial: 1 });
    }
}

#[test]
fn accept_headers_open_for_their_tenant_only_and_never_as_references() {
    let ours = ring("default", &[1], Some(1));
    let nonce = new_nonce();
    let text = ours.seal_accept(&nonce).unwrap();
    assert_eq!(ours.open_accept(&text), Ok(nonce));
    assert_eq!(ring("other", &[1], Some(1)).open_accept(&text), Err(OpenError::OtherTenant));

    let as_reference = ReferenceText::parse(&text.replace("zla1.", "zl1.")).unwrap();
    assert_eq!(ours.open_reference(&as_reference, ReferenceKind::Request), Err(OpenError::Unauthentic));
    let reference = ours.seal_reference(&record("default", ReferenceKind::Request)).unwrap();
    assert!(ours.open_accept(&reference.as_str().replace("zl1.", "zla1.")).is_err());
    for refused in ["", "zla1.", "zla1.AAAA", &"zla1.".repeat(200)] {
        assert_eq!(ours.open_accept(refused), Err(OpenError::Malformed), "{refused}");
    }
    // Whether what is left is text of whole bytes depends on its last character.
    let cut = ours.open_accept(&text[..text.len() - 1]);
    assert!(matches!(cut, Err(OpenError::Malformed | OpenError::Unauthentic)), "{cut:?}");
    let longest = "t".repeat(63);
    let ring = ring(&longest, &[1], Some(1));
    assert_eq!(ring.open_accept(&ring.seal_accept(&nonce).unwrap()), Ok(nonce));
}

#[test]
fn proofs_of_opening_hold_for_one_payload_and_one_status_through_a_rotation() {
    let (receiver, sender) = (ring("default", &[1, 2], Some(2)), ring("default", &[1, 2], Some(1)));
    let payload = new_payload_id();
    let proof = receiver.proof_opened(&payload, 200).unwrap();
    assert!(sender.verify_opened(&payload, 200, &proof));
    assert!(!sender.verify_opened(&payload, 500, &proof));
    assert!(!sender.verify_opened(&new_payload_id(), 200, &proof));
    assert!(!ring("other", &[1, 2], Some(1)).verify_opened(&payload, 200, &proof));
    for wrong in ["", &proof[1..], &format!("{proof}A"), &"A".repeat(22), "!!!!!!!!!!!!!!!!!!!!!!"] {
        assert!(!sender.verify_opened(&payload, 200, wrong), "{wrong}");
    }
}

#[test]
fn requests_are_proven_for_one_operation_and_one_tenant() {
    let (holder, receiver) = (ring("default", &[1, 2], Some(1)), ring("default", &[1, 2], Some(2)));
    let mut asked = request();
    let signed = receiver.sign_request(Operation::Retrieve, &mut asked).unwrap();
    assert_eq!(asked.key, key_id("default", 2));
    let proven = holder.verify_request(Operation::Retrieve, signed.header()).unwrap();
    assert_eq!(proven.request(), &asked);

    let wrong_operation = holder.verify_request(Operation::Acknowledge, signed.header()).unwrap_err();
    assert_eq!(wrong_operation, VerifyError::Wrong);
    assert_eq!(wrong_operation.code(), ErrorCode::ReferenceForbidden);
    let tampered = signed.header().replace("from=0", "from=1");
    assert_eq!(holder.verify_request(Operation::Retrieve, &tampered).unwrap_err(), VerifyError::Wrong);
    let foreign = ring("other", &[1, 2], Some(1)).verify_request(Operation::Retrieve, signed.header());
    assert_eq!(foreign.unwrap_err(), VerifyError::OtherTenant);
    let malformed = holder.verify_request(Operation::Retrieve, "v=1").unwrap_err();
    assert_eq!(malformed.code(), ErrorCode::ReferenceInvalid);
    let no_keys = Keyring::new("default").sign_request(Operation::Cancel, &mut asked);
    assert!(matches!(no_keys, Err(SealError::NoKey)));
}

#[tokio::test(start_paused = true)]
async fn a_data_port_waits_for_a_key_that_is_on_its_way() {
    let (holder, receiver) = (ring("default", &[1], Some(1)), ring("default", &[1, 2], Some(2)));
    let signed = receiver.sign_request(Operation::Retrieve, &mut request()).unwrap();
    let arrives = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        holder.install(update(&[1, 2], Some(1))).unwrap();
    };
    let (proven, ()) =
        tokio::join!(holder.verify_request_waiting(Operation::Retrieve, signed.header()), arrives);
    proven.unwrap();
    holder.install(update(&[1], Some(1))).unwrap();
    let never = holder.verify_request_waiting(Operation::Retrieve, signed.header()).await;
    assert_eq!(never.unwrap_err(), VerifyError::UnknownKey { serial: 2 });
}

#[test]
fn answers_and_final_records_are_bound_to_their_request() {
    let ours = ring("default", &[1], Some(1));
    let sign = || ours.sign_request(Operation::Retrieve, &mut request()).unwrap();
    let (first, second) = (sign(), sign());
    let proven = ours.verify_request(Operation::Retrieve, first.header()).unwrap();
    // The key may leave the ring while bytes are on their way.
    ours.install(KeyringUpdate::default()).unwrap();

    let reply = proven.sign_reply(200, Some(5));
    assert!(first.verify_reply(200, Some(5), &reply));
    assert!(!second.verify_reply(200, Some(5), &reply));
    assert!(!first.verify_reply(200, None, &reply));
    assert!(!first.verify_reply(204, Some(5), &reply));
    assert!(!first.verify_reply(200, Some(5), &reply[1..]));

    let record = FinalRecord { length: 5, digest: Some([3; 32]), trailers: b"a: b\r\n".to_vec() };
    let (value, trailers) = proven.sign_final(&record);
    assert_eq!(first.verify_final(&value, trailers.as_deref()), Some(record.clone()));
    assert_eq!(second.verify_final(&value, trailers.as_deref()), None);
    assert_eq!(first.verify_final(&value, None), None);
    assert_eq!(first.verify_final(&value.replace("length=5", "length=4"), trailers.as_deref()), None);
    assert_eq!(first.verify_final(&value, Some(&"A".repeat(1 << 20))), None);
    let (value, none) = proven.sign_final(&FinalRecord { trailers: Vec::new(), ..record });
    assert_eq!(none, None);
    assert!(first.verify_final(&value, None).is_some());
}

#[test]
fn places_of_copies_are_bound_to_their_request_and_to_who_names_them() {
    let ours = ring("default", &[1], Some(1));
    let sign = || ours.sign_request(Operation::Retrieve, &mut request()).unwrap();
    let (first, second) = (sign(), sign());
    let proven = ours.verify_request(Operation::Retrieve, first.header()).unwrap();
    let addresses = vec!["10.0.0.2:8031".parse().unwrap()];
    let place = CopyPlace { boot: new_boot_id(), addresses, certificate: Some([4; 32]) };
    let (offer, relay) = (first.offer(&place), proven.sign_relay(&place));
    assert_eq!(proven.verify_offer(&offer), Some(place.clone()));
    assert_eq!(first.verify_relay(&relay), Some(place.clone()));
    assert_eq!(second.verify_relay(&relay), None);
    assert_eq!(proven.verify_offer(&second.offer(&place)), None);
    assert_eq!(
        (proven.verify_offer(&relay), first.verify_relay(&offer)),
        (None, None),
        "not the one for the other"
    );
    assert_eq!(first.verify_relay(&relay.replace("10.0.0.2", "10.0.0.3")), None);
}

#[test]
fn debug_shows_no_secret_and_no_proof() {
    let secret = [0xAB; 32];
    let ours = Keyring::new("default");
    let keys = vec![TenantKey { serial: 1, secret: Secret::from_bytes(secret) }];
    let install = KeyringUpdate { keys, seal_with: Some(1) };
    let mut shown = format!("{install:?}");
    ours.install(install).unwrap();
    let signed = ours.sign_request(Operation::Retrieve, &mut request()).unwrap();
    let proven = ours.verify_request(Operation::Retrieve, signed.header()).unwrap();
    shown += &format!(
        "{ours:?} {signed:?} {proven:?} {:?}",
        ours.seal_reference(&record("default", ReferenceKind::Put))
    );
    for form in ["171, 171", "abab", "ABAB", &to_text(&secret), "q6ur", "mac", "zl1."] {
        assert!(!shown.contains(form), "{form} in {shown}");
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(position in 0_usize..4096, bit in 0_u8..8) {
        let ours = ring("default", &[1, 2], Some(1));
        let text = ours.seal_reference(&record("default", ReferenceKind::Put)).unwrap();
        // In the sealed bytes ...
        let mut bytes = text.sealed().unwrap();
        let at = position % bytes.len();
        bytes[at] ^= 1 << bit;
        let flipped = ReferenceText::from_sealed(&bytes);
        prop_assert!(ours.open_reference(&flipped, ReferenceKind::Put).is_err());
        // ... and in the characters that carry them.
        let mut characters = text.as_str().as_bytes().to_vec();
        let at = position % characters.len();
        characters[at] ^= 1 << bit;
        let opened = std::str::from_utf8(&characters).ok()
            .and_then(|text| ReferenceText::parse(text).ok())
            .and_then(|text| ours.open_reference(&text, ReferenceKind::Put).ok());
        prop_assert!(opened.is_none());
    }

    #[test]
    fn any_record_comes_back(length in any::<Option<u64>>(), zone in "[a-z]{0,32}", content_type in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=255))) {
        let ours = ring("default", &[1], Some(1));
        let length = length.filter(|length| *length != u64::MAX);
        let sealed = Record { length, zone, content_type, ..record("default", ReferenceKind::Request) };
        let text = ours.seal_reference(&sealed).unwrap();
        prop_assert_eq!(ours.open_reference(&text, ReferenceKind::Request), Ok(sealed));
    }

    #[test]
    fn arbitrary_texts_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,200}") {
        let ours = ring("default", &[1], Some(1));
        if !bytes.is_empty() {
            let refused = ours.open_reference(&ReferenceText::from_sealed(&bytes), ReferenceKind::Put);
            prop_assert!(refused.is_err());
        }
        prop_assert!(ours.open_accept(&text).is_err());
        prop_assert!(!ours.verify_opened(&new_payload_id(), 200, &text));
        prop_assert!(ours.verify_request(Operation::Retrieve, &text).is_err());
    }
}
