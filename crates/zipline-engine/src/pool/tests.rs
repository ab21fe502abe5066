use futures_util::FutureExt;
use zipline_protocol::ErrorCode;

use super::*;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A slot, if one can be had at once.
fn now(pool: &Arc<Pool>, avoid: &[u64]) -> Option<Slot> {
    pool.acquire(avoid).now_or_never().map(Result::unwrap)
}

#[test]
fn requests_spread_by_what_is_in_flight() {
    let pool = Pool::new(0, 10);
    for id in 0..3 {
        pool.add(id, address(1));
        pool.set_ready(id, true);
    }
    let slots: Vec<_> = (0..9).map(|_| now(&pool, &[]).unwrap()).collect();
    for id in 0..3 {
        assert_eq!(pool.in_flight(id), 3);
    }
    drop(slots);
    assert_eq!((0..3).map(|id| pool.in_flight(id)).sum::<usize>(), 0);
}

#[test]
fn ready_instances_come_first() {
    let pool = Pool::new(0, 10);
    pool.add(0, address(1));
    pool.add(1, address(2));
    pool.set_ready(1, true);
    let slots: Vec<_> = (0..3).map(|_| now(&pool, &[]).unwrap().instance()).collect();
    assert_eq!(slots, [1, 1, 1]);
}

#[test]
fn the_concurrency_limit_holds_and_the_queue_is_fair() {
    let pool = Pool::new(1, 10);
    pool.add(0, address(1));
    let first = now(&pool, &[]).unwrap();
    let mut second = Box::pin(pool.acquire(&[]));
    let mut third = Box::pin(pool.acquire(&[]));
    assert!((&mut second).now_or_never().is_none());
    assert!((&mut third).now_or_never().is_none());
    assert_eq!((pool.held(), pool.in_flight(0)), (2, 1));
    drop(first);
    assert!((&mut third).now_or_never().is_none(), "overtook");
    let second = (&mut second).now_or_never().unwrap().unwrap();
    drop(second);
    assert!((&mut third).now_or_never().unwrap().is_ok());
}

#[test]
fn a_slot_sent_to_someone_who_left_is_not_lost() {
    let pool = Pool::new(1, 10);
    pool.add(0, address(1));
    let first = now(&pool, &[]).unwrap();
    let mut left = Box::pin(pool.acquire(&[]));
    assert!((&mut left).now_or_never().is_none());
    drop(first);
    // The slot is in its channel now; it leaves without looking.
    assert_eq!(pool.in_flight(0), 1);
    drop(left);
    assert_eq!((pool.in_flight(0), pool.held()), (0, 0));
}

#[test]
fn the_queue_is_bounded() {
    let pool = Pool::new(0, 1);
    let mut held = Box::pin(pool.acquire(&[]));
    assert!((&mut held).now_or_never().is_none());
    let refused = pool.acquire(&[]).now_or_never().unwrap();
    assert!(matches!(refused, Err(HoldError::Full { held_max: 1 })));
    drop(held);
    assert!(pool.acquire(&[]).now_or_never().is_none());
}

#[test]
fn those_who_wait_learn_of_failure_only_if_nobody_is_left() {
    let pool = Pool::new(1, 10);
    let failure = Arc::new(Failure { code: ErrorCode::UpstreamFailed, message: "it broke".into() });
    pool.add(0, address(1));
    let slot = now(&pool, &[]).unwrap();
    let mut held = Box::pin(pool.acquire(&[]));
    assert!((&mut held).now_or_never().is_none());
    pool.fail_waiting(&failure);
    assert!((&mut held).now_or_never().is_none());
    pool.retire(0);
    pool.fail_waiting(&failure);
    assert!(matches!((&mut held).now_or_never(), Some(Err(HoldError::Failed(_)))));
    drop(slot);
    assert!(pool.inner.lock().members.is_empty());
}

#[test]
fn an_avoided_instance_does_not_block_the_others() {
    let pool = Pool::new(0, 10);
    pool.add(0, address(1));
    let mut elsewhere = Box::pin(pool.acquire(&[0]));
    assert!((&mut elsewhere).now_or_never().is_none());
    assert_eq!(now(&pool, &[]).unwrap().instance(), 0);
    pool.add(1, address(2));
    assert_eq!((&mut elsewhere).now_or_never().unwrap().unwrap().instance(), 1);
    pool.close();
    assert!(matches!(pool.acquire(&[]).now_or_never(), Some(Err(HoldError::Closed))));
}
