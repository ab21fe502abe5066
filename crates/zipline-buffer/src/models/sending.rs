//! Pages that sockets were handed: not written again before the peer has read them, whoever ends what first.
use loom::thread;
use zipline_segment::Pages;

use super::*;

/// The pages of payload `n`, and its reader.
fn sent(store: &Store, n: u8, lease: u8) -> (Pages, PayloadReader) {
    let mut reader = block_on(store.lease(lease_of(n, lease))).unwrap();
    let piece = block_on(reader.next_piece(usize::MAX)).unwrap().unwrap();
    let place = reader.queue(&piece).expect("a whole segment lies in a mapping");
    (place.mapping.traced().clone(), reader)
}

fn held(store: &Store, spec: Spec) -> crate::PayloadGuard {
    let (mut writer, guard) = block_on(store.begin(spec)).unwrap();
    block_on(writer.write(BYTES.clone())).unwrap();
    writer.finish(Vec::new()).unwrap();
    guard
}

/// Where a payload's bytes lie.
fn mapping(store: &Store, n: u8, lease: u8) -> u64 {
    let mut reader = block_on(store.lease(lease_of(n, lease))).unwrap();
    let piece = block_on(reader.next_piece(usize::MAX)).unwrap().unwrap();
    piece.place().unwrap().mapping.id()
}

#[test]
fn an_acknowledgement_against_a_release_and_the_next_payload() {
    explore(3, || {
        let store = store(4 * SEGMENT);
        let guard = held(&store, put(1, Some(SEGMENT)));
        let (pages, reader) = sent(&store, 1, 1);
        let receiver = {
            let store = store.clone();
            thread::spawn(move || {
                // The socket's pages reach the peer, which says so.
                pages.read_all();
                let _gone = store.acknowledge(&id(1), &lease_id(1));
            })
        };
        let releasing = {
            let store = store.clone();
            thread::spawn(move || {
                let _gone = store.release(&id(1));
                drop((reader, guard));
            })
        };
        // It may lie where the first one lay; writing it is what would be noticed.
        let second = held(&store, put(2, Some(SEGMENT)));
        receiver.join().unwrap();
        releasing.join().unwrap();
        drop(second);
        assert_empty(&store);
    });
}

#[test]
fn one_receivers_acknowledgement_says_nothing_about_another_one() {
    explore(3, || {
        let store = store(4 * SEGMENT);
        let guard = held(&store, Spec { retrievals: Retrievals::Unlimited, ..put(1, Some(SEGMENT)) });
        let first = mapping(&store, 1, 3);
        let readers = [sent(&store, 1, 1), sent(&store, 1, 2)];
        let receiver = {
            let store = store.clone();
            thread::spawn(move || {
                let _acknowledged = store.acknowledge(&id(1), &lease_id(1));
            })
        };
        let guarding = thread::spawn(move || drop(guard));
        let leaving = thread::spawn(move || drop(readers));
        [receiver, guarding, leaving].into_iter().for_each(|thread| thread.join().unwrap());
        let second = held(&store, put(2, Some(SEGMENT)));
        assert_ne!(mapping(&store, 2, 4), first, "a receiver has not said that it has read it");
        drop(second);
        assert_empty(&store);
    });
}

#[test]
fn what_was_read_and_let_go_is_used_again() {
    explore(3, || {
        let store = store(4 * SEGMENT);
        let guard = held(&store, put(1, Some(SEGMENT)));
        let first = mapping(&store, 1, 1);
        let (pages, reader) = sent(&store, 1, 1);
        let leaving = thread::spawn(move || drop(reader));
        pages.read_all();
        store.acknowledge(&id(1), &lease_id(1)).unwrap();
        drop(guard);
        leaving.join().unwrap();
        let second = held(&store, put(2, Some(SEGMENT)));
        assert_eq!(mapping(&store, 2, 2), first);
        drop(second);
        assert_empty(&store);
    });
}
