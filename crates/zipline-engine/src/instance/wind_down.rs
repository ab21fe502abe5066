//! The end of an instance: its queue-proxy finishes, then its function is asked to end, then both are made to.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, timeout_at};
use zipline_protocol::control::QueueProxyMessage;

use crate::context::{Context, Counts};

use super::channel::Channel;
use super::folder::InstanceFolder;
use super::launch::Process;
use super::{Instance, InstanceState};

/// A function gets at least this long between SIGTERM and SIGKILL, however long its queue-proxy took.
const TERMINATE_AT_LEAST: Duration = Duration::from_secs(2);

/// The processes of an instance and what belongs to them.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) queue_proxy: Process,
    pub(super) channel: Channel,
    /// None before it was started, for guests, and once it has ended.
    pub(super) function: Option<Process>,
    pub(super) folder: InstanceFolder,
}

/// Ends an instance within about `grace` + 2 s. With no grace its queue-proxy is killed at once.
pub(super) async fn wind_down(
    context: &Arc<Context>,
    instance: &Instance,
    mut parts: Parts,
    grace: Duration,
) {
    instance.advance(InstanceState::Draining);
    let deadline = Instant::now() + grace;
    // Requests in flight and held payloads end first: their function and its egress must live until then.
    if !grace.is_zero() && parts.channel.drain(grace).await.is_ok() {
        let finished = async {
            loop {
                match parts.channel.next().await {
                    Ok(Some(QueueProxyMessage::Drained) | None) | Err(_) => return,
                    Ok(Some(_)) => {}
                }
            }
        };
        let _ = timeout_at(deadline, async {
            tokio::select! {
                () = finished => {}
                _ = parts.queue_proxy.ended() => {}
            }
        })
        .await;
    }
    if let Some(mut function) = parts.function.take() {
        function.signal(Signal::TERM);
        let latest = deadline.max(Instant::now() + TERMINATE_AT_LEAST);
        if timeout_at(latest, function.ended()).await.is_err() {
            tracing::warn!(instance = %instance.name, "the function did not end after SIGTERM and is killed");
            Counts::add(&context.counts.killed);
            function.signal(Signal::KILL);
            function.ended().await;
        }
    }
    parts.queue_proxy.signal(Signal::KILL);
    parts.queue_proxy.ended().await;
    drop(parts.folder);
    instance.change(|facts| {
        facts.queue_proxy_pid = None;
        facts.function_pid = None;
    });
    instance.advance(InstanceState::Ended);
}
