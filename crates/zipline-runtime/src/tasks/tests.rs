use std::future::pending;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_task_gives_its_output_and_is_no_longer_counted() {
    let tasks = Tasks::new();
    let task = tasks.spawn("answer", async { 42 });
    assert_eq!(tasks.len(), 1);
    assert_eq!(task.await, Ok(42));
    assert!(tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_tasks_end_by_themselves_within_the_grace() {
    let tasks = Tasks::new();
    let token = tasks.token();
    let task = tasks.spawn("orderly", async move {
        token.cancelled().await;
        sleep(Duration::from_secs(2)).await;
        "done"
    });
    let started = Instant::now();
    assert_eq!(tasks.shutdown(Duration::from_secs(10)).await, 0);
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(task.await, Ok("done"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_aborts_what_is_left_after_the_grace_and_says_how_many() {
    let tasks = Tasks::new();
    let (held, dropped) = oneshot::channel::<()>();
    let stubborn = tasks.spawn("stubborn", async move {
        let _held = held;
        pending::<()>().await;
    });
    drop(tasks.child().spawn("stubborn child", pending::<()>()));
    let kept = tasks.child();
    drop(kept.spawn("second stubborn child", pending::<()>()));
    let started = Instant::now();
    assert_eq!(tasks.shutdown(Duration::from_secs(3)).await, 2);
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    assert_eq!(stubborn.await, Err(TaskEnded::Aborted));
    assert!(dropped.await.is_err(), "the future was dropped");
    assert!(tasks.is_empty() && kept.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_child_ends_without_its_parent_but_not_the_other_way_round() {
    let parent = Tasks::new();
    let (child, sibling) = (parent.child(), parent.child());
    let other = sibling.spawn("sibling", pending::<()>());
    let own = child.spawn("own", pending::<()>());
    assert_eq!((parent.len(), child.len()), (2, 1));
    assert_eq!(child.shutdown(Duration::ZERO).await, 1);
    assert_eq!(own.await, Err(TaskEnded::Aborted));
    assert!(!other.is_finished() && !sibling.token().is_cancelled());
    assert_eq!(parent.shutdown(Duration::ZERO).await, 1);
    assert!(sibling.token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_task_only_and_is_counted() {
    let tasks = Tasks::new();
    let child = tasks.child();
    let bad: Task<()> = child.spawn("bad", async { panic!("on purpose") });
    let good = tasks.spawn("good", async { 1 });
    assert_eq!(bad.await, Err(TaskEnded::Panicked));
    assert_eq!(good.await, Ok(1));
    assert_eq!((tasks.panics(), child.panics()), (1, 1));
    assert_eq!(tasks.shutdown(Duration::ZERO).await, 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_owner_aborts_its_tasks() {
    let tasks = Tasks::new();
    let task = tasks.spawn("orphan", pending::<()>());
    let token = tasks.token();
    drop(tasks.clone());
    assert!(!token.is_cancelled());
    drop(tasks);
    assert_eq!(task.await, Err(TaskEnded::Aborted));
}

#[tokio::test(start_paused = true)]
async fn an_owned_task_ends_with_its_value_and_a_detached_one_does_not() {
    let tasks = Tasks::new();
    drop(tasks.spawn("detached", pending::<()>()));
    let owned = tasks.spawn_owned("owned", pending::<()>());
    tokio::task::yield_now().await;
    assert_eq!(tasks.len(), 2);
    drop(owned);
    tokio::task::yield_now().await;
    assert_eq!(tasks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_after_the_owner_was_aborted() {
    let tasks = Tasks::new();
    drop(tasks.spawn("stubborn", pending::<()>()));
    assert_eq!(tasks.shutdown(Duration::ZERO).await, 1);
    assert_eq!(tasks.spawn("late", async { 1 }).await, Err(TaskEnded::Aborted));
}
