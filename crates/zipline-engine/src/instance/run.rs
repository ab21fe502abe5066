//! One instance of a function, from its start to the decision that it is over.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use zipline_protocol::ErrorCode;
use zipline_protocol::control::QueueProxyMessage;

use crate::context::{Context, Counts};
use crate::function::Function;
use crate::keys::random_text;
use crate::logs::LogStream;

use super::channel::Channel;
use super::environment::{self, LocalApi, QueueProxy};
use super::folder::{InstanceFolder, ReservedPort, is_taken};
use super::launch::{Launch, Process};
use super::wind_down::{Parts, wind_down};
use super::{Addresses, Failure, Instance, InstanceState};

/// A queue-proxy binds its sockets at once; longer means that it is stuck.
pub(super) const LISTEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Why an instance is over.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was asked to.
    Retired,
    /// Another one has to take its place.
    Failed {
        /// How long it had been ready.
        up: Duration,
        /// It only lost a race for its port: no reason to wait.
        port_taken: bool,
    },
}

/// What the watch over a running instance saw.
enum Event {
    Retired,
    Failed { code: ErrorCode, what: String, function_ended: bool },
}

/// Runs one instance until it is retired or fails. Its end after a failure goes on as a task of its own, so that the next
/// instance need not wait for it.
///
/// # Cancel safety
/// Dropped, both processes are killed at once.
pub(crate) async fn run(
    context: &Arc<Context>,
    function: &Arc<Function>,
    retire: &CancellationToken,
) -> Ended {
    let number = context.next_number();
    let manifest = &function.manifest;
    let name = format!("{}-{number}", manifest.revision);
    let log = context.logs.open(&manifest.name, &name);
    let user = context.trust.user(number);
    let instance = Arc::new(Instance::new(number, name, user, log, context.state.instance(number)));
    function.add(instance.clone());
    Counts::add(&context.counts.started);
    let mut port = 0;
    let mut parts = None;
    let event = match bring_up(context, function, &instance, retire, &mut port, &mut parts).await {
        Ok(true) => match parts.as_mut() {
            Some(parts) => watch(context, function, &instance, parts, retire).await,
            None => Event::Retired,
        },
        Ok(false) => Event::Retired,
        Err(error) => Event::Failed {
            code: ErrorCode::UpstreamFailed,
            what: format!("could not be started: {error}"),
            function_ended: false,
        },
    };

    function.pool.retire(number);
    match event {
        Event::Retired => {
            if let Some(parts) = parts {
                wind_down(context, &instance, parts, context.config.grace).await;
            }
            instance.advance(InstanceState::Ended);
            function.remove(number);
            Ended::Retired
        }
        Event::Failed { code, what, function_ended } => {
            let ready_since = instance.facts().ready_since;
            let up = ready_since.map_or(Duration::ZERO, |since| since.elapsed());
            let port_taken = function_ended && ready_since.is_none() && port != 0 && is_taken(port);
            let failure = Arc::new(Failure { code, message: describe(function, &instance, &what) });
            tracing::warn!(function = %manifest.name, instance = %instance.name, what, "instance failed");
            context.logs.write(&instance.log, LogStream::Engine, what);
            Counts::add(&context.counts.failed);
            instance.change(|facts| facts.failure = Some(failure.clone()));
            function.failed(&instance, &failure, port_taken);
            if let Some(mut parts) = parts {
                if function_ended {
                    parts.function = None;
                }
                // Before the function was ready no request can have reached it and nothing is held: what waits in the
                // queue-proxy is answered by the gateway, which knows why. Afterwards the queue-proxy finishes.
                let grace = if ready_since.is_some() { context.config.grace } else { Duration::ZERO };
                let (context, function) = (context.clone(), function.clone());
                let tasks = context.tasks.clone();
                tasks.spawn("instance end", async move {
                    wind_down(&context, &instance, parts, grace).await;
                    function.remove(instance.number);
                });
            } else {
                instance.advance(InstanceState::Ended);
                function.remove(number);
            }
            Ended::Failed { up, port_taken }
        }
    }
}

