//! Puts of unknown length that hold a part of the budget each and wait for one another.
use super::*;
use zipline_protocol::ErrorCode;

/// Writes 600,000 bytes in small pieces, everybody in turn, so that nobody's payload is whole when memory runs out.
async fn grow(store: Store, n: u8, wait: Duration) -> Result<PayloadGuard, (ErrorCode, Duration)> {
    let (mut writer, guard) = store.begin(Spec { wait: Some(wait), ..put(n, None) }).await.unwrap();
    let began = Instant::now();
    for chunk in pattern(600_000).chunks(10_000) {
        let written = writer.write(Bytes::copy_from_slice(chunk)).await;
        written.map_err(|error| (error.code(), began.elapsed()))?;
        tokio::task::yield_now().await;
    }
    writer.finish(Vec::new()).map_err(|error| (error.code(), began.elapsed()))?;
    Ok(guard)
}

async fn grown(store: &Store, waits: &[u32]) -> Vec<Result<PayloadGuard, (ErrorCode, Duration)>> {
    let mut tasks = JoinSet::new();
    for (n, wait) in (1..).zip(waits) {
        let put = grow(store.clone(), n, *wait * SECOND);
        tasks.spawn(async move { (n, put.await) });
    }
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(store.totals().waiters, waits.len(), "all of them wait");
    let mut ended = tasks.join_all().await;
    ended.sort_unstable_by_key(|(n, _)| *n);
    ended.into_iter().map(|(_, outcome)| outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn puts_that_wait_for_one_another_end_by_their_deadline() {
    let store = store(MIB, MIB / 4);
    let mut ended = grown(&store, &[5, 5, 5, 5]).await;
    // The last of them has what the others gave back.
    let last = ended.pop().unwrap().unwrap();
    for outcome in ended {
        assert_eq!(outcome.unwrap_err(), (ErrorCode::BufferFull, 5 * SECOND));
    }
    assert_eq!(store.totals().payload_count, 1);
    let read = read_all(store.lease(lease_of(4, 1, 0)).await.unwrap()).await.unwrap();
    assert_eq!(read, pattern(600_000));
    drop(last);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_up_lets_another_go_on() {
    let store = store(MIB, MIB / 4);
    let began = Instant::now();
    let ended = grown(&store, &[9, 1]).await;
    let failed: Vec<_> = ended.iter().map(|outcome| outcome.as_ref().err().copied()).collect();
    assert_eq!(failed, [None, Some((ErrorCode::BufferFull, SECOND))]);
    assert_eq!(began.elapsed(), SECOND, "nobody waits longer than for that");
    drop(ended);
    assert_empty(&store);
}

#[tokio::test(start_paused = true)]
async fn puts_that_are_given_up_while_they_wait_leave_nothing() {
    let store = store(MIB, MIB / 4);
    let mut tasks = JoinSet::new();
    for n in 1..4 {
        tasks.spawn(grow(store.clone(), n, 60 * SECOND));
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!((store.totals().waiters, store.totals().payload_count), (3, 3));
    tasks.shutdown().await;
    assert_empty(&store);
}
