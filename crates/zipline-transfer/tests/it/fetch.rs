//! Payloads fetched into memory of the receiver's own.

use crate::relay::{Fault, Relay};
use crate::rig::{MIB, Rig, hasty, pattern, until};
use zipline_buffer::InFlight;
use zipline_protocol::{ErrorCode, Record};
use zipline_segment::SegmentMut;
use zipline_transfer::{RetrieveErrorKind, Retriever};

async fn memory(of: &InFlight, length: usize) -> SegmentMut {
    of.segment(length as u64).await.unwrap()
}

fn through(record: &Record, relay: &Relay) -> Record {
    Record { addresses: vec![relay.address], ..record.clone() }
}

#[tokio::test]
async fn bytes_of_any_length_arrive_and_are_acknowledged() {
    for rig in [Rig::new(), Rig::with_tls()] {
        let (retriever, budget) = (rig.retriever(), InFlight::new(64 << 20));
        for length in [0, 1, 4095, 65_535, 65_536, 65_537, MIB, 3 * MIB + 1] {
            let bytes = pattern(length);
            let record = rig.hold(&bytes).await;
            let mut room = memory(&budget, length).await;
            room.fill(0xEE);
            let fetched = retriever.fetch(&record, room).await.unwrap();
            assert!(fetched.bytes()[..] == bytes[..], "{length} bytes");
            assert_eq!(rig.retrievals_left(&record), Some(5), "not acknowledged yet");
            let kept = fetched.bytes();
            fetched.acknowledge().await.unwrap();
            assert_eq!(rig.retrievals_left(&record), Some(4));
            assert!(kept[..] == bytes[..], "kept bytes outlive the retrieval");
        }
        assert_eq!(budget.used_bytes(), 0, "memory comes back with its last bytes");
        assert_eq!(rig.leases(), 0);
    }
}

#[tokio::test]
async fn a_payload_that_still_fills_is_fetched_as_it_fills() {
    let rig = Rig::new();
    let bytes = pattern(2 * MIB);
    let spec = Rig::spec(Some(bytes.len() as u64));
    let record = rig.record(spec.id, Some(bytes.len() as u64));
    let (mut writer, guard) = rig.store.begin(spec).await.unwrap();
    writer.write(bytes.slice(..MIB + 5)).await.unwrap();
    let (retriever, budget) = (rig.retriever(), InFlight::new(64 << 20));
    let room = memory(&budget, bytes.len()).await;
    let rest = async {
        until(|| rig.monitor.stats().sent_bytes > MIB as u64).await;
        writer.write(bytes.slice(MIB + 5..)).await.unwrap();
        writer.finish(Vec::new()).unwrap();
    };
    let (fetched, ()) = tokio::join!(retriever.fetch(&record, room), rest);
    assert!(fetched.unwrap().bytes()[..] == bytes[..]);
    drop(guard);
}

#[tokio::test]
async fn cuts_and_stalls_are_resumed_from_the_byte_reached() {
    let rig = Rig::new();
    let budget = InFlight::new(64 << 20);
    let bytes = pattern(2 * MIB);
    let faults = [vec![Fault::Cut(100)], vec![Fault::Cut(300_000); 6], vec![Fault::Stall(700_000)]];
    for first in faults {
        let record = rig.hold(&bytes).await;
        let relay = Relay::new(rig.address, first, Fault::Pass).await;
        let retriever = rig.retriever_with(hasty());
        let room = memory(&budget, bytes.len()).await;
        let fetched = retriever.fetch(&through(&record, &relay), room).await.unwrap();
        assert!(fetched.bytes()[..] == bytes[..]);
        fetched.acknowledge().await.unwrap();
        assert_eq!(rig.retrievals_left(&record), Some(4), "one retrieval, however many connections");
    }
}

#[tokio::test]
async fn a_fetch_that_fails_gives_lease_and_memory_back() {
    let rig = Rig::new();
    let budget = InFlight::new(64 << 20);
    let record = rig.hold(&pattern(2 * MIB)).await;
    let relay = Relay::new(rig.address, vec![Fault::Cut(300_000)], Fault::Cut(20)).await;
    let room = memory(&budget, 2 * MIB).await;
    let error = rig.retriever().fetch(&through(&record, &relay), room).await.unwrap_err();
    assert_eq!(error.kind(), &RetrieveErrorKind::Broken { attempts: 3 });
    assert_eq!(budget.used_bytes(), 0);

    let fetched = rig.retriever().fetch(&record, memory(&budget, 2 * MIB).await).await.unwrap();
    drop(fetched);
    until(|| rig.leases() == 0).await;
    assert_eq!(rig.retrievals_left(&record), Some(5));
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test]
async fn changed_bytes_and_wrong_lengths_are_noticed() {
    let rig = Rig::new();
    let budget = InFlight::new(64 << 20);
    let bytes = pattern(100_000);
    let record = rig.hold(&bytes).await;
    let flip = Fault::tamper(|mut answer| {
        if answer.len() > 100_000 {
            answer[50_000] ^= 1;
        }
        answer
    });
    let relay = Relay::new(rig.address, Vec::new(), flip).await;
    let retriever = rig.retriever();
    let fetch = async |record: &Record, retriever: &Retriever, length| {
        retriever.fetch(record, memory(&budget, length).await).await.unwrap_err()
    };
    let error = fetch(&through(&record, &relay), &retriever, 100_000).await;
    assert_eq!((error.kind(), error.code()), (&RetrieveErrorKind::Digest, ErrorCode::PayloadLost));
    let error = fetch(&record, &retriever, 99_999).await;
    assert!(matches!(error.kind(), RetrieveErrorKind::Malformed { .. }));
    let lying = Record { length: Some(99_999), ..record.clone() };
    let error = fetch(&lying, &retriever, 99_999).await;
    assert!(matches!(error.kind(), RetrieveErrorKind::Malformed { .. }));
}

#[tokio::test]
async fn a_large_payload_comes_over_two_connections_under_one_lease() {
    let rig = Rig::new();
    let budget = InFlight::new(64 << 20);
    let bytes = pattern(5 * MIB + 3);
    let record = rig.hold_n(&bytes, zipline_protocol::Retrievals::Limited(1)).await;
    let relay = Relay::new(rig.address, Vec::new(), Fault::Pass).await;
    let room = memory(&budget, bytes.len()).await;
    let fetched = rig.retriever().fetch(&through(&record, &relay), room).await.unwrap();
    assert!(fetched.bytes()[..] == bytes[..]);
    assert_eq!(relay.accepted(), 2);
    fetched.acknowledge().await.unwrap();
    until(|| rig.store.info(&record.payload).is_none()).await;
}
