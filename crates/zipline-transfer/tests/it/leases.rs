use crate::rig::{Rig, drain, hasty, pattern, retrieve, until};
use futures_util::future::join_all;
use zipline_protocol::{ErrorCode, Retrievals};
use zipline_transfer::RetrieveOptions;

#[tokio::test]
async fn a_spent_payload_is_refused() {
    let rig = Rig::new();
    let bytes = pattern(1000);
    let record = rig.hold_n(&bytes, Retrievals::Limited(1)).await;
    let retriever = rig.retriever();
    retrieve(&retriever, &record, RetrieveOptions::default()).await.unwrap();
    let error = retriever.start(&record, RetrieveOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RetrievalsExhausted);
    assert_eq!(rig.store.snapshot().held_bytes, 0);
}

#[tokio::test]
async fn a_dropped_retrieval_frees_its_lease_at_once() {
    let rig = Rig::new();
    let bytes = pattern(3 << 20);
    let record = rig.hold_n(&bytes, Retrievals::Limited(1)).await;
    let retriever = rig.retriever();
    let mut first = retriever.start(&record, RetrieveOptions::default()).await.unwrap();
    first.ready().await.unwrap();
    // The second waits for the only lease; had it to lapse first, its holder would have been silent for too long.
    let second = retrieve(&retriever, &record, RetrieveOptions::default());
    let give_up = async {
        until(|| rig.store.snapshot().lease_waiters == 1).await;
        drop(first);
    };
    let (second, ()) = tokio::join!(second, give_up);
    assert!(second.unwrap() == bytes);
}

#[tokio::test]
async fn whoever_waits_for_a_lease_waits_longer_than_a_silent_holder_would_get() {
    let rig = Rig::new();
    let bytes = pattern(1000);
    let record = rig.hold_n(&bytes, Retrievals::Limited(1)).await;
    let holding = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    let retriever = rig.retriever_with(hasty());
    let waiting = retrieve(&retriever, &record, RetrieveOptions::default());
    let signs_of_life = async {
        // The request for the lease, then signs of life: four of them are more silence than a dead holder would get.
        let before = rig.monitor.stats().proven_requests;
        until(|| rig.monitor.stats().proven_requests >= before + 5).await;
        holding.cancel();
    };
    let (arrived, ()) = tokio::join!(waiting, signs_of_life);
    assert!(arrived.unwrap() == bytes);
}

#[tokio::test]
async fn acknowledging_is_idempotent() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(1000)).await;
    let mut retrieval = rig.retriever().start(&record, RetrieveOptions::default()).await.unwrap();
    let lease = retrieval.lease();
    drain(&mut retrieval).await;
    retrieval.acknowledge().await.unwrap();
    for _ in 0..3 {
        let status = crate::port::ask(&rig, "acknowledge", &record.payload, &lease, 0, None).await;
        assert!(status.starts_with("HTTP/1.1 204"), "{status}");
    }
    assert_eq!(rig.retrievals_left(&record), Some(4));
}

#[tokio::test]
async fn sixty_four_leases_in_parallel() {
    let rig = Rig::new();
    let bytes = pattern(700_000);
    let record = rig.hold_n(&bytes, Retrievals::Limited(64)).await;
    let retriever = rig.retriever();
    let all = (0..64).map(|_| retrieve(&retriever, &record, RetrieveOptions::default()));
    for arrived in join_all(all).await {
        assert!(arrived.unwrap() == bytes);
    }
    assert!(retriever.idle_connections() <= 32, "idle connections are bounded");
    until(|| rig.store.snapshot().held_bytes == 0).await;
    assert_eq!(rig.leases(), 0);
}

#[tokio::test]
async fn stopping_the_owner_closes_idle_connections_and_the_port() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(1000)).await;
    let retriever = rig.retriever();
    retrieve(&retriever, &record, RetrieveOptions::default()).await.unwrap();
    assert_eq!(retriever.idle_connections(), 1);
    rig.tasks.cancel();
    until(|| retriever.idle_connections() == 0 && rig.monitor.stats().open_connections == 0).await;
    let error = retriever.start(&record, RetrieveOptions::default()).await.unwrap_err();
    assert!(error.before_first_byte());
}
