//! Payloads that are read while they fill: whoever waits is woken, and sees what was written and nothing else.
use loom::thread;
use zipline_protocol::data::FinalRecord;
use zipline_segment::{HugePages, Mapping, SegmentBytes, SegmentMut};

use super::*;
use crate::error::Gone;

fn readers<const N: usize>(
    store: &Store,
    check: fn(Result<Vec<u8>, ReadError>),
) -> [thread::JoinHandle<()>; N] {
    std::array::from_fn(|lease| {
        let lease = u8::try_from(lease).unwrap();
        let mut reader = block_on(store.lease(lease_of(1, lease))).unwrap();
        thread::spawn(move || check(block_on(read_all(&mut reader))))
    })
}

fn growing() -> Spec {
    Spec { retrievals: Retrievals::Unlimited, ..put(1, None) }
}

#[test]
fn readers_of_a_growing_payload_see_all_of_it() {
    explore(2, || {
        let store = store(SEGMENT);
        let (mut writer, guard) = block_on(store.begin(growing())).unwrap();
        let readers: [_; 2] = readers(&store, |read| assert_eq!(read.unwrap(), b"abc"));
        block_on(writer.write(Bytes::from_static(b"ab"))).unwrap();
        let mut spare = block_on(writer.reserve(1)).unwrap();
        spare[0] = b'c';
        writer.commit(spare, 1).unwrap();
        writer.finish(Vec::new()).unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        drop(guard);
        assert_empty(&store);
    });
}

#[test]
fn readers_of_a_mapping_see_what_was_written_of_it() {
    explore(2, || {
        let store = store(2 * SEGMENT);
        let spec = Spec { length: Some(SEGMENT), ..growing() };
        let (mut writer, guard) = block_on(store.begin(spec)).unwrap();
        let readers: [_; 2] = readers(&store, |read| assert_eq!(read.unwrap(), *BYTES));
        let half = limits::SEGMENT / 2;
        block_on(writer.write(BYTES.slice(..half))).unwrap();
        let mut spare = block_on(writer.reserve(half)).unwrap();
        spare.copy_from_slice(&BYTES[half..]);
        writer.commit(spare, half).unwrap();
        writer.finish(Vec::new()).unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        drop(guard);
        assert_empty(&store);
    });
}

#[test]
fn readers_of_a_payload_that_ends_early_are_told() {
    explore(3, || {
        let store = store(SEGMENT);
        let (mut writer, guard) = block_on(store.begin(growing())).unwrap();
        let readers: [_; 2] = readers(&store, |read| assert_eq!(read, Err(ReadError::Gone(Gone::Aborted))));
        block_on(writer.write(Bytes::from_static(b"ab"))).unwrap();
        drop(writer);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        drop(guard);
        assert_empty(&store);
    });
}

#[test]
fn the_writer_of_a_window_waits_for_its_reader_and_is_woken() {
    explore(3, || {
        let store = store(4);
        let spec = Spec { windowed: true, length: Some(4), ..growing() };
        // The budget is used by others but for the window.
        let others = block_on(store.grant(2, None)).unwrap();
        let (mut writer, guard) = block_on(store.begin(spec)).unwrap();
        let readers: [_; 1] = readers(&store, |read| assert_eq!(read.unwrap(), b"abcd"));
        block_on(writer.write(Bytes::from_static(b"abcd"))).unwrap();
        writer.finish(Vec::new()).unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        drop((guard, others));
        assert_empty(&store);
    });
}

fn memory(bytes: &[u8]) -> SegmentBytes {
    let mut segment = SegmentMut::whole(Mapping::create(bytes.len(), HugePages::Off).unwrap(), None);
    segment.truncate(bytes.len());
    segment.copy_from_slice(bytes);
    segment.freeze()
}

#[test]
fn a_copy_fills_from_two_places_while_it_is_read() {
    explore(2, || {
        let store = store(0);
        let copy = Arc::new(store.copy(id(1), 4, SECOND).unwrap());
        let all = memory(b"abcd");
        let (first, rest) = (all.slice(..2), all.slice(2..));
        drop(all);
        let readers: [_; 1] = readers(&store, |read| assert_eq!(read.unwrap(), b"abcd"));
        let filling = Arc::clone(&copy);
        let ahead = thread::spawn(move || assert!(filling.add(2, rest)));
        assert!(copy.add(0, first));
        ahead.join().unwrap();
        assert!(copy.finish(FinalRecord { length: 4, digest: None, trailers: Vec::new() }));
        assert_eq!(store.info(&id(1)).unwrap().length, Some(4), "of all its bytes");
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        store.release(&id(1)).unwrap();
        assert_empty(&store);
    });
}

#[test]
fn an_adopted_payload_is_read_by_whoever_waits_for_it() {
    explore(2, || {
        let store = store(4);
        let charge = block_on(store.grant(4, None)).unwrap();
        let mut expected = store.expectation();
        expected.add(id(1));
        let getter = {
            let store = store.clone();
            thread::spawn(move || {
                let mut reader = block_on(store.lease(lease_of(1, 1))).unwrap();
                assert_eq!(block_on(read_all(&mut reader)).unwrap(), b"abcd");
                assert!(block_on(reader.completed()).is_ok());
                store.acknowledge(&id(1), &lease_id(1)).unwrap().expect("the first to tell of it");
            })
        };
        let (complete, guard) = store.adopt(put(1, None), memory(b"abcd")).unwrap();
        assert!(expected.ends(&id(1)) && complete.length == 4);
        guard.keep();
        getter.join().unwrap();
        drop(charge);
        assert_empty(&store);
    });
}
