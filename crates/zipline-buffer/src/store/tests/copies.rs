//! Copies: read while they fill, in whatever order their two ends come.
use zipline_protocol::data::FinalRecord;
use zipline_segment::{HugePages, Mapping, SegmentBytes, SegmentMut};

use super::*;

const KEPT: Duration = Duration::from_secs(5);

fn memory(bytes: &[u8]) -> SegmentBytes {
    let mut segment = SegmentMut::whole(Mapping::create(bytes.len(), HugePages::Off).unwrap(), None);
    segment.truncate(bytes.len());
    segment.copy_from_slice(bytes);
    segment.freeze()
}

fn record(length: u64) -> FinalRecord {
    FinalRecord { length, digest: None, trailers: b"a: b\r\n".to_vec() }
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_read_as_far_as_it_is_there() {
    let store = store(0, 0);
    let bytes = pattern(100_000);
    let all = memory(&bytes);
    let copy = store.copy(id(1), 100_000, KEPT).unwrap();
    assert!(matches!(store.copy(id(1), 5, KEPT), Err(BeginError::Exists)));
    let mut whole = store.lease(lease_of(1, 1, 0)).await.unwrap();
    let mut end = store.lease(lease_of(1, 2, 60_000)).await.unwrap();
    assert!(copy.add(0, all.slice(..20_000)));
    assert_eq!(whole.next().await.unwrap().unwrap(), bytes[..20_000]);
    // The second part comes before the first one is whole.
    assert!(copy.add(60_000, all.slice(60_000..70_000)));
    assert!(copy.add(70_000, all.slice(70_000..80_000)));
    assert_eq!(end.next().await.unwrap().unwrap(), bytes[60_000..80_000]);
    assert!(!copy.add(90_000, all.slice(90_000..)), "one gap, not two");
    assert!(!copy.finish(record(100_000)), "bytes are missing");
    assert!(copy.add(20_000, all.slice(20_000..60_000)));
    assert!(copy.add(80_000, all.slice(80_000..)));
    assert!(copy.finish(record(100_000)));
    let mut rest = Vec::new();
    while let Some(piece) = whole.next().await {
        rest.extend_from_slice(&piece.unwrap());
    }
    assert!(rest == bytes[20_000..]);
    assert_eq!(whole.completed().await.unwrap(), record(100_000));
    store.acknowledge(&id(1), &lease_of(1, 1, 0).lease).unwrap();
    store.lease(lease_of(1, 3, 0)).await.unwrap();
    assert_eq!(store.totals().held_bytes, 0, "its memory is somebody else's");
}

#[tokio::test(start_paused = true)]
async fn a_copy_ends_with_its_time_or_its_writer_and_lets_its_memory_go() {
    let store = store(0, 0);
    let driver = store.run_expiry();
    let told = async {
        let copy = store.copy(id(1), 10, KEPT).unwrap();
        copy.add(0, memory(&[7; 10]));
        assert!(copy.finish(record(10)));
        drop(copy);
        assert!(store.info(&id(1)).is_some(), "its writer is not needed any more");
        tokio::time::sleep(KEPT + Duration::from_millis(1)).await;
        assert!(store.info(&id(1)).is_none());

        let copy = store.copy(id(2), 10, KEPT).unwrap();
        let mut reader = store.lease(lease_of(2, 1, 0)).await.unwrap();
        drop(copy);
        assert_eq!(reader.next().await, Some(Err(ReadError::Gone(Gone::Aborted))));

        let copy = store.copy(id(3), 10, KEPT).unwrap();
        store.release(&id(3)).unwrap();
        assert!(!copy.add(0, memory(&[7; 10])));
        assert!(!copy.finish(record(10)));
    };
    tokio::select! {
        () = driver => unreachable!("it never resolves"),
        () = told => {}
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_from_elsewhere_are_progress_of_a_lease_and_life_alone_is_none() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    filled(&store, put(1, Some(10)), &pattern(10)).await.keep();
    let LeaseRequest { lease, .. } = lease_of(1, 1, 0);
    drop(store.lease(lease_of(1, 1, 0)).await.unwrap());
    for reached in 1..=15 {
        tokio::time::sleep(SECOND).await;
        store.alive(&id(1), &lease, reached).unwrap();
    }
    assert_eq!(store.totals().leases, 1);
    for _ in 0..11 {
        tokio::time::sleep(SECOND).await;
        store.alive(&id(1), &lease, 15).unwrap();
    }
    assert_eq!(store.totals().leases, 0, "it lapsed");
}
