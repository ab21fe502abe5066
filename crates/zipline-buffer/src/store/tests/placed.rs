//! Payloads in mappings: reserved and committed by the writer itself, adopted, and read with the place they lie at.
use zipline_segment::{HugePages, Mapping, SegmentMut};

use super::*;

async fn read_pieces(reader: &mut PayloadReader, most: usize) -> (Vec<u8>, usize) {
    let (mut bytes, mut placed) = (Vec::new(), 0);
    while let Some(piece) = reader.next_piece(most).await {
        let piece = piece.unwrap();
        assert!(!piece.is_empty() && piece.len() <= most);
        if let Some(place) = piece.place() {
            placed += piece.len();
            let mut again = vec![0; piece.len()];
            read_file(place, &mut again);
            assert_eq!(*again, *piece, "the file shows what the mapping shows");
        }
        bytes.extend_from_slice(&piece);
    }
    (bytes, placed)
}

fn read_file(place: zipline_segment::Place<'_>, into: &mut [u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::from(place.fd().try_clone_to_owned().unwrap());
    file.read_exact_at(into, place.offset).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_writer_filled_by_itself_is_the_payload() {
    for length in [10, 300_000, 5_000_000] {
        let store = store(16 * MIB, MIB);
        let spec = put(1, Some(length as u64));
        let request = lease_of(1, 1, 0);
        let (mut writer, guard) = store.begin(spec).await.unwrap();
        let wanted = pattern(length);
        let mut done = 0;
        while done < length {
            let mut spare = writer.reserve(100_000).await.unwrap();
            assert!(!spare.is_empty() && spare.len() <= length - done);
            // Sockets seldom fill what they are given.
            let some = spare.len().min(70_001);
            spare[..some].copy_from_slice(&wanted[done..done + some]);
            writer.commit(spare, some).unwrap();
            done += some;
        }
        assert!(matches!(writer.reserve(1).await, Err(WriteError::TooLong { .. })), "it is all there");
        let complete = writer.finish(Vec::new()).unwrap();
        assert_eq!(complete.length, length as u64);
        guard.keep();
        let mut reader = store.lease(request).await.unwrap();
        let (bytes, placed) = read_pieces(&mut reader, usize::MAX).await;
        assert!(bytes == wanted, "{length} bytes");
        let small = length % zipline_protocol::limits::SEGMENT;
        assert_eq!(placed, length - small, "whole blocks lie where the kernel can send them from");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spare_that_was_lost_leaves_no_payload() {
    let store = store(4 * MIB, MIB);
    let (mut writer, _guard) = store.begin(put(1, Some(300_000))).await.unwrap();
    drop(writer.reserve(10).await.unwrap());
    assert!(matches!(writer.write(Bytes::from_static(b"x")).await, Err(WriteError::Torn)));
    assert!(matches!(writer.finish(Vec::new()), Err(WriteError::Torn)));
}

#[tokio::test(start_paused = true)]
async fn adopted_bytes_are_held_without_a_copy_and_charged_once() {
    let store = store(4 * MIB, MIB);
    let charge = store.grant(MIB, None).await.unwrap();
    let mut segment = SegmentMut::whole(Mapping::create(1 << 20, HugePages::Off).unwrap(), None);
    segment.copy_from_slice(&pattern(1 << 20));
    let bytes = segment.freeze();
    let spec = put(1, None);
    let request = lease_of(1, 1, 0);
    let (complete, guard) = store.adopt(spec, bytes.clone()).unwrap();
    guard.keep();
    assert_eq!((complete.length, store.totals().held_bytes), (MIB, MIB));
    let mut reader = store.lease(request).await.unwrap();
    let piece = reader.next_piece(usize::MAX).await.unwrap().unwrap();
    assert_eq!((piece.len(), piece.as_ptr()), (1 << 20, bytes.as_ptr()));
    assert!(reader.next_piece(1).await.is_none());
    drop((reader, piece));
    store.acknowledge(&request.payload, &request.lease).unwrap();
    assert_eq!(store.totals().payload_count, 0, "spent");
    assert_eq!(store.totals().held_bytes, MIB, "the memory is still granted");
    drop(charge);
    assert_eq!(store.totals().held_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn grants_wait_in_turn_and_end_with_the_drain() {
    let store = store(MIB, MIB);
    let first = store.grant(MIB, None).await.unwrap();
    assert!(matches!(store.grant(1, None).await, Err(BeginError::BufferFull { .. })));
    assert!(matches!(store.grant(MIB + 1, None).await, Err(BeginError::TooLarge { .. })));
    let mut waiting = Box::pin(store.grant(MIB, Some(10 * SECOND)));
    assert!(tokio::time::timeout(SECOND, &mut waiting).await.is_err(), "it waits");
    assert_eq!(store.totals().waiters, 1);
    drop(first);
    let second = waiting.await.unwrap();
    assert_eq!(second.bytes(), MIB);
    let error = store.grant(1, Some(SECOND)).await.unwrap_err();
    assert!(matches!(error, BeginError::BufferFull { wanted_bytes: 1, .. }), "{error}");
    let mut refused = Box::pin(store.grant(1, Some(10 * SECOND)));
    assert!(tokio::time::timeout(SECOND, &mut refused).await.is_err(), "it waits");
    store.drain(Duration::ZERO);
    let driver = store.run_expiry();
    tokio::select! {
        () = driver => unreachable!("it never resolves"),
        refused = refused => assert!(matches!(refused, Err(BeginError::Draining))),
    }
}

#[tokio::test(start_paused = true)]
async fn memory_that_a_socket_has_is_used_again_after_the_acknowledgement_and_never_without() {
    for acknowledged in [true, false] {
        let store = store(8 * MIB, MIB);
        let bytes = pattern(2 * limits::SEGMENT);
        filled(&store, put(1, Some(bytes.len() as u64)), &bytes).await.keep();
        let lease = lease_of(1, 1, 0);
        let mut reader = store.lease(lease).await.unwrap();
        while let Some(piece) = reader.next_piece(10_000).await {
            let piece = piece.unwrap();
            assert!(reader.queue(&piece).is_some(), "a put is kept whole");
        }
        drop(reader);
        if acknowledged {
            store.acknowledge(&lease.payload, &lease.lease).unwrap();
        } else {
            store.release(&lease.payload).unwrap();
        }
        assert_eq!(store.totals().held_bytes, 0);
        let warm = store.totals().warm_bytes;
        assert_eq!(warm, if acknowledged { 2 * SEGMENT } else { 0 }, "acknowledged: {acknowledged}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_is_copied_to_sockets() {
    let store = store(32 * MIB, 8 * MIB);
    let (mut writer, guard) = store.begin(request(1, Some(100 * MIB))).await.unwrap();
    writer.write(pattern(4 << 20)).await.unwrap();
    let mut reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
    let mut mapped = 0;
    while reader.position() < writer.written() {
        let piece = reader.next_piece(usize::MAX).await.unwrap().unwrap();
        mapped += usize::from(piece.place().is_some());
        assert!(reader.queue(&piece).is_none(), "it may be let go before it was read");
    }
    assert!(mapped > 0, "some of it lies in a mapping");
    drop((reader, writer, guard));
}

/// Gives its share back with the memory it stands for.
struct Granted(#[expect(dead_code, reason = "its drop is what is wanted of it")] Charge);

impl zipline_segment::Home for Granted {
    fn returned(self: Box<Self>, _mapping: Mapping) {}
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_dropped_full_leaves_nothing() {
    let store = store(16 * MIB, MIB);
    filled(&store, put(1, Some(5_000_000)), &pattern(5_000_000)).await.keep();
    filled(&store, put(2, Some(10)), &pattern(10)).await.keep();
    let (mut writer, guard) = store.begin(put(3, None)).await.unwrap();
    writer.write(pattern(100_000)).await.unwrap();
    let charge = store.grant(MIB, None).await.unwrap();
    let mapping = Mapping::create(1 << 20, HugePages::Off).unwrap();
    let segment = SegmentMut::whole(mapping, Some(Box::new(Granted(charge))));
    store.adopt(put(4, None), segment.freeze()).unwrap().1.keep();
    let mut reader = store.lease(lease_of(1, 1, 0)).await.unwrap();
    let piece = reader.next_piece(usize::MAX).await.unwrap().unwrap();
    let small = store.lease(lease_of(2, 1, 0)).await.unwrap().next_piece(10).await.unwrap().unwrap();
    let shared = std::sync::Arc::downgrade(&store.shared);
    drop((store, writer, guard));
    assert!(shared.upgrade().is_some(), "a reader keeps what it reads");
    assert_eq!(reader.next_piece(1).await.unwrap().unwrap().len(), 1);
    drop(reader);
    assert!(shared.upgrade().is_none(), "payloads keep the store that holds them");
    assert_eq!(*piece, pattern(5_000_000)[..piece.len()], "what is still looked at stays");
    assert_eq!(*small, pattern(10)[..]);
}
