//! Receivers of one payload serve each other; the holder alone grants and counts.

use crate::port::proof;
use crate::relay::{Fault, Relay};
use crate::rig::{DIGEST_MAX_BYTES, MIB, Rig, keyring, pattern, until};
use bytes::Bytes;
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zipline_buffer::{InFlight, Store, StoreConfig};
use zipline_protocol::data::Operation;
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{ErrorCode, Record, Retrievals};
use zipline_seal::{new_boot_id, new_lease_id};
use zipline_transfer::{
    Copies, DataCertificate, DataPort, DataPortConfig, DataPortMonitor, Fetched, RetrieveError,
    RetrieveErrorKind, Retriever, RetrieverConfig,
};

/// Longer than what is compared with a digest, so that it is shown to others while it comes.
const LENGTH: usize = 6 * MIB;

/// A receiver as a queue-proxy is one: it fetches, and serves what it has fetched.
struct Receiver {
    retriever: Retriever,
    copies: Copies,
    budget: InFlight,
    monitor: DataPortMonitor,
}

impl Receiver {
    async fn new(rig: &Rig) -> Self {
        Self::with(rig, None, patient(), async |address| address).await
    }

    /// One that says its data port, whose address `at` is given, is somewhere else.
    async fn offering(rig: &Rig, at: impl AsyncFnOnce(SocketAddr) -> SocketAddr) -> Self {
        Self::with(rig, None, patient(), at).await
    }

    async fn with(
        rig: &Rig,
        certificate: Option<DataCertificate>,
        config: RetrieverConfig,
        at: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
    ) -> Self {
        let boot = new_boot_id();
        let digest = certificate.as_ref().map(DataCertificate::digest);
        let port =
            DataPortConfig { certificate, ..DataPortConfig::new("127.0.0.1:0".parse().unwrap(), boot) };
        let store = Store::new(StoreConfig::with_budget(1 << 20));
        let port = DataPort::bind(port, rig.keyring.clone(), store).unwrap();
        let place = CopyPlace { boot, addresses: vec![at(port.local_addr()).await], certificate: digest };
        let copies = Copies::new(place, || true);
        let port = port.with_copies(copies.clone());
        let monitor = port.monitor();
        let expiry = copies.clone();
        drop(rig.tasks.spawn("copies", async move { expiry.run_expiry().await }));
        drop(rig.tasks.spawn("port", port.run(rig.tasks.child())));
        let retriever = rig.retriever_with(config).with_copies(copies.clone());
        Self { retriever, copies, budget: InFlight::new(64 << 20), monitor }
    }

    async fn fetch(&self, record: &Record) -> Result<Fetched, RetrieveError> {
        let length = record.length.unwrap();
        self.retriever.fetch(record, self.budget.segment(length).await.unwrap()).await
    }
}

/// Nothing is given up only because the machine is busy.
fn patient() -> RetrieverConfig {
    let long = Duration::from_secs(60);
    RetrieverConfig {
        digest_max_bytes: DIGEST_MAX_BYTES,
        connect_timeout: long,
        progress_timeout: long,
        relay_wait: long,
        ..RetrieverConfig::default()
    }
}

async fn hold(rig: &Rig, bytes: &Bytes, retrievals: u32) -> Record {
    let retrievals = Retrievals::Limited(retrievals);
    Record { retrievals, ..rig.hold_n(bytes, retrievals).await }
}

/// The first three receivers, whom the holder serves itself; `first` is whom it names to the fourth one.
async fn served_directly(rig: &Rig, record: &Record, first: &Receiver) -> Vec<Fetched> {
    let mut fetched = vec![first.fetch(record).await.unwrap()];
    for _ in 0..2 {
        fetched.push(Receiver::new(rig).await.fetch(record).await.unwrap());
    }
    fetched
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixteen_receivers_the_holder_serves_five() {
    let rig = Rig::new();
    let bytes = pattern(LENGTH);
    let record = hold(&rig, &bytes, 16).await;
    let receivers = join_all((0..16).map(|_| Receiver::new(&rig))).await;
    let all = join_all(receivers.iter().map(|receiver| async {
        let fetched = receiver.fetch(&record).await.unwrap();
        let bytes = fetched.bytes();
        fetched.acknowledge().await.unwrap();
        bytes
    }));
    for arrived in all.await {
        assert!(arrived[..] == bytes[..]);
    }
    let sent = rig.monitor.stats();
    assert_eq!(sent.sent_bytes, 5 * LENGTH as u64);
    assert_eq!(sent.relayed, 11);
    let relayed: u64 = receivers.iter().map(|receiver| receiver.monitor.stats().sent_bytes).sum();
    assert_eq!(relayed, 11 * LENGTH as u64, "nothing is sent twice");
    until(|| rig.store.info(&record.payload).is_none()).await;
    let error = Receiver::new(&rig).await.fetch(&record).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RetrievalsExhausted, "sixteen were counted, and no more come");
}