fn describe(function: &Function, instance: &Instance, what: &str) -> String {
    let name = &function.manifest.name;
    format!("function {name}: {what}; see `zipline logs {name}` or {}", instance.log.path().display())
}

/// Starts both processes. False: it was retired meanwhile. What was started is left in `parts`, whatever comes.
async fn bring_up(
    context: &Arc<Context>,
    function: &Arc<Function>,
    instance: &Arc<Instance>,
    retire: &CancellationToken,
    port: &mut u16,
    parts: &mut Option<Parts>,
) -> io::Result<bool> {
    let manifest = &function.manifest;
    let reserved = ReservedPort::take()?;
    *port = reserved.port();
    let folder = InstanceFolder::make(instance.folder.clone(), instance.user)?;
    let (socket, token) = (folder.socket(), random_text().map_err(io::Error::other)?);
    let namespace = manifest.name.namespace();
    let env = environment::of_queue_proxy(
        &context.config,
        &QueueProxy {
            namespace,
            function: Some((manifest, *port)),
            instance: &instance.name,
            socket: &socket,
            host: &context.state.host(),
            reuse: context.trust.reuse(),
            token: &token,
            gateway: context.gateway,
        },
    );
    let (queue_proxy, channel) = start_queue_proxy(context, instance, namespace, env)?;
    let parts = parts.insert(Parts { queue_proxy, channel, function: None, folder });
    let Some(addresses) = listening(parts, retire).await? else { return Ok(false) };
    instance.change(|facts| {
        facts.addresses = Some(addresses);
        facts.function_port = Some(*port);
    });
    instance.advance(InstanceState::Listening);
    let inbound = addresses.inbound.ok_or_else(|| io::Error::other("its queue-proxy takes no requests"))?;
    // From now on requests may come: their retrieval overlaps the function's start.
    function.pool.add(instance.number, inbound);

    let api = LocalApi { address: addresses.api, socket: &socket, token: &token };
    let mut env = environment::of_function(&context.config, manifest, *port, &api);
    if instance.user.is_some() && !manifest.container.env.iter().any(|(name, _)| name == "HOME") {
        // The engine's own home is closed to it.
        env.push(("HOME".into(), parts.folder.path().into()));
    }
    drop(reserved);
    let launch = Launch {
        what: format!("function {} ({})", manifest.name, instance.name),
        program: &function.program,
        args: environment::words(manifest, *port),
        env,
        working_dir: manifest.container.working_dir.clone(),
        user: instance.user,
        stdin: Stdio::null(),
    };
    let mut process = launch.start(context)?;
    instance.change(|facts| facts.function_pid = Some(process.pid()));
    let (stdout, stderr) = process.output();
    if let Some(stdout) = stdout {
        pump(context, instance, LogStream::Stdout, stdout);
    }
    if let Some(stderr) = stderr {
        pump(context, instance, LogStream::Stderr, stderr);
    }
    parts.function = Some(process);
    Ok(true)
}

/// Starts a queue-proxy with its control channel.
pub(super) fn start_queue_proxy(
    context: &Arc<Context>,
    instance: &Arc<Instance>,
    tenant: &str,
    env: environment::Environment,
) -> io::Result<(Process, Channel)> {
    let keys = context.keys.subscribe(tenant).map_err(io::Error::other)?;
    let (channel, stdin) = Channel::pair(keys, tenant, &context.receivers)?;
    let launch = Launch {
        what: format!("queue-proxy of {}", instance.name),
        program: &context.config.programs.queue_proxy,
        args: Vec::new(),
        env,
        working_dir: Path::new("/").to_path_buf(),
        user: instance.user,
        stdin,
    };
    let mut process = launch.start(context)?;
    instance.change(|facts| facts.queue_proxy_pid = Some(process.pid()));
    if let (_, Some(stderr)) = process.output() {
        pump(context, instance, LogStream::QueueProxy, stderr);
    }
    Ok((process, channel))
}

