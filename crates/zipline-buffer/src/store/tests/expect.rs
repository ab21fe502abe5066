use super::*;

#[tokio::test(start_paused = true)]
async fn a_receiver_waits_for_a_payload_that_is_expected() {
    let store = store(MIB, MIB);
    let mut expected = store.expectation();
    expected.add(id(1));
    let early = asked(&store);
    tokio::task::yield_now().await;
    let bytes = pattern(1_000);
    filled(&store, put(1, Some(1_000)), &bytes).await.keep();
    assert!(expected.ends(&id(1)));
    let reader = early.outcome().await.unwrap();
    assert_eq!(read_all(reader).await.unwrap(), bytes);
    assert!(!expected.ends(&id(1)), "a second put of it would not be expected");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_waits_as_long_as_the_put_waits_for_memory() {
    let store = store(MIB, MIB);
    let full = store.grant(MIB, None).await.unwrap();
    let mut expected = store.expectation();
    expected.add(id(1));
    let early = asked(&store);
    let bytes = pattern(1_000);
    let puts = async {
        let spec = Spec { wait: Some(limits::PUT_WAIT_DEFAULT), ..put(1, Some(1_000)) };
        filled(&store, spec, &bytes).await.keep();
        assert!(expected.ends(&id(1)));
    };
    let frees = async {
        tokio::time::sleep(limits::PUT_WAIT_DEFAULT - Duration::from_millis(1)).await;
        drop(full);
    };
    tokio::join!(puts, frees);
    let reader = early.outcome().await.unwrap();
    assert_eq!(read_all(reader).await.unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn a_release_waits_for_a_payload_that_is_expected() {
    let store = store(MIB, MIB);
    let mut expected = store.expectation();
    expected.add(id(1));
    expected.add(id(2));
    let arrives = async {
        tokio::task::yield_now().await;
        filled(&store, put(1, Some(1_000)), &pattern(1_000)).await.keep();
        expected.ends(&id(1));
    };
    let (released, ()) = tokio::join!(store.release_expected(id(1)), arrives);
    assert_eq!(released, Ok(()));
    assert_eq!(store.totals().held_bytes, 0);
    let began = Instant::now();
    assert_eq!(store.release_expected(id(2)).await, Err(ReleaseError::NotFound));
    assert_eq!(began.elapsed(), limits::LEASE_LAPSE);
    assert_eq!(store.release_expected(id(3)).await, Err(ReleaseError::NotFound));
    assert_eq!(began.elapsed(), limits::LEASE_LAPSE, "nobody waits for what is not expected");
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded_and_ends_with_the_expectation() {
    let store = store(MIB, MIB);
    let mut expected = store.expectation();
    expected.add(id(1));
    let began = Instant::now();
    assert_eq!(store.lease(lease_of(1, 1, 0)).await.err(), Some(LeaseError::NotFound));
    assert_eq!(began.elapsed(), limits::LEASE_LAPSE);
    let waiting = asked(&store);
    tokio::task::yield_now().await;
    drop(expected);
    assert_eq!(waiting.outcome().await.err(), Some(LeaseError::NotFound));
    assert_eq!(began.elapsed(), limits::LEASE_LAPSE, "nobody waits for what is not expected any more");
    assert_eq!(store.lease(lease_of(2, 1, 0)).await.err(), Some(LeaseError::NotFound));
    assert_eq!(began.elapsed(), limits::LEASE_LAPSE);
}

/// A lease that is asked for at once, by somebody else.
fn asked(store: &Store) -> Asked {
    let mut tasks = JoinSet::new();
    tasks.spawn(store.lease(lease_of(1, 1, 0)));
    Asked(tasks)
}

struct Asked(JoinSet<Result<PayloadReader, LeaseError>>);

impl Asked {
    async fn outcome(mut self) -> Result<PayloadReader, LeaseError> {
        self.0.join_next().await.unwrap().unwrap()
    }
}