#[tokio::test]
async fn the_holder_counts_when_a_relayed_receiver_has_everything() {
    let rig = Rig::new();
    let record = hold(&rig, &pattern(LENGTH), 9).await;
    let relay = Receiver::new(&rig).await;
    let direct = served_directly(&rig, &record, &relay).await;
    let fourth = Receiver::new(&rig).await.fetch(&record).await.unwrap();
    assert_eq!((rig.monitor.stats().relayed, rig.monitor.stats().sends), (1, 6), "two parts each");
    assert_eq!((rig.retrievals_left(&record), rig.leases()), (Some(9), 4), "its lease is the holder's");
    fourth.acknowledge().await.unwrap();
    assert_eq!((rig.retrievals_left(&record), rig.leases()), (Some(8), 3));
    drop(Receiver::new(&rig).await.fetch(&record).await.unwrap());
    until(|| rig.leases() == 3).await;
    assert_eq!(rig.retrievals_left(&record), Some(8), "whoever gives it up spends nothing");
    drop(direct);
}

#[tokio::test]
async fn a_payload_for_one_is_never_copied() {
    let rig = Rig::new();
    for (length, retrievals, copies) in [(LENGTH, 1, 0), (MIB - 1, 5, 0), (LENGTH, 5, 1)] {
        let receiver = Receiver::new(&rig).await;
        let record = hold(&rig, &pattern(length), retrievals).await;
        let fetched = receiver.fetch(&record).await.unwrap();
        assert_eq!(receiver.copies.count(), copies, "{length} bytes for {retrievals}");
        drop(fetched);
    }
}

#[tokio::test]
async fn a_copy_gives_its_memory_back_when_it_is_wanted() {
    let rig = Rig::new();
    let record = hold(&rig, &pattern(LENGTH), 5).await;
    let receiver = Receiver::new(&rig).await;
    drop(receiver.fetch(&record).await.unwrap());
    assert_eq!(receiver.budget.used_bytes(), LENGTH as u64);
    assert!(!receiver.copies.let_go_idle(Duration::from_secs(3600)), "it is young");
    assert!(receiver.copies.give_way());
    assert_eq!((receiver.copies.count(), receiver.budget.used_bytes()), (0, 0));
    assert!(!receiver.copies.give_way(), "there is nothing left");
}

/// What a fourth receiver gets if whoever it is sent to is not there, or not what it seems to be.
async fn falls_back(at: impl AsyncFnOnce(SocketAddr) -> SocketAddr, bytes: &Bytes) -> (Rig, DataPortMonitor) {
    let rig = Rig::new();
    let record = hold(&rig, bytes, 9).await;
    let relay = Receiver::offering(&rig, at).await;
    let direct = served_directly(&rig, &record, &relay).await;
    let config = RetrieverConfig { relay_wait: Duration::from_millis(300), ..patient() };
    let fourth = Receiver::with(&rig, None, config, async |address| address).await;
    let fourth = fourth.fetch(&record).await.unwrap();
    assert!(fourth.bytes()[..] == bytes[..]);
    fourth.acknowledge().await.unwrap();
    assert_eq!(rig.retrievals_left(&record), Some(8), "one retrieval, wherever its bytes came from");
    assert_eq!(rig.monitor.stats().relayed, 1);
    // The fifth is served directly, the sixth by whoever is next.
    for _ in 0..2 {
        drop(Receiver::new(&rig).await.fetch(&record).await.unwrap());
    }
    assert_eq!(rig.monitor.stats().relayed, 2);
    drop(direct);
    (rig, relay.monitor)
}

#[tokio::test]
async fn a_relay_that_is_not_there_costs_a_moment() {
    let bytes = pattern(LENGTH);
    let nobody = zipline_transfer::sockets::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = nobody.local_addr().unwrap();
    // It listens, and says nothing.
    let (rig, relay) = falls_back(async |_| address, &bytes).await;
    assert_eq!(relay.stats().sends, 0);
    assert_eq!(rig.monitor.stats().sent_bytes, 5 * LENGTH as u64);
    drop(nobody);
    falls_back(async |_| address, &bytes).await;
}