/// Waits until the queue-proxy listens. None: retired meanwhile.
pub(super) async fn listening(
    parts: &mut Parts,
    retire: &CancellationToken,
) -> io::Result<Option<Addresses>> {
    let wait = async {
        loop {
            tokio::select! {
                () = retire.cancelled() => return Ok(None),
                ended = parts.queue_proxy.ended() => return Err(io::Error::other(format!("its queue-proxy {ended}"))),
                message = parts.channel.next() => match message? {
                    Some(QueueProxyMessage::Listening { inbound, api, data, admin }) => {
                        return Ok(Some(Addresses { inbound, api, data, admin }));
                    }
                    Some(_) => {}
                    None => {
                        let ended = parts.queue_proxy.ended().await;
                        return Err(io::Error::other(format!("its queue-proxy {ended}")));
                    }
                },
            }
        }
    };
    timeout(LISTEN_TIMEOUT, wait).await.unwrap_or_else(|_| {
        let seconds = LISTEN_TIMEOUT.as_secs();
        Err(io::Error::other(format!("its queue-proxy did not listen within {seconds} s")))
    })
}

/// Watches a running instance until something ends it.
async fn watch(
    context: &Arc<Context>,
    function: &Arc<Function>,
    instance: &Arc<Instance>,
    parts: &mut Parts,
    retire: &CancellationToken,
) -> Event {
    let ready_timeout = context.config.ready_timeout;
    let deadline = Instant::now() + ready_timeout;
    let mut was_ready = false;
    let Parts { queue_proxy, channel, function: process, .. } = parts;
    let Some(process) = process else { return Event::Retired };
    let failed = |what: String, function_ended: bool| Event::Failed {
        code: ErrorCode::UpstreamFailed,
        what,
        function_ended,
    };
    loop {
        tokio::select! {
            () = retire.cancelled() => return Event::Retired,
            ended = process.ended() => {
                let when = if was_ready { "" } else { " before it was ready" };
                return failed(format!("its process {ended}{when}"), true);
            }
            ended = queue_proxy.ended() => return failed(format!("its queue-proxy {ended}"), false),
            message = channel.next() => match message {
                Ok(Some(QueueProxyMessage::Ready)) => {
                    was_ready = true;
                    instance.advance(InstanceState::Ready);
                    function.pool.set_ready(instance.number, true);
                    let after = instance.started.elapsed();
                    tracing::info!(function = %function.manifest.name, instance = %instance.name, ?after, "ready");
                }
                Ok(Some(QueueProxyMessage::NotReady)) => {
                    instance.advance(InstanceState::Listening);
                    function.pool.set_ready(instance.number, false);
                }
                Ok(Some(_)) => {}
                Ok(None) => return failed("its queue-proxy closed the control channel".into(), false),
                Err(error) => return failed(format!("the control channel of its queue-proxy broke: {error}"), false),
            },
            () = sleep_until(deadline), if !was_ready => {
                return Event::Failed {
                    code: ErrorCode::DeadlineExceeded,
                    what: format!(
                        "did not become ready within {} s of its start: it must answer on the port that PORT names (raise --ready-timeout if it needs longer)",
                        ready_timeout.as_secs()
                    ),
                    function_ended: false,
                };
            }
        }
    }
}

fn pump(
    context: &Arc<Context>,
    instance: &Arc<Instance>,
    stream: LogStream,
    from: impl tokio::io::AsyncRead + Unpin + Send + 'static,
) {
    let (for_task, log) = (context.clone(), instance.log.clone());
    context.log_tasks.spawn("instance log", async move { for_task.logs.pump(&log, stream, from).await });
}
