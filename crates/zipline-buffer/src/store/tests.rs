mod apart;
mod copies;
mod expect;
mod growing;
mod placed;
mod prepared;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use zipline_protocol::{LeaseId, PayloadId, ReferenceKind, Retrievals, limits};

use super::*;
use crate::config::{ExpiryBound, PayloadPhase, Settled};
use crate::error::{ReadError, WriteError};
use crate::samples::{id, put};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const MIB: u64 = 1 << 20;
const SEGMENT: u64 = limits::SEGMENT as u64;
const SECOND: Duration = Duration::from_secs(1);

fn store(budget_bytes: u64, window_bytes: u64) -> Store {
    let config =
        StoreConfig { window_bytes, digest_max_bytes: MIB, ..StoreConfig::with_budget(budget_bytes) };
    let store = Store::new(config);
    store.keep_warm(4 * SEGMENT);
    store
}

fn request(n: u8, length: Option<u64>) -> Spec {
    Spec {
        kind: ReferenceKind::Request,
        retrievals: Retrievals::Unlimited,
        ttl: None,
        wait: None,
        windowed: true,
        ..put(n, length)
    }
}

fn lease_of(n: u8, lease: u8, from: u64) -> LeaseRequest {
    LeaseRequest { payload: id(n), lease: LeaseId::from_bytes([lease; 16]), peer: PEER, from, to: None }
}

fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect::<Vec<_>>().into()
}

async fn filled(store: &Store, spec: Spec, bytes: &Bytes) -> PayloadGuard {
    let (mut writer, guard) = store.begin(spec).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    writer.finish(Vec::new()).unwrap();
    guard
}

async fn read_all(mut reader: PayloadReader) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.next().await {
        let chunk = chunk?;
        assert!(!chunk.is_empty() && chunk.len() <= limits::SEGMENT);
        all.extend_from_slice(&chunk);
    }
    assert_eq!(reader.final_record().is_some(), reader.is_complete());
    Ok(all)
}

fn assert_empty(store: &Store) {
    let now = store.snapshot();
    assert_eq!((now.held_bytes, now.payload_count, now.leases), (0, 0, 0), "{now:?}");
    assert_eq!((now.waiters, now.lease_waiters), (0, 0));
    assert_eq!(now.allocated_bytes, now.warm_bytes);
    assert!(now.peak_bytes <= now.budget_bytes);
    let state = store.shared.state.lock();
    assert!(state.contents.is_empty() && state.begins.is_empty());
    assert!(state.growths.is_empty() && state.leases.is_empty());
}

fn driven(store: &Store) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(store.run_expiry());
    tasks
}