#[tokio::test]
async fn whoever_cannot_reach_relays_is_sent_to_none_for_a_while() {
    let rig = Rig::new();
    let (first, second) = (pattern(LENGTH), pattern(LENGTH + 1));
    let config = RetrieverConfig { relay_wait: Duration::from_millis(100), ..patient() };
    let apart = Receiver::with(&rig, None, config, async |address| address).await;
    for bytes in [first, second] {
        let record = hold(&rig, &bytes, 9).await;
        let nobody = Receiver::offering(&rig, async |_| "127.0.0.1:1".parse().unwrap()).await;
        let direct = served_directly(&rig, &record, &nobody).await;
        let fetched = apart.fetch(&record).await.unwrap();
        assert!(fetched.bytes()[..] == bytes[..]);
        assert_eq!(rig.monitor.stats().relayed, 1, "the first time, and then no more");
        drop(direct);
        until(|| rig.leases() == 1).await;
        drop(fetched);
    }
    assert_eq!(apart.copies.count(), 1, "it offers none either");
}

#[tokio::test]
async fn a_relay_without_the_copy_or_the_tenants_key_is_left() {
    let bytes = pattern(LENGTH);
    let other = Rig::new();
    falls_back(async |_| other.address, &bytes).await;
    assert_eq!(other.monitor.stats().proven_requests, 1, "it is another process: 421");
    let port = DataPortConfig::new("127.0.0.1:0".parse().unwrap(), new_boot_id());
    let port = DataPort::bind(port, keyring(9), other.store.clone()).unwrap();
    let (address, monitor) = (port.local_addr(), port.monitor());
    drop(other.tasks.spawn("stranger", port.run(other.tasks.child())));
    falls_back(async |_| address, &bytes).await;
    assert_eq!((monitor.stats().unproven_requests, monitor.stats().proven_requests), (1, 0));
}

#[tokio::test]
async fn a_relay_that_breaks_off_is_left_at_the_byte_reached() {
    let rig = Rig::new();
    let bytes = pattern(LENGTH);
    let record = hold(&rig, &bytes, 9).await;
    let mut cutting = None;
    let relay = Receiver::offering(&rig, async |port| {
        cutting.insert(Relay::new(port, Vec::new(), Fault::Cut(LENGTH / 4)).await).address
    });
    let relay = relay.await;
    let direct = served_directly(&rig, &record, &relay).await;
    let sent = rig.monitor.stats().sent_bytes;
    let fetched = Receiver::new(&rig).await.fetch(&record).await.unwrap();
    assert!(fetched.bytes()[..] == bytes[..]);
    assert_eq!((rig.monitor.stats().relayed, relay.monitor.stats().copy_sends), (1, 2));
    let rest = rig.monitor.stats().sent_bytes - sent;
    assert!(rest > 0 && rest < LENGTH as u64, "{rest} bytes came from the holder");
    drop((direct, cutting));
}

#[tokio::test]
async fn a_relay_whose_end_is_not_proven_is_left_at_the_end() {
    let rig = Rig::new();
    let bytes = pattern(LENGTH);
    let record = hold(&rig, &bytes, 9).await;
    let end = Fault::tamper(|answer| {
        // The mac of the final record, which is the last of its fields.
        let mac = answer.windows(6).rposition(|found| found == b", mac=");
        let mut answer = answer;
        if let Some(at) = mac {
            answer[at + 6] = if answer[at + 6] == b'A' { b'B' } else { b'A' };
        }
        answer
    });
    let mut tampering = None;
    let relay = Receiver::offering(&rig, async |port| {
        tampering.insert(Relay::new(port, Vec::new(), end).await).address
    });
    let relay = relay.await;
    let direct = served_directly(&rig, &record, &relay).await;
    let sent = rig.monitor.stats().sent_bytes;
    let fetched = Receiver::new(&rig).await.fetch(&record).await.unwrap();
    assert!(fetched.bytes()[..] == bytes[..]);
    assert_eq!((rig.monitor.stats().relayed, relay.monitor.stats().copy_sends), (1, 2));
    assert_eq!(rig.monitor.stats().sent_bytes, sent, "only the end was wanted from the holder");
    drop((direct, tampering));
}

#[tokio::test]
async fn a_copy_that_is_gone_is_no_loss() {
    let rig = Rig::new();
    let bytes = pattern(LENGTH);
    let record = hold(&rig, &bytes, 9).await;
    let relay = Receiver::new(&rig).await;
    let direct = served_directly(&rig, &record, &relay).await;
    relay.copies.give_way();
    let fetched = Receiver::new(&rig).await.fetch(&record).await.unwrap();
    assert!(fetched.bytes()[..] == bytes[..]);
    assert_eq!((rig.monitor.stats().relayed, relay.monitor.stats().copy_sends), (1, 0));
    assert_eq!(relay.monitor.stats().proven_requests, 1, "it was asked");
    drop(direct);
}

