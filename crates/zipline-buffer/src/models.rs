//! Every order in which threads meet in payload memory, as far as a bound of preemptions allows (`make models`).
//!
//! A thread that waits for ever fails a model (nobody is left who could wake it), and so do two threads that touch the same page
//! without one having told the other, one of them writing. What else must hold stands in each.
mod budget;
mod ends;
mod growing;
mod sending;
mod warm;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use bytes::Bytes;
use zipline_protocol::{LeaseId, Retrievals, limits};

use crate::samples::{id, put};
use crate::{LeaseRequest, PayloadReader, ReadError, Spec, Store, StoreConfig};

const SECOND: Duration = Duration::from_secs(1);
const SEGMENT: u64 = limits::SEGMENT as u64;

/// As many bytes as a segment has.
static BYTES: LazyLock<Bytes> = LazyLock::new(|| vec![7; limits::SEGMENT].into());

/// Tries every order in which threads are preempted at most so often.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

struct Bell(loom::sync::Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Waits for `future` in this thread. Sometimes it is woken for nothing.
fn block_on<F: Future>(future: F) -> F::Output {
    let bell = Arc::new(Bell(loom::sync::Notify::new()));
    let waker = Arc::clone(&bell).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.0.wait(),
        }
    }
}

fn store(budget_bytes: u64) -> Store {
    let config =
        StoreConfig { window_bytes: 2, digest_max_bytes: 0, ..StoreConfig::with_budget(budget_bytes) };
    let store = Store::new(config);
    store.keep_warm(budget_bytes);
    store
}

fn lease_id(n: u8) -> LeaseId {
    LeaseId::from_bytes([n; 16])
}

fn lease_of(n: u8, lease: u8) -> LeaseRequest {
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    LeaseRequest { payload: id(n), lease: lease_id(lease), peer, from: 0, to: None }
}

/// Everything up to the end.
async fn read_all(reader: &mut PayloadReader) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next_piece(usize::MAX).await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// Nothing is held, nobody waits, and what is warm stays within the budget.
fn assert_empty(store: &Store) {
    let now = store.totals();
    assert_eq!((now.held_bytes, now.payload_count, now.leases), (0, 0, 0), "{now:?}");
    assert_eq!((now.waiters, now.lease_waiters), (0, 0), "{now:?}");
    assert_eq!(now.allocated_bytes, now.warm_bytes, "{now:?}");
    assert!(now.peak_bytes <= now.budget_bytes && now.warm_bytes <= now.budget_bytes, "{now:?}");
}
