//! Two functions with their queue-proxies and a gateway between them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::sync::SemaphorePermit;
use zipline_testkit::client::{Call, Protocol};
use zipline_testkit::function::TestFunction;
use zipline_testkit::gateway::PlainGateway;
use zipline_testkit::queue_proxy::{QueueProxy, QueueProxyConfig};
use zipline_testkit::relay::Relay;

use crate::turn;

/// The function that sends.
pub const SENDER: &str = "sender.default";
/// The function that receives.
pub const RECEIVER: &str = "receiver.default";

/// A request id that no other test uses.
#[must_use]
pub fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("r{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A sender and a receiver.
#[derive(Debug)]
pub struct Pair {
    /// Knows both functions.
    pub gateway: PlainGateway,
    /// The sender's function.
    pub sender_function: TestFunction,
    /// The receiver's function.
    pub function: TestFunction,
    /// The sender's queue-proxy.
    pub sender: QueueProxy,
    /// The receiver's queue-proxy.
    pub receiver: QueueProxy,
    /// Between whoever retrieves from the sender and the sender's data port.
    pub relay: Relay,
    /// Between whoever retrieves from the receiver and the receiver's data port.
    pub answer_relay: Relay,
    _turn: Option<SemaphorePermit<'static>>,
}

/// How the two queue-proxies are to be started.
#[derive(Debug)]
pub struct PairConfig {
    /// The sender's; it is told that the receiver opens references.
    pub sender: QueueProxyConfig,
    /// The receiver's.
    pub receiver: QueueProxyConfig,
}

impl Pair {
    /// Both in mode `on`.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(|_| {}).await
    }

    /// Both as `change` makes them.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start_with(change: impl FnOnce(&mut PairConfig)) -> Result<Self> {
        let turn = turn::ordinary().await;
        let mut pair = Self::start_in_turn(change).await?;
        pair._turn = Some(turn);
        Ok(pair)
    }

    /// The same for a test that already has its turn.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start_in_turn(change: impl FnOnce(&mut PairConfig)) -> Result<Self> {
        let gateway = PlainGateway::start().await?;
        let (sender_function, function) = (TestFunction::start().await?, TestFunction::start().await?);
        // The relays' ports stand in every reference, so they are there before the data ports that they lead to.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let (relay, answer_relay) = (Relay::start(nowhere).await?, Relay::start(nowhere).await?);
        let mut config = PairConfig {
            sender: QueueProxyConfig::new(SENDER, sender_function.address, gateway.address).told(&[RECEIVER]),
            receiver: QueueProxyConfig::new(RECEIVER, function.address, gateway.address),
        };
        config.sender.advertise = Some(relay.address);
        config.receiver.advertise = Some(answer_relay.address);
        change(&mut config);
        let receiver = QueueProxy::start_ready(config.receiver).await?;
        let sender = QueueProxy::start_ready(config.sender).await?;
        relay.set_target(sender.data());
        answer_relay.set_target(receiver.data());
        gateway.route(SENDER, sender.inbound());
        gateway.route(RECEIVER, receiver.inbound());
        Ok(Self { gateway, sender_function, function, sender, receiver, relay, answer_relay, _turn: None })
    }

    /// An invoke of the receiver by the sender, and its request id.
    #[must_use]
    pub fn invoke(&self, protocol: Protocol, path: &str) -> (String, Call) {
        self.invoke_by(protocol, http::Method::POST, path)
    }

    /// The same with any method.
    #[must_use]
    pub fn invoke_by(&self, protocol: Protocol, method: http::Method, path: &str) -> (String, Call) {
        let id = fresh_id();
        let call = self.sender.invoke(protocol, method, RECEIVER, path).header("x-request-id", &id);
        (id, call)
    }

    /// Waits until neither holds anything any more.
    ///
    /// # Errors
    /// One still does.
    pub async fn hold_nothing(&self) -> Result<()> {
        self.sender.holds_nothing().await?;
        self.receiver.holds_nothing().await?;
        Ok(())
    }
}