#[tokio::test]
async fn a_relay_with_other_bytes_is_not_believed_where_a_digest_tells() {
    let rig = Rig::new();
    let bytes = pattern(MIB);
    let record = hold(&rig, &bytes, 9).await;
    assert!(record.digest.is_some());
    // The relay's port is behind somebody who changes what it sends.
    let flip = Fault::tamper(|mut answer| {
        if answer.len() > 300_000 {
            let middle = answer.len() / 2;
            answer[middle] ^= 1;
        }
        answer
    });
    let mut tampering = None;
    let first = Receiver::offering(&rig, async |port| {
        tampering.insert(Relay::new(port, Vec::new(), flip).await).address
    });
    let first = first.await;
    let direct = served_directly(&rig, &record, &first).await;
    let fourth = Receiver::new(&rig).await.fetch(&record).await.unwrap();
    assert!(fourth.bytes()[..] == bytes[..]);
    assert_eq!(first.monitor.stats().copy_sends, 2, "it was asked");
    drop((direct, tampering));
}

#[tokio::test]
async fn over_tls_a_relay_speaks_tls_too() {
    let rig = Rig::with_tls();
    let bytes = pattern(LENGTH);
    let record = hold(&rig, &bytes, 9).await;
    let secure = async || {
        let certificate = DataCertificate::generate().unwrap();
        Receiver::with(&rig, Some(certificate), patient(), async |address| address).await
    };
    let direct = served_directly(&rig, &record, &Receiver::new(&rig).await).await;
    let plain = Receiver::new(&rig).await.fetch(&record).await.unwrap();
    assert_eq!(rig.monitor.stats().relayed, 0, "nobody is there who speaks it");
    let relay = secure().await;
    let first = relay.fetch(&record).await.unwrap();
    assert_eq!(rig.monitor.stats().relayed, 0);
    let relayed = secure().await.fetch(&record).await.unwrap();
    assert_eq!(rig.monitor.stats().relayed, 1);
    assert_eq!(relay.monitor.stats().copy_sends, 2);
    assert!(relayed.bytes()[..] == bytes[..]);
    drop((direct, plain, first));
}

#[tokio::test]
async fn only_an_offer_of_the_tenants_key_is_one() {
    let rig = Rig::new();
    let record = hold(&rig, &pattern(LENGTH), 9).await;
    let direct = served_directly(&rig, &record, &Receiver::new(&rig).await).await;
    let place =
        CopyPlace { boot: new_boot_id(), addresses: vec![rig.address], certificate: None }.format(&[7; 32]);
    for (offer, status) in [(String::new(), "200"), (format!("zipline-copy: {place}\r\n"), "200")] {
        let auth = proof(&rig, Operation::Retrieve, &record.payload, &new_lease_id(), 0, Some(5));
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let request = format!(
            "POST /v1/retrieve HTTP/1.1\r\nhost: h\r\nconnection: close\r\nzipline-auth: {auth}\r\n{offer}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    assert_eq!(rig.monitor.stats().relayed, 0);
    drop(direct);
}

#[tokio::test]
async fn whoever_is_not_willing_retrieves_as_ever() {
    let rig = Rig::new();
    let bytes = pattern(LENGTH);
    let record = hold(&rig, &bytes, 9).await;
    let direct = served_directly(&rig, &record, &Receiver::new(&rig).await).await;
    let place = CopyPlace { boot: new_boot_id(), addresses: vec![rig.address], certificate: None };
    let copies = Copies::new(place, || false);
    let retriever = rig.retriever_with(patient()).with_copies(copies.clone());
    let room = InFlight::new(64 << 20).segment(LENGTH as u64).await.unwrap();
    let fetched = retriever.fetch(&record, room).await.unwrap();
    assert!(fetched.bytes()[..] == bytes[..]);
    assert_eq!((copies.count(), rig.monitor.stats().relayed), (0, 0));
    drop(direct);
}

#[tokio::test]
async fn a_lease_that_was_relayed_ends_with_its_payload() {
    let rig = Rig::new();
    let record = hold(&rig, &pattern(LENGTH), 9).await;
    let direct = served_directly(&rig, &record, &Receiver::new(&rig).await).await;
    rig.store.release(&record.payload).unwrap();
    let error = Receiver::new(&rig).await.fetch(&record).await.unwrap_err();
    let lost = RetrieveErrorKind::Refused { status: 404, code: ErrorCode::PayloadLost };
    assert_eq!(error.kind(), &lost, "copies are there, but the holder grants no lease");
    drop(direct);
}
