//! Memory passed between a holder and a receiver on one machine.

use crate::rig::{MIB, Rig, keyring, pattern};
use bytes::Bytes;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zipline_protocol::{ErrorCode, Record, Retrievals};
use zipline_segment::{Access, HugePages, Mapping, SegmentBytes, SegmentMut};
use zipline_transfer::RetrieveErrorKind;
use zipline_transfer::host::{HostPort, Neighbours, Shared, SharedBytes};

struct House {
    rig: Rig,
    directory: tempfile::TempDir,
    delivered: Arc<AtomicU64>,
}

impl House {
    fn new() -> Self {
        let (rig, directory) = (Rig::new(), tempfile::tempdir().unwrap());
        let delivered = Arc::<AtomicU64>::default();
        let count = Arc::clone(&delivered);
        let on_delivered = move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let (keyring, store) = (rig.keyring.clone(), rig.store.clone());
        let port = HostPort::bind(directory.path(), rig.boot, keyring, store, on_delivered).unwrap();
        drop(rig.tasks.spawn("host port", port.run(rig.tasks.child())));
        Self { rig, directory, delivered }
    }

    fn neighbours(&self) -> Neighbours {
        let directory = self.directory.path().to_owned();
        Neighbours::new(directory, self.rig.keyring.clone(), self.rig.tasks.child())
    }

    /// Holds bytes that a function wrote in place.
    fn adopt(&self, bytes: &Bytes, retrievals: u32) -> Record {
        let mut segment =
            SegmentMut::whole(Mapping::create(bytes.len() + 4096, HugePages::Off).unwrap(), None);
        let mut written = segment.split_off(4096);
        written[..bytes.len()].copy_from_slice(bytes);
        written.truncate(bytes.len());
        let retrievals = Retrievals::Limited(retrievals);
        let spec = zipline_buffer::Spec { retrievals, ..Rig::spec(Some(bytes.len() as u64)) };
        let record = self.rig.record(spec.id, Some(bytes.len() as u64));
        let (complete, guard) = self.rig.store.adopt(spec, written.freeze()).unwrap();
        guard.keep();
        Record { retrievals, digest: complete.digest, ..record }
    }

