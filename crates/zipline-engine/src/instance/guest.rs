//! Guests: a queue-proxy without a function, for a process that somebody else runs (`zipline run`).

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;
use zipline_protocol::FunctionName;

use crate::context::{Context, Guest};
use crate::keys::random_text;
use crate::logs::LogStream;

use super::environment::{self, LocalApi, QueueProxy};
use super::folder::InstanceFolder;
use super::run::{listening, start_queue_proxy};
use super::wind_down::{Parts, wind_down};
use super::{Instance, InstanceState};

/// A guest's queue-proxy did not come up.
#[derive(Debug, thiserror::Error)]
#[error("the guest's queue-proxy {what}; see `zipline logs {name}`")]
pub(crate) struct GuestError {
    name: String,
    what: String,
}

/// What a guest needs to know; the first line of the answer to `POST /v1/guests`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuestAccess {
    /// URL of the local API.
    pub api: String,
    /// Its token.
    pub token: String,
    /// Its Unix socket.
    pub socket: String,
    /// Variables to set for the guest's process: those of a function, but for the port.
    pub env: BTreeMap<String, String>,
}

/// Starts a guest's queue-proxy. It runs until `gone`, or the engine ends.
pub(crate) async fn start(
    context: &Arc<Context>,
    namespace: &str,
    gone: CancellationToken,
) -> Result<GuestAccess, GuestError> {
    let number = context.next_number();
    let name = format!("guest-{number}");
    let fail = |error: io::Error| GuestError { name: format!("guest.{namespace}"), what: error.to_string() };
    let function = FunctionName::new("guest", namespace).map_err(|error| fail(io::Error::other(error)))?;
    let log = context.logs.open(&function, &name);
    // The guest's process runs as whoever called, so its queue-proxy does too: it must reach the socket.
    let instance = Arc::new(Instance::new(number, name, None, log, context.state.instance(number)));
    let folder = InstanceFolder::make(instance.folder.clone(), None).map_err(fail)?;
    let socket = folder.socket();
    let token = random_text().map_err(|error| fail(io::Error::other(error)))?;
    let env = environment::of_queue_proxy(
        &context.config,
        &QueueProxy {
            namespace,
            function: None,
            instance: &instance.name,
            socket: &socket,
            host: &context.state.host(),
            reuse: context.trust.reuse(),
            token: &token,
            gateway: context.gateway,
        },
    );
    let (queue_proxy, channel) = start_queue_proxy(context, &instance, namespace, env).map_err(fail)?;
    let mut parts = Parts { queue_proxy, channel, function: None, folder };
    let addresses = match listening(&mut parts, &gone).await {
        Ok(Some(addresses)) => addresses,
        Ok(None) => return Err(fail(io::Error::other("was not waited for"))),
        Err(error) => return Err(fail(error)),
    };
    instance.change(|facts| facts.addresses = Some(addresses));
    instance.advance(InstanceState::Ready);

    let api = LocalApi { address: addresses.api, socket: &socket, token: &token };
    let env = environment::local_api(&api, context.config.proxy_env, None);
    let text = |value: &std::ffi::OsString| value.to_string_lossy().into_owned();
    let access = GuestAccess {
        api: format!("http://{}", addresses.api),
        token: token.clone(),
        socket: socket.to_string_lossy().into_owned(),
        env: env.iter().map(|(name, value)| (text(name), text(value))).collect(),
    };
    context.guests.lock().push(Guest { function: function.to_string(), instance: instance.clone() });
    let (tasks, for_task, guest) = (context.tasks.clone(), context.clone(), instance.clone());
    let ending = tasks.token();
    tasks.spawn("guest", async move {
        let broken = loop {
            tokio::select! {
                () = gone.cancelled() => break false,
                () = ending.cancelled() => break false,
                message = parts.channel.next() => if !matches!(message, Ok(Some(_))) { break true },
            }
        };
        if broken {
            for_task.logs.write(&guest.log, LogStream::Engine, "the guest's queue-proxy is gone".into());
        }
        // Whoever still retrieves what the guest put gets the same grace as anyone.
        wind_down(&for_task, &guest, parts, for_task.config.grace).await;
        for_task.guests.lock().retain(|other| other.instance.number != guest.number);
    });
    Ok(access)
}
