//! A budget that several want at once: never more than all of it, and whoever waits is served or gives up, not both.
use loom::thread;

use super::*;
use crate::error::BeginError;
use crate::sync::time;
use crate::{Charge, InFlight};

/// Whether it was served within its time.
fn served(granted: Result<Charge, BeginError>, store: &Store) -> bool {
    let now = store.totals();
    assert!(now.held_bytes <= now.budget_bytes && now.allocated_bytes <= now.budget_bytes, "{now:?}");
    match granted {
        Ok(_) => true,
        Err(BeginError::BufferFull { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn whoever_waits_for_memory_is_served_when_there_is_some() {
    explore(2, || {
        let store = store(4);
        let others = [3, 2].map(|bytes| {
            let store = store.clone();
            thread::spawn(move || {
                let granted = block_on(store.grant(bytes, Some(SECOND)));
                assert!(served(granted, &store), "no time passes");
            })
        });
        let (mut writer, guard) = block_on(store.begin(put(1, Some(4)))).unwrap();
        block_on(writer.write(Bytes::from_static(b"abcd"))).unwrap();
        drop((writer, guard));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_empty(&store);
    });
}

#[test]
fn whoever_gives_up_waiting_has_nothing() {
    explore(2, || {
        let store = store(4);
        let charge = block_on(store.grant(4, None)).unwrap();
        let granting = {
            let store = store.clone();
            thread::spawn(move || served(block_on(store.grant(3, Some(SECOND))), &store))
        };
        let beginning = {
            let store = store.clone();
            thread::spawn(move || {
                match block_on(store.begin(Spec { wait: Some(SECOND), ..put(1, Some(2)) })) {
                    Ok(_) => {}
                    Err(error) => assert!(matches!(error, BeginError::BufferFull { .. }), "{error}"),
                }
            })
        };
        let time = thread::spawn(|| time::advance(SECOND));
        drop(charge);
        granting.join().unwrap();
        beginning.join().unwrap();
        time.join().unwrap();
        assert_empty(&store);
    });
}

#[test]
fn a_growing_payload_waits_for_memory_or_for_its_time() {
    explore(2, || {
        let store = store(20_000);
        let charge = block_on(store.grant(10_000, None)).unwrap();
        let (mut writer, guard) = block_on(store.begin(put(1, Some(10_000)))).unwrap();
        let growing = {
            let store = store.clone();
            thread::spawn(move || {
                let Ok((mut writer, _guard)) = block_on(store.begin(put(2, None))) else { return };
                let written = block_on(writer.write(Bytes::from_static(b"ab")));
                assert!(written.is_ok(), "it was promised memory");
            })
        };
        block_on(writer.write(Bytes::from_static(b"ab"))).unwrap();
        drop((writer, guard));
        drop(charge);
        growing.join().unwrap();
        assert_empty(&store);
    });
}

#[test]
fn bytes_in_flight_are_never_more_than_the_budget() {
    explore(2, || {
        let budget = InFlight::new(3 * 1_024);
        let others = [2, 3].map(|units: u64| {
            let budget = budget.clone();
            thread::spawn(move || {
                let permit = block_on(budget.acquire(units * 1_024)).unwrap();
                assert!(
                    budget.used_bytes() >= permit.bytes() && budget.used_bytes() <= budget.budget_bytes()
                );
            })
        });
        drop(block_on(budget.acquire(2 * 1_024)).unwrap());
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!((budget.used_bytes(), budget.waiters()), (0, 0));
    });
}