    async fn comes_true(&self, condition: impl Fn() -> bool) {
        for _ in 0..10_000 {
            if condition() {
                return;
            }
            tokio::task::yield_now().await;
            // Sockets are only looked at when nothing else runs.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        panic!("it never came true");
    }
}

fn segment(bytes: &SharedBytes) -> &SegmentBytes {
    match bytes {
        SharedBytes::Segment(bytes) => bytes,
        SharedBytes::Inline(_) => panic!("its bytes came in place of its memory"),
    }
}

async fn get(neighbours: &Neighbours, record: &Record) -> Shared {
    neighbours.share(record).await.unwrap().expect("the holder is next door")
}

async fn refused(neighbours: &Neighbours, record: &Record) -> ErrorCode {
    neighbours.share(record).await.unwrap_err().code()
}

#[tokio::test]
async fn the_receiver_sees_the_holders_memory_and_can_never_write_it() {
    let (house, bytes) = (House::new(), pattern(3 * MIB));
    let record = house.adopt(&bytes, 1);
    let neighbours = house.neighbours();
    let shared = get(&neighbours, &record).await;
    assert_eq!(shared.bytes.as_ref(), bytes);
    let descriptor = segment(&shared.bytes).place().fd().try_clone_to_owned().unwrap();
    assert!(
        Mapping::adopt(descriptor, 1, Access::ReadWrite).is_err(),
        "a writable mapping of what is shared"
    );
    shared.receipt.acknowledge().await;
    assert_eq!(house.delivered.load(Ordering::Relaxed), 1);
    assert_eq!(refused(&neighbours, &record).await, ErrorCode::RetrievalsExhausted);
    // The payload is spent, and whoever got it still reads it.
    assert_eq!(shared.bytes.as_ref(), bytes);
}

#[tokio::test]
async fn small_payloads_come_as_bytes() {
    let (house, bytes) = (House::new(), pattern(10_000));
    let record = house.rig.hold(&bytes).await;
    let shared = get(&house.neighbours(), &record).await;
    assert!(matches!(shared.bytes, SharedBytes::Inline(_)));
    assert_eq!(shared.bytes.as_ref(), bytes);
    let mut other = record.clone();
    other.digest = Some([1; 32]);
    let error = house.neighbours().share(&other).await.unwrap_err();
    assert_eq!(*error.kind(), RetrieveErrorKind::Digest);
}

#[tokio::test]
async fn what_is_used_stays_held_until_it_is_returned() {
    let (house, bytes) = (House::new(), pattern(256 * 1024));
    let record = house.rig.hold_n(&bytes, Retrievals::Limited(1)).await;
    let neighbours = house.neighbours();
    let shared = get(&neighbours, &record).await;
    shared.receipt.acknowledge().await;
    let held = || house.rig.store.totals().held_bytes;
    assert!(held() >= 256 * 1024, "memory that a receiver maps was given back");
    let part = segment(&shared.bytes).slice(5..10);
    drop(shared.bytes);
    assert!(held() >= 256 * 1024, "memory that a receiver maps was given back");
    drop(part);
    house.comes_true(|| held() == 0).await;
}

#[tokio::test]
async fn a_retrieval_that_is_not_acknowledged_does_not_count() {
    let house = House::new();
    let record = house.adopt(&pattern(MIB), 1);
    let neighbours = house.neighbours();
    drop(get(&neighbours, &record).await);
    get(&neighbours, &record).await.receipt.acknowledge().await;
    assert_eq!(refused(&neighbours, &record).await, ErrorCode::RetrievalsExhausted);
}

#[tokio::test]
async fn a_receiver_that_ends_gives_its_lease_back_and_spoils_the_memory() {
    let house = House::new();
    let record = house.adopt(&pattern(MIB), 1);
    let tasks = zipline_runtime::Tasks::new();
    let directory = house.directory.path().to_owned();
    let dying = Neighbours::new(directory, house.rig.keyring.clone(), tasks.child());
    let shared = get(&dying, &record).await;
    assert!(segment(&shared.bytes).place().mapping.access() == Access::ReadOnly);
    tasks.cancel();
    // The lease is free at once: nobody waits for it to lapse.
    let next = get(&house.neighbours(), &record).await;
    next.receipt.acknowledge().await;
    drop(shared);
}

#[tokio::test]
async fn without_a_neighbour_or_its_key_the_network_is_asked() {
    let house = House::new();
    let record = house.adopt(&pattern(MIB), 1);
    let elsewhere = Record { boot: zipline_seal::new_boot_id(), ..record.clone() };
    assert!(house.neighbours().share(&elsewhere).await.unwrap().is_none());
    let directory = house.directory.path().to_owned();
    let stranger = Neighbours::new(directory, keyring(9), house.rig.tasks.child());
    assert!(stranger.share(&record).await.unwrap().is_none());
    get(&house.neighbours(), &record).await.receipt.acknowledge().await;
}

#[tokio::test]
async fn a_get_that_is_given_up_leaves_nothing_behind() {
    let house = House::new();
    let record = house.adopt(&pattern(MIB), 1);
    let neighbours = house.neighbours();
    // Dropped after every number of polls until it is through.
    for polls in 0.. {
        let mut share = Box::pin(neighbours.share(&record));
        let mut done = false;
        for _ in 0..=polls {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(share.as_mut().poll(cx))).await;
            if polled.is_ready() {
                done = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(share);
        if done || polls > 200 {
            break;
        }
    }
    get(&neighbours, &record).await.receipt.acknowledge().await;
}

#[tokio::test]
async fn the_socket_goes_with_its_port() {
    let directory = tempfile::tempdir().unwrap();
    let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
    let rig = Rig::new();
    let (keyring, store) = (rig.keyring.clone(), rig.store.clone());
    let port = HostPort::bind(directory.path(), rig.boot, keyring, store, |_| {}).unwrap();
    assert_eq!(count(directory.path()), 1);
    drop(port);
    assert_eq!(count(directory.path()), 0);
}
