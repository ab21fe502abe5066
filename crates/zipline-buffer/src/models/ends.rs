//! Payloads that end in several ways at once: one of them counts, everybody hears of it, and nothing stays behind.
use loom::thread;

use super::*;
use crate::error::{Gone, LeaseError, ReleaseError};
use crate::sync::time;
use crate::{PayloadPhase, Settled};

#[test]
fn a_put_against_its_release_its_expiry_and_a_getter_that_waits() {
    explore(2, || {
        let store = store(4);
        let mut expected = store.expectation();
        expected.add(id(1));
        let getter = {
            let store = store.clone();
            thread::spawn(move || match block_on(store.lease(lease_of(1, 1))) {
                Ok(mut reader) => match block_on(read_all(&mut reader)) {
                    Ok(bytes) => {
                        assert_eq!(bytes, b"abcd");
                        store.acknowledge(&id(1), &lease_id(1)).is_ok_and(|first| first.is_some())
                    }
                    Err(error) => {
                        let gone = matches!(error, ReadError::Gone(Gone::Released | Gone::Expired));
                        assert!(gone || matches!(error, ReadError::Lapsed { .. }), "{error}");
                        false
                    }
                },
                Err(error) => {
                    assert!(matches!(error, LeaseError::NotFound | LeaseError::Expired), "{error}");
                    false
                }
            })
        };
        let releasing = {
            let store = store.clone();
            thread::spawn(move || store.release(&id(1)))
        };
        let time = {
            let store = store.clone();
            thread::spawn(move || {
                time::advance(60 * SECOND);
                store.totals()
            })
        };
        let (mut writer, guard) = block_on(store.begin(put(1, Some(4)))).unwrap();
        expected.ends(&id(1));
        let settled = guard.settled();
        let written = block_on(writer.write(Bytes::from_static(b"abcd")));
        let finished = written.and_then(|()| writer.finish(Vec::new()));
        guard.keep();
        let delivered = getter.join().unwrap();
        let released = releasing.join().unwrap();
        time.join().unwrap();
        if finished.is_err() {
            assert_eq!(released, Ok(()), "only its release ends a payload that is being written");
        }
        // What has not ended yet does now.
        let left = store.info(&id(1)).map(|info| info.phase);
        assert!(left.is_none_or(|phase| phase == PayloadPhase::Held), "{left:?}");
        if left.is_some() {
            assert!(!delivered && released == Err(ReleaseError::NotFound));
            store.release(&id(1)).unwrap();
        }
        assert_eq!(block_on(settled) == Settled::Acknowledged, delivered, "one of both");
        assert_empty(&store);
    });
}

#[test]
fn the_one_retrieval_is_one_receivers() {
    explore(2, || {
        let store = store(4);
        let (mut writer, guard) = block_on(store.begin(put(1, Some(4)))).unwrap();
        block_on(writer.write(Bytes::from_static(b"abcd"))).unwrap();
        writer.finish(Vec::new()).unwrap();
        guard.keep();
        let getters = [1, 2].map(|lease| {
            let store = store.clone();
            thread::spawn(move || {
                let mut reader = match block_on(store.lease(lease_of(1, lease))) {
                    Ok(reader) => reader,
                    Err(error) => {
                        assert_eq!(error, LeaseError::Exhausted);
                        return 0;
                    }
                };
                assert_eq!(block_on(read_all(&mut reader)).unwrap(), b"abcd");
                drop(reader);
                store.acknowledge(&id(1), &lease_id(lease)).unwrap().expect("told of once");
                1
            })
        });
        let delivered: u32 = getters.into_iter().map(|getter| getter.join().unwrap()).sum();
        assert_eq!(delivered, 1);
        assert_empty(&store);
    });
}

#[test]
fn a_retrieval_that_is_given_up_is_the_next_ones_unless_its_time_is_over() {
    explore(2, || {
        let store = store(4);
        let (mut writer, guard) = block_on(store.begin(put(1, Some(4)))).unwrap();
        block_on(writer.write(Bytes::from_static(b"abcd"))).unwrap();
        writer.finish(Vec::new()).unwrap();
        drop(block_on(store.lease(lease_of(1, 1))).unwrap());
        let waiting = {
            let store = store.clone();
            thread::spawn(move || match block_on(store.lease(lease_of(1, 2))) {
                Ok(mut reader) => {
                    let read = block_on(read_all(&mut reader));
                    assert!(
                        matches!(read.as_deref(), Ok(b"abcd") | Err(ReadError::Lapsed { .. })),
                        "{read:?}"
                    );
                    drop(reader);
                    let told = store.acknowledge(&id(1), &lease_id(2));
                    assert!(read.is_err() || told.is_ok(), "{told:?}");
                }
                Err(error) => assert_eq!(error, LeaseError::Exhausted, "nobody gave it up in time"),
            })
        };
        let time = thread::spawn(|| time::advance(limits::LEASE_LAPSE));
        store.cancel(&id(1), &lease_id(1)).unwrap();
        waiting.join().unwrap();
        time.join().unwrap();
        drop(guard);
        assert_empty(&store);
    });
}