#[tokio::test(start_paused = true)]
async fn a_put_is_read_once_and_then_spent() {
    let store = store(4 * MIB, MIB);
    let bytes = pattern(700_000);
    let (mut writer, guard) = store.begin(put(1, Some(700_000))).await.unwrap();
    for chunk in bytes.chunks(10_007) {
        writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    let complete = writer.finish(b"a: b\r\n".to_vec()).unwrap();
    assert_eq!(complete.digest, Some(Sha256::digest(&bytes).into()));
    assert_eq!(guard.expiry().unwrap().after, 60 * SECOND);
    guard.keep();
    assert_eq!(store.totals().held_bytes, 700_000);

    let mut reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
    assert_eq!(reader.payload_length(), Some(700_000));
    assert_eq!(reader.completed().await.unwrap().trailers, b"a: b\r\n");
    assert_eq!(read_all(reader).await.unwrap(), bytes);
    let lease = LeaseId::from_bytes([1; 16]);
    assert!(store.acknowledge(&id(1), &lease).unwrap().is_some());
    assert_eq!(store.acknowledge(&id(1), &lease), Ok(None), "one delivery is told of once");
    store.release(&id(1)).unwrap();
    assert_eq!(store.lease(lease_of(1, 2, 0)).await.unwrap_err(), LeaseError::Exhausted);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn readers_follow_the_writer() {
    let store = store(4 * MIB, MIB);
    let bytes = pattern(300_000);
    let (mut writer, _guard) = store.begin(request(1, None)).await.unwrap();
    let mut readers = JoinSet::new();
    for lease in 0..3 {
        let reader = store.lease(lease_of(1, lease, 0)).await.unwrap();
        readers.spawn(read_all(reader));
    }
    for chunk in bytes.chunks(997) {
        writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        tokio::task::yield_now().await;
    }
    writer.finish(Vec::new()).unwrap();
    while let Some(read) = readers.join_next().await {
        assert_eq!(read.unwrap().unwrap(), bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickled_payload_costs_few_slices() {
    let store = store(4 * MIB, MIB);
    let (mut writer, guard) = store.begin(put(1, None)).await.unwrap();
    let mut reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
    for byte in 0..=255 {
        writer.write(Bytes::copy_from_slice(&[byte])).await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), [byte].as_slice());
    }
    writer.finish(Vec::new()).unwrap();
    assert!(reader.next().await.is_none());
    let mut again = guard.reader_from_start().unwrap();
    assert_eq!(again.next().await.unwrap().unwrap().len(), 256, "one piece, however it came");
}

#[tokio::test(start_paused = true)]
async fn small_payloads_cost_what_they_are() {
    let store = store(MIB, MIB / 4);
    let exact = filled(&store, put(1, Some(10)), &pattern(10)).await;
    assert_eq!(store.totals().held_bytes, 10);
    assert_eq!(store.totals().allocated_bytes, 10);
    let growing = filled(&store, put(2, None), &pattern(10)).await;
    assert!(store.totals().held_bytes <= 10 + 16 * 1024);
    let empty = filled(&store, put(3, Some(0)), &Bytes::new()).await;
    assert!(read_all(empty.reader_from_start().unwrap()).await.unwrap().is_empty());
    drop((exact, growing, empty));
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn a_window_carries_twenty_times_its_size() {
    for length in [Some(20 * MIB), None] {
        let store = store(2 * MIB, MIB);
        let bytes = pattern(20 << 20);
        let (mut writer, guard) = store.begin(request(1, length)).await.unwrap();
        let reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(read_all(reader));
        for chunk in bytes.chunks(100_003) {
            writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            assert!(store.totals().held_bytes <= 2 * MIB);
        }
        assert_eq!(writer.finish(Vec::new()).unwrap().digest, None);
        assert!(tasks.join_next().await.unwrap().unwrap().unwrap() == bytes);
        assert!(guard.reader_from_start().is_none());
        let late = store.lease(lease_of(1, 2, 0)).await.unwrap_err();
        assert_eq!((late.code(), late.data_status()), (zipline_protocol::ErrorCode::PayloadLost, 424));
        drop(guard);
        assert_empty(&store);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_retrieval_of_a_window_resumes_behind_what_was_sent() {
    let store = store(2 * MIB, MIB);
    let bytes = pattern(10 << 20);
    let (mut writer, guard) = store.begin(request(1, Some(10 * MIB))).await.unwrap();
    let mut tasks = JoinSet::new();
    let all = bytes.clone();
    tasks.spawn(async move {
        for chunk in all.chunks(65_536) {
            writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        writer.finish(Vec::new()).unwrap();
    });
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        let position = got.len() as u64;
        let mut reader = store.lease(lease_of(1, 1, position)).await.unwrap();
        let mut chunks = Vec::new();
        for _ in 0..5 {
            let Some(chunk) = reader.next().await else { break };
            chunks.push(chunk.unwrap());
        }
        // The last two chunks were lost with the connection, and are there still after the writer took its room.
        drop(reader);
        tokio::time::sleep(SECOND).await;
        let arrived = if position + MIB < 10 * MIB { chunks.len() - 2 } else { chunks.len() };
        chunks[..arrived].iter().for_each(|chunk| got.extend_from_slice(chunk));
    }
    assert!(got == bytes);
    tasks.join_next().await.unwrap().unwrap();
    drop(guard);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_the_writer_waits() {
    let store = store(2 * MIB, MIB);
    let (mut writer, guard) = store.begin(request(1, Some(10 * MIB))).await.unwrap();
    let written = tokio::time::timeout(3_600 * SECOND, writer.write(pattern(2 << 20))).await;
    assert!(written.is_err(), "there is room for the window only");
    assert_eq!(store.info(&id(1)).unwrap().buffered_bytes, MIB);
    assert!(guard.reader_from_start().is_some(), "nothing left the window");
    assert_eq!(writer.write(pattern(1)).await, Err(WriteError::Torn));
}

#[tokio::test(start_paused = true)]
async fn an_inline_resend_reads_a_window_from_its_start() {
    let store = store(2 * MIB, MIB);
    let bytes = pattern(5 << 20);
    let (mut writer, guard) = store.begin(request(1, Some(5 * MIB))).await.unwrap();
    let mut tasks = JoinSet::new();
    let all = bytes.clone();
    tasks.spawn(async move {
        writer.write(all).await.unwrap();
        writer.finish(Vec::new()).unwrap();
    });
    tokio::task::yield_now().await;
    let reader = guard.reader_from_start().unwrap();
    assert!(read_all(reader).await.unwrap() == bytes);
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(store.totals().leases, 0);
}

#[tokio::test(start_paused = true)]
async fn abort_release_and_expiry_reach_the_readers() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    let (mut writer, guard) = store.begin(put(1, Some(100))).await.unwrap();
    writer.write(pattern(50)).await.unwrap();
    let mut reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().len(), 50);
    drop(writer);
    assert_eq!(reader.next().await, Some(Err(ReadError::Gone(Gone::Aborted))));
    assert_eq!(guard.settled().await, Settled::Lost);
    assert_eq!(store.lease(lease_of(1, 1, 0)).await.unwrap_err(), LeaseError::Aborted);

    filled(&store, put(2, Some(600_000)), &pattern(600_000)).await.keep();
    let mut reader = store.lease(lease_of(2, 1, 0)).await.unwrap();
    let chunk = reader.next().await.unwrap().unwrap();
    store.release(&id(2)).unwrap();
    assert_eq!(store.totals().held_bytes, SEGMENT, "what a reader still has is still charged");
    assert_eq!(reader.next().await, Some(Err(ReadError::Gone(Gone::Released))));
    assert_eq!(chunk, pattern(600_000)[..limits::SEGMENT]);
    drop(chunk);
    assert_eq!(store.totals().held_bytes, 0);
    assert_eq!(store.release(&id(2)), Err(ReleaseError::NotFound));

    filled(&store, put(3, Some(10)), &pattern(10)).await.keep();
    let mut reader = store.lease(lease_of(3, 1, 0)).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(reader.next().await, Some(Err(ReadError::Gone(Gone::Expired))));
    assert_eq!(store.lease(lease_of(3, 1, 0)).await.unwrap_err(), LeaseError::Expired);
    drop(reader);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn the_invocation_ends_its_payload() {
    let store = store(4 * MIB, MIB);
    let (mut writer, guard) = store.begin(request(1, None)).await.unwrap();
    writer.write(pattern(500_000)).await.unwrap();
    drop(guard);
    assert_eq!(writer.write(pattern(1)).await, Err(WriteError::Gone(Gone::Released)));
    assert_eq!(store.lease(lease_of(1, 1, 0)).await.unwrap_err(), LeaseError::NotFound);
    drop(writer);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_lapses_and_a_waiting_one_proceeds() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    filled(&store, put(1, Some(600_000)), &pattern(600_000)).await.keep();
    let mut slow = store.lease(lease_of(1, 1, 0)).await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    slow.next().await.unwrap().unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let began = Instant::now();
    let other = store.lease(lease_of(1, 2, 0)).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 8, "ten seconds after the last progress");
    assert!(matches!(slow.next().await, Some(Err(ReadError::Lapsed { .. }))));
    // The late acknowledgement counts, and the other one still delivers.
    store.acknowledge(&id(1), &LeaseId::from_bytes([1; 16])).unwrap();
    assert_eq!(store.info(&id(1)).unwrap().phase, PayloadPhase::Spent);
    assert_eq!(store.lease(lease_of(1, 3, 0)).await.unwrap_err(), LeaseError::Exhausted);
    assert_eq!(read_all(other).await.unwrap(), pattern(600_000));
    store.acknowledge(&id(1), &LeaseId::from_bytes([2; 16])).unwrap();
    drop(slow);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_failed_after_its_acknowledgement_retrieves_again() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    let spec = Spec { linger: 30 * SECOND, ..put(1, Some(600_000)) };
    filled(&store, spec, &pattern(600_000)).await.keep();
    for lease in 1..4 {
        let reader = store.lease(lease_of(1, lease, 0)).await.unwrap();
        assert_eq!(read_all(reader).await.unwrap(), pattern(600_000));
        store.acknowledge(&id(1), &LeaseId::from_bytes([lease; 16])).unwrap();
        tokio::time::sleep(9 * SECOND).await;
    }
    // Begun in the last moment, it is read to its end.
    let last = store.lease(lease_of(1, 4, 0)).await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(store.lease(lease_of(1, 5, 0)).await.unwrap_err(), LeaseError::Exhausted);
    assert_eq!(read_all(last).await.unwrap(), pattern(600_000));
    store.acknowledge(&id(1), &LeaseId::from_bytes([4; 16])).unwrap();
    assert_eq!(store.lease(lease_of(1, 5, 0)).await.unwrap_err(), LeaseError::Exhausted);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_slow_writer_does_not_lapse() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    let (mut writer, _guard) = store.begin(request(1, None)).await.unwrap();
    let reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(read_all(reader));
    for _ in 0..3 {
        tokio::time::sleep(60 * SECOND).await;
        writer.write(pattern(10)).await.unwrap();
    }
    writer.finish(Vec::new()).unwrap();
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap().len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_lease_ends_its_older_reader() {
    let store = store(4 * MIB, MIB);
    let (mut writer, _guard) = store.begin(put(1, Some(100))).await.unwrap();
    let mut older = store.lease(lease_of(1, 1, 0)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { assert_eq!(older.next().await, Some(Err(ReadError::Superseded))) });
    tokio::task::yield_now().await;
    let newer = store.lease(lease_of(1, 1, 0)).await.unwrap();
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(store.totals().leases, 1);
    writer.write(pattern(100)).await.unwrap();
    writer.finish(Vec::new()).unwrap();
    assert_eq!(read_all(newer).await.unwrap(), pattern(100));
}

#[tokio::test(start_paused = true)]
async fn surplus_retrievals_wait_then_are_refused_or_served() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    filled(&store, put(1, Some(10)), &pattern(10)).await.keep();
    let first = store.lease(lease_of(1, 1, 0)).await.unwrap();
    {
        let mut given_up = Box::pin(store.lease(lease_of(1, 2, 0)));
        assert!(tokio::time::timeout(SECOND, &mut given_up).await.is_err());
        assert_eq!(store.totals().lease_waiters, 1);
    }
    assert_eq!(store.totals().lease_waiters, 0);
    let mut tasks = JoinSet::new();
    tasks.spawn(store.lease(lease_of(1, 3, 0)));
    tokio::task::yield_now().await;
    store.cancel(&id(1), &LeaseId::from_bytes([1; 16])).unwrap();
    let second = tasks.join_next().await.unwrap().unwrap().unwrap();
    tasks.spawn(store.lease(lease_of(1, 4, 0)));
    tokio::task::yield_now().await;
    store.acknowledge(&id(1), &LeaseId::from_bytes([3; 16])).unwrap();
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap_err(), LeaseError::Exhausted);
    drop((first, second));
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn ranges_and_bad_ranges() {
    let store = store(4 * MIB, MIB);
    let bytes = pattern(600_000);
    let (mut writer, guard) = store.begin(put(1, None)).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    let range = LeaseRequest { to: Some(300_001), ..lease_of(1, 1, 200_000) };
    let reader = store.lease(range).await.unwrap();
    assert_eq!(read_all(reader).await.unwrap(), bytes[200_000..300_001]);
    store.cancel(&id(1), &range.lease).unwrap();
    let mut beyond = store.lease(lease_of(1, 2, 700_000)).await.unwrap();
    writer.finish(Vec::new()).unwrap();
    assert!(matches!(beyond.next().await, Some(Err(ReadError::RangeInvalid { .. }))));
    for bad in [lease_of(1, 3, 600_001), LeaseRequest { to: Some(4), ..lease_of(1, 3, 5) }] {
        let error = store.lease(bad).await.unwrap_err();
        assert_eq!(error.data_status(), 416);
    }
    let at_end = store.lease(lease_of(1, 2, 600_000)).await.unwrap();
    assert!(read_all(at_end).await.unwrap().is_empty());
    drop((guard, beyond));
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn declared_lengths_bind() {
    let store = store(4 * MIB, MIB);
    let (mut writer, _guard) = store.begin(put(1, Some(10))).await.unwrap();
    assert_eq!(writer.write(pattern(11)).await, Err(WriteError::TooLong { declared: 10 }));
    writer.write(pattern(9)).await.unwrap();
    assert_eq!(writer.finish(Vec::new()), Err(WriteError::TooShort { declared: 10, written: 9 }));
    assert_empty(&store);
    let too_large = store.begin(put(2, Some(4 * MIB + 1))).await.unwrap_err();
    assert_eq!(too_large.code(), zipline_protocol::ErrorCode::PayloadTooLarge);
    let (mut writer, _guard) = store.begin(put(3, None)).await.unwrap();
    writer.write(pattern(4 << 20)).await.unwrap();
    let too_large = writer.write(pattern(1)).await.unwrap_err();
    assert_eq!(too_large.code(), zipline_protocol::ErrorCode::PayloadTooLarge);
}

#[tokio::test(start_paused = true)]
async fn waiters_for_memory_are_served_in_order_and_may_leave() {
    let store = store(4 * MIB, MIB);
    let holder = filled(&store, put(1, Some(3 * MIB)), &pattern(3 << 20)).await;
    let mut left = Box::pin(store.begin(put(2, Some(4 * MIB))));
    assert!(tokio::time::timeout(SECOND, &mut left).await.is_err());
    let mut tasks = JoinSet::new();
    let small = store.begin(put(3, Some(MIB)));
    tasks.spawn(async move { small.await.map(|_held| ()) });
    tokio::task::yield_now().await;
    assert_eq!(store.totals().waiters, 2, "the small one does not overtake");
    assert_eq!(
        store.begin(request(4, Some(10))).await.unwrap_err().code(),
        zipline_protocol::ErrorCode::BufferFull
    );
    drop(left);
    tasks.join_next().await.unwrap().unwrap().unwrap();
    let began = Instant::now();
    let late = store.begin(put(5, Some(4 * MIB))).await.unwrap_err();
    assert_eq!(late.code(), zipline_protocol::ErrorCode::BufferFull);
    assert_eq!(began.elapsed(), 5 * SECOND);
    drop(holder);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn an_accepted_waiter_that_nobody_hears_gives_its_memory_back() {
    let store = store(MIB, MIB / 4);
    let holder = filled(&store, put(1, Some(MIB)), &pattern(1 << 20)).await;
    let mut waiting = Box::pin(store.begin(put(2, Some(MIB))));
    assert!(tokio::time::timeout(SECOND, &mut waiting).await.is_err());
    drop(holder);
    assert_eq!(store.totals().payload_count, 1, "accepted while its future sleeps");
    drop(waiting);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn growing_puts_wait_for_memory_up_to_their_deadline() {
    let store = store(MIB, MIB / 4);
    let holder = filled(&store, put(1, Some(MIB / 2)), &pattern(1 << 19)).await;
    let (mut writer, guard) = store.begin(put(2, None)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        writer.write(pattern(600_000)).await.unwrap();
        writer
    });
    tokio::time::sleep(SECOND).await;
    drop(holder);
    let mut writer = tasks.join_next().await.unwrap().unwrap();
    let other = filled(&store, put(3, Some(100_000)), &pattern(100_000)).await;
    let began = Instant::now();
    let full = writer.write(pattern(400_000)).await.unwrap_err();
    assert_eq!(full.code(), zipline_protocol::ErrorCode::BufferFull);
    assert_eq!(began.elapsed(), 4 * SECOND, "what it waited before is counted");
    drop((writer, guard, other));
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn segments_are_recycled_and_give_way() {
    let store = store(MIB, MIB / 4);
    let address = |chunk: &Bytes| chunk.as_ptr() as usize;
    let guard = filled(&store, put(1, Some(SEGMENT)), &pattern(limits::SEGMENT)).await;
    let first = guard.reader_from_start().unwrap().next().await.unwrap().unwrap();
    let before = address(&first);
    drop(guard);
    assert_eq!(store.totals().warm_bytes, 0);
    drop(first);
    assert_eq!(store.totals().warm_bytes, SEGMENT);
    let guard = filled(&store, put(2, Some(SEGMENT)), &pattern(limits::SEGMENT)).await;
    let second = guard.reader_from_start().unwrap().next().await.unwrap().unwrap();
    assert_eq!(address(&second), before);
    drop((guard, second));
    let full = filled(&store, put(3, Some(MIB)), &pattern(1 << 20)).await;
    drop(full);
    assert_eq!(store.totals().warm_bytes, MIB);
    let odd = filled(&store, put(4, Some(1_000)), &pattern(1_000)).await;
    assert!(store.totals().allocated_bytes <= MIB, "warm memory gives way to used memory");
    store.keep_warm(0);
    assert_eq!(store.totals().allocated_bytes, 1_000);
    drop(odd);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn idle_warm_segments_are_given_back() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    tokio::task::yield_now().await;
    let two = 2 * limits::SEGMENT;
    drop(filled(&store, put(1, Some(2 * SEGMENT)), &pattern(two)).await);
    assert_eq!(store.snapshot().warm_bytes, 2 * SEGMENT);
    tokio::time::sleep(20 * SECOND).await;
    // Taking one keeps them all for another while; payloads without segments do not.
    drop(filled(&store, put(2, Some(SEGMENT)), &pattern(limits::SEGMENT)).await);
    tokio::time::sleep(20 * SECOND).await;
    drop(filled(&store, put(3, Some(10)), &pattern(10)).await);
    assert_eq!(store.snapshot().warm_bytes, 2 * SEGMENT);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(store.snapshot().warm_bytes, 2 * SEGMENT);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(store.snapshot().warm_bytes, 0);
    assert_eq!(store.snapshot().allocated_bytes, 0);
    // What comes back after a long time in use is warm for as long.
    let held = filled(&store, put(4, Some(SEGMENT)), &pattern(limits::SEGMENT)).await;
    tokio::time::sleep(40 * SECOND).await;
    drop(held);
    tokio::time::sleep(29 * SECOND).await;
    assert_eq!(store.snapshot().warm_bytes, SEGMENT);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(store.snapshot().warm_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn settled_tells_how_the_transfer_ended() {
    let store = store(4 * MIB, MIB);
    for (n, end, expected) in [(1, "acknowledge", Settled::Acknowledged), (2, "cancel", Settled::Cancelled)] {
        let guard = filled(&store, request(n, None), &pattern(10)).await;
        let _reader = store.lease(lease_of(n, 1, 0)).await.unwrap();
        let lease = LeaseId::from_bytes([1; 16]);
        match end {
            "cancel" => store.cancel(&id(n), &lease).unwrap(),
            _ => assert_eq!(store.acknowledge(&id(n), &lease).unwrap().unwrap().length, 10),
        }
        assert_eq!(guard.settled().await, expected);
    }
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn draining_caps_expiry_and_ends() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    let mut tasks = JoinSet::new();
    let drained = store.drained();
    tasks.spawn(async move {
        drained.await;
        Instant::now()
    });
    tokio::task::yield_now().await;
    filled(&store, put(1, Some(10)), &pattern(10)).await.keep();
    let began = Instant::now();
    store.drain(20 * SECOND);
    let capped = filled(&store, put(2, Some(10)), &pattern(10)).await;
    let expiry = capped.expiry().unwrap();
    assert_eq!((expiry.after, expiry.bound), (20 * SECOND, ExpiryBound::Drain));
    capped.keep();
    assert_eq!(tasks.join_next().await.unwrap().unwrap() - began, 20 * SECOND);
    assert_eq!(store.begin(put(3, Some(1))).await.unwrap_err(), BeginError::Draining);
    assert_eq!(store.lease(lease_of(1, 1, 0)).await.unwrap_err(), LeaseError::Draining);
    store.release(&id(1)).unwrap();
    store.drained().await;
    assert_empty(&store);
}

fn numbered(n: usize) -> LeaseRequest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
    LeaseRequest { lease: LeaseId::from_bytes(bytes), ..lease_of(1, 0, 0) }
}

#[tokio::test(start_paused = true)]
async fn an_address_has_only_so_many_leases() {
    let store = store(4 * MIB, MIB);
    let _expiry = driven(&store);
    let _guard = filled(&store, request(1, Some(10)), &pattern(10)).await;
    for n in 0..limits::LEASES_PER_PEER {
        store.lease(numbered(n)).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(store.lease(numbered(5_000)));
    tokio::task::yield_now().await;
    assert_eq!(store.totals().lease_waiters, 1);
    let elsewhere = LeaseRequest { peer: Ipv4Addr::new(10, 0, 0, 1).into(), ..numbered(6_000) };
    let _other = store.lease(elsewhere).await.unwrap();
    store.cancel(&id(1), &numbered(0).lease).unwrap();
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

// Nothing drives the expiry in the next tests, so that a wait runs out in the very step in which the ledger ends it.

#[tokio::test(start_paused = true)]
async fn a_lease_granted_as_its_wait_runs_out_is_taken() {
    let store = store(4 * MIB, MIB);
    let guard = filled(&store, request(1, Some(10)), &pattern(10)).await;
    let mut readers = Vec::new();
    for n in 0..limits::LEASES_PER_PEER {
        readers.push(store.lease(numbered(n)).await.unwrap());
    }
    let late = store.lease(numbered(5_000)).await.unwrap();
    assert_eq!(store.totals().leases, 1, "the others lapsed");
    assert_eq!(read_all(late).await.unwrap().len(), 10);

    // Held by leases that make progress, the wait ends with a refusal.
    let mut slow = Vec::new();
    for n in 0..limits::LEASES_PER_PEER - 1 {
        slow.push(store.lease(numbered(n)).await.unwrap());
    }
    let refused = tokio::join!(store.lease(numbered(6_000)), async {
        tokio::time::sleep(5 * SECOND).await;
        for reader in &mut slow {
            reader.next().await.unwrap().unwrap();
        }
        store.lease(numbered(5_000)).await.unwrap()
    });
    assert_eq!(refused.0.unwrap_err(), LeaseError::TooMany);
    drop((guard, readers, slow, refused.1));
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn a_lease_granted_as_its_waiter_leaves_is_given_back() {
    let store = store(4 * MIB, MIB);
    filled(&store, put(1, Some(10)), &pattern(10)).await.keep();
    let _first = store.lease(lease_of(1, 1, 0)).await.unwrap();
    let mut leaves = Box::pin(store.lease(lease_of(1, 2, 0)));
    assert!(tokio::time::timeout(SECOND, &mut leaves).await.is_err());
    tokio::time::advance(9 * SECOND).await;
    drop(leaves);
    assert_eq!(store.totals().leases, 0);
    let _third = store.lease(lease_of(1, 3, 0)).await.unwrap();
    store.release(&id(1)).unwrap();
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn a_payload_accepted_as_its_wait_runs_out_is_given_back() {
    // It waits for a slot, which comes free with the payload; memory comes free a moment later.
    let store = Store::new(StoreConfig { max_payloads: 1, ..StoreConfig::with_budget(MIB) });
    filled(&store, Spec { ttl: Some(5 * SECOND), ..put(1, Some(10)) }, &pattern(10)).await.keep();
    let full = store.begin(put(2, Some(10))).await.unwrap_err();
    assert_eq!(full.code(), zipline_protocol::ErrorCode::BufferFull);
    assert_empty(&store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_payloads_at_once_keep_the_budget() {
    let store = store(2 * MIB, MIB / 2);
    let _expiry = driven(&store);
    let mut tasks = JoinSet::new();
    for n in 0..60_u8 {
        let store = store.clone();
        tasks.spawn(async move {
            let length = 10_000 + usize::from(n) * 9_973;
            let bytes = pattern(length);
            let declared = (n % 2 == 0).then_some(length as u64);
            // Growing payloads that must be held whole could wait for one another; windows cannot.
            let spec =
                Spec { wait: Some(60 * SECOND), windowed: n % 2 == 1 || n % 3 == 0, ..put(n, declared) };
            let (mut writer, guard) = store.begin(spec).await.unwrap();
            let reader = store.lease(lease_of(n, 1, 0)).await.unwrap();
            let write = async {
                for chunk in bytes.chunks(30_011) {
                    writer.write(Bytes::copy_from_slice(chunk)).await?;
                }
                writer.finish(Vec::new())
            };
            let (written, read) = tokio::join!(write, read_all(reader));
            written.unwrap();
            assert!(read.unwrap() == bytes);
            drop(guard);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_missed_only_once_it_has_shown_no_life() {
    let store = store(4 * MIB, MIB);
    let limit = Duration::from_secs(3);
    let missed = async |guard: &PayloadGuard| {
        tokio::time::timeout(Duration::from_secs(60), guard.abandoned(limit)).await.is_ok()
    };
    // Nobody has come yet.
    let guard = filled(&store, request(1, None), &pattern(10)).await;
    assert!(!missed(&guard).await);
    // It takes no bytes, but lives.
    let mut reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
    let lease = LeaseId::from_bytes([1; 16]);
    let mut lost = std::pin::pin!(guard.abandoned(limit));
    for _ in 0..20 {
        assert!(tokio::time::timeout(Duration::from_secs(1), lost.as_mut()).await.is_err());
        store.alive(&id(1), &lease, 0).unwrap();
    }
    let last = Instant::now();
    lost.await;
    assert_eq!(last.elapsed(), limit);
    // Its lease has lapsed, so it takes it anew. Taking bytes is life, and whoever has acknowledged owes none.
    assert!(reader.next().await.unwrap().is_err());
    let mut reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
    reader.next().await.unwrap().unwrap();
    let taken = Instant::now();
    guard.abandoned(limit).await;
    assert_eq!(taken.elapsed(), limit);
    store.acknowledge(&id(1), &lease).unwrap();
    assert!(!missed(&guard).await);
    // A sender that pauses is not its receiver's silence.
    let (mut writer, growing) = store.begin(request(2, None)).await.unwrap();
    writer.write(Bytes::from_static(b"first")).await.unwrap();
    let mut reader = store.lease(lease_of(2, 2, 0)).await.unwrap();
    reader.next().await.unwrap().unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { reader.next().await });
    assert!(!missed(&growing).await);
}
