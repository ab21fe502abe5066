//! Memory that grants find with its pages.
use super::*;

/// Runs what the owner of a store runs, until `done`.
async fn driving(store: &Store, mut done: impl FnMut() -> bool) {
    let (prepare, expiry) = (store.run_prepare(), store.run_expiry());
    let until = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = prepare => unreachable!("it never resolves"),
        () = expiry => unreachable!("it never resolves"),
        () = until => {}
    }
}

fn warm(store: &Store) -> u64 {
    store.totals().warm_bytes
}

#[tokio::test]
async fn the_next_grant_finds_its_pages() {
    let store = store(16 * MIB, MIB);
    let first = store.grant(2 * MIB, None).await.unwrap();
    assert!(first.prepared().is_none(), "nothing is there before the first");
    store.keep_warm(MIB);
    driving(&store, || warm(&store) == 2 * MIB).await;
    let second = store.grant(2 * MIB, None).await.unwrap();
    let mapping = second.prepared().unwrap();
    assert_eq!((mapping.capacity(), mapping.touched_bytes()), (2 << 20, 2 << 20));
    assert_eq!((warm(&store), store.totals().held_bytes), (0, 4 * MIB));
    driving(&store, || warm(&store) == 2 * MIB).await;
    let other = store.grant(MIB, None).await.unwrap();
    assert!(other.prepared().is_none(), "one of another size");
    drop((first, second, other, mapping));
    assert_eq!(store.totals().held_bytes, 0);
}

#[tokio::test]
async fn what_is_prepared_gives_way_and_is_bounded() {
    let store = store(4 * MIB, MIB);
    store.keep_warm(MIB);
    let first = store.grant(2 * MIB, None).await.unwrap();
    assert!(first.prepared().is_none());
    driving(&store, || warm(&store) == 2 * MIB).await;
    assert_eq!(store.totals().allocated_bytes, 4 * MIB, "used and warm, within the budget");
    let rest = store.grant(2 * MIB, None).await.unwrap();
    assert_eq!((warm(&store), store.totals().allocated_bytes), (0, 4 * MIB));
    drop((first, rest));
    let large = store.grant(3 * MIB, None).await.unwrap();
    assert!(large.prepared().is_none());
    let small = store.grant(MIB / 2, None).await.unwrap();
    assert!(small.prepared().is_none());
    driving(&store, || warm(&store) == MIB / 2).await;
    drop(large);
    filled(&store, put(1, Some(3 * MIB)), &pattern(3 << 20)).await.keep();
    assert!(store.totals().allocated_bytes <= 4 * MIB);
}

#[tokio::test]
async fn what_nobody_takes_goes() {
    let store = store(16 * MIB, MIB);
    let grant = store.grant(MIB, None).await.unwrap();
    assert!(grant.prepared().is_none());
    driving(&store, || warm(&store) == MIB).await;
    tokio::time::pause();
    let began = Instant::now();
    let gone = async {
        while warm(&store) > 0 {
            tokio::time::advance(SECOND).await;
        }
    };
    tokio::select! {
        () = store.run_expiry() => unreachable!("it never resolves"),
        () = gone => {}
    }
    let waited = began.elapsed();
    assert!((29 * SECOND..=32 * SECOND).contains(&waited), "{waited:?}");
}
