use crate::relay::{Fault, Relay};
use crate::rig::{MIB, Rig, drain, hasty, pattern, retrieve, until};
use zipline_protocol::ErrorCode;
use zipline_transfer::{RetrieveErrorKind, RetrieveOptions};

#[tokio::test]
async fn a_cut_connection_is_resumed_wherever_it_was_cut() {
    let rig = Rig::new();
    let bytes = pattern(300 * 1024);
    // Into the head, into the first and last segments, into the final record, and in the midst of a chunk's size.
    for cut in
        [1, 40, 250, 300, 400, 1000, 65_536, 262_144, 262_530, 262_700, 300_000, 307_300, 307_500, 307_640]
    {
        let record = rig.hold(&bytes).await;
        let relay = Relay::new(rig.address, vec![Fault::Cut(cut)], Fault::Pass).await;
        let mut through = record.clone();
        through.addresses = vec![relay.address];
        let arrived = retrieve(&rig.retriever(), &through, RetrieveOptions::default()).await;
        assert!(arrived.unwrap() == bytes, "cut after {cut}");
        assert_eq!(rig.retrievals_left(&record), Some(4), "cut after {cut}");
        assert_eq!(rig.leases(), 0, "cut after {cut}");
    }
}

#[tokio::test]
async fn several_cuts_in_one_retrieval_are_resumed_as_long_as_bytes_come() {
    let rig = Rig::new();
    let bytes = pattern(2 * MIB);
    let record = rig.hold(&bytes).await;
    let relay = Relay::new(rig.address, vec![Fault::Cut(300_000); 6], Fault::Pass).await;
    let mut through = record.clone();
    through.addresses = vec![relay.address];
    let arrived = retrieve(&rig.retriever(), &through, RetrieveOptions::default()).await.unwrap();
    assert!(arrived == bytes);
    assert_eq!(relay.accepted(), 7);
    assert_eq!(
        rig.retrievals_left(&record),
        Some(4),
        "one acknowledgement, whatever the number of connections"
    );
}

#[tokio::test]
async fn connections_that_bring_nothing_are_tried_three_times() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(2 * MIB)).await;
    let relay = Relay::new(rig.address, vec![Fault::Cut(300_000)], Fault::Cut(20)).await;
    let mut through = record.clone();
    through.addresses = vec![relay.address];
    let mut retrieval = rig.retriever().start(&through, RetrieveOptions::default()).await.unwrap();
    let (arrived, error) = drain(&mut retrieval).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), &RetrieveErrorKind::Broken { attempts: 3 });
    assert_eq!(error.code(), ErrorCode::PayloadLost);
    assert!(arrived.len() < 300_000 && error.received_bytes() >= arrived.len() as u64);
    assert_eq!(relay.accepted(), 3);
}

#[tokio::test]
async fn a_holder_that_never_answers_to_the_end_of_a_head_is_given_up() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(1000)).await;
    let relay = Relay::new(rig.address, Vec::new(), Fault::Cut(20)).await;
    let mut through = record.clone();
    through.addresses = vec![relay.address];
    let error = rig.retriever().start(&through, RetrieveOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), &RetrieveErrorKind::Broken { attempts: 3 });
    assert!(error.before_first_byte());
    // The lease may have been granted: it is given back, so far as the way there allows.
    until(|| relay.accepted() == 4).await;
}

#[tokio::test]
async fn a_stalled_connection_is_left_for_another() {
    let rig = Rig::new();
    let bytes = pattern(300 * 1024);
    let record = rig.hold(&bytes).await;
    let relay = Relay::new(rig.address, vec![Fault::Stall(100_000)], Fault::Pass).await;
    let mut through = record.clone();
    through.addresses = vec![relay.address];
    let arrived = retrieve(&rig.retriever_with(hasty()), &through, RetrieveOptions::default()).await.unwrap();
    assert!(arrived == bytes);
}

#[tokio::test]
async fn a_silent_holder_is_given_up() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(300 * 1024)).await;
    // From the first byte, and in the midst of the payload.
    for first in [Fault::Stall(0), Fault::Stall(100_000)] {
        let relay = Relay::new(rig.address, vec![first], Fault::Stall(0)).await;
        let mut through = record.clone();
        through.addresses = vec![relay.address];
        let error =
            retrieve(&rig.retriever_with(hasty()), &through, RetrieveOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), &RetrieveErrorKind::Stalled { after: hasty().progress_timeout });
        assert_eq!(error.code(), ErrorCode::PayloadLost);
    }
}

#[tokio::test]
async fn a_sender_that_pauses_is_waited_for_while_its_holder_lives() {
    let rig = Rig::new();
    let (record, mut writer, _guard) = rig.grow().await;
    let relay = Relay::new(rig.address, Vec::new(), Fault::Pass).await;
    let mut through = record.clone();
    through.addresses = vec![relay.address];
    let mut retrieval =
        rig.retriever_with(hasty()).start(&through, RetrieveOptions::default()).await.unwrap();
    writer.write(pattern(1000)).await.unwrap();
    retrieval.ready().await.unwrap();
    let pause = async {
        // Four signs of life are more silence than a dead holder would get.
        until(|| relay.accepted() >= 5).await;
        writer.write(pattern(1000)).await.unwrap();
        writer.finish(Vec::new()).unwrap();
    };
    let ((arrived, error), ()) = tokio::join!(drain(&mut retrieval), pause);
    assert!(error.is_none(), "{error:?}");
    assert!(arrived == [pattern(1000), pattern(1000)].concat());
}

#[tokio::test]
async fn a_holder_that_forgot_the_payload_ends_a_resumption() {
    let rig = Rig::new();
    let record = rig.hold(&pattern(2 * MIB)).await;
    let relay = Relay::new(rig.address, vec![Fault::Cut(300_000)], Fault::Pass).await;
    let mut through = record.clone();
    through.addresses = vec![relay.address];
    let mut retrieval = rig.retriever().start(&through, RetrieveOptions::default()).await.unwrap();
    retrieval.ready().await.unwrap();
    rig.store.release(&record.payload).unwrap();
    let (arrived, error) = drain(&mut retrieval).await;
    assert!(arrived.len() < 300_000);
    assert_eq!(error.unwrap().code(), ErrorCode::PayloadLost);
}
