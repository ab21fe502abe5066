//! HTTP/1.1: one request at a time per connection.
//!
//! A connection is *busy* (its [`Connection`] is with the response body), *idle* (in the pool) or *finishing* (the
//! response is over, the request body is not; with the connection's task). Its task ends, and with it the connection,
//! when nobody holds the [`Connection`] any more.

use super::error::SendError;
use super::exchange::{Exchange, Finish, request_body, response_body};
use super::request::{Replay, for_http1};
use super::socket::{ClientIo, Probe, Queue};
use super::target::HostPort;
use super::{Inner, Open, broke_before_response};
use crate::body::Body;
use crate::hop;
use crate::serve::{HTTP1_BUFFER_BYTES, Informational};
use http::header::EXPECT;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// How long a request body may go on after its response is over before the connection is closed.
const FINISH_GRACE: Duration = Duration::from_millis(50);
/// Looks at idle connections per idle timeout, so that they are closed at most a quarter late.
pub(super) const IDLE_CHECKS: u32 = 4;

/// How long an idle connection may take to become ready for its next request.
const READY_WAIT: Duration = Duration::from_millis(100);
/// Targets without an idle connection that keep their place in the pool: making it anew for each request costs more.
const EMPTY_TARGETS: usize = 64;

pub(super) struct Connection {
    sender: SendRequest<Body>,
    probe: Probe,
    signal: mpsc::Sender<Signal>,
}

enum Signal {
    Finishing(Connection),
    Upgraded,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Idle connections by target, the most recently used last.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<HostPort, VecDeque<Idle>>>,
}

impl Pool {
    pub(super) fn close_idle(&self) {
        // Dropped after the lock is released: dropping wakes tasks.
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    /// Whether there was one.
    pub(super) fn close_longest_idle(&self) -> bool {
        let longest = {
            let mut idle = self.idle.lock();
            let addr = idle
                .iter()
                .filter_map(|(addr, idle)| idle.front().map(|idle| (idle.since, addr)))
                .min_by_key(|(since, _)| *since)
                .map(|(_, addr)| addr.clone());
            addr.and_then(|addr| idle.get_mut(&addr).and_then(VecDeque::pop_front))
        };
        longest.is_some()
    }

    fn put(&self, addr: &HostPort, connection: Connection, max_idle: usize) {
        let mut idle = self.idle.lock();
        let of_target = match idle.get_mut(addr) {
            Some(of_target) => of_target,
            None => idle.entry(addr.clone()).or_default(),
        };
        of_target.push_back(Idle { connection, since: Instant::now() });
        let surplus = (of_target.len() > max_idle).then(|| of_target.pop_front());
        drop(idle);
        drop(surplus);
    }

    fn take(&self, addr: &HostPort) -> Option<Idle> {
        let mut idle = self.idle.lock();
        let of_target = idle.get_mut(addr)?;
        let last = of_target.pop_back();
        if of_target.is_empty() && idle.len() > EMPTY_TARGETS {
            idle.remove(addr);
        }
        last
    }

    fn close_older_than(&self, addr: &HostPort, age: Duration) {
        let mut idle = self.idle.lock();
        let Some(of_target) = idle.get_mut(addr) else { return };
        let old = of_target.iter().take_while(|idle| idle.since.elapsed() >= age).count();
        let old: Vec<Idle> = of_target.drain(..old).collect();
        if of_target.is_empty() {
            idle.remove(addr);
        }
        drop(idle);
        drop(old);
    }
}

pub(super) async fn send(
    inner: &Arc<Inner>,
    addr: &HostPort,
    mut request: Request<Body>,
) -> Result<Response<Body>, SendError> {
    for_http1(&mut request, addr)?;
    let mut may_reuse = true;
    loop {
        let replay = Replay::of(&request);
        let idle = if may_reuse { take_ready(inner, addr, replay.is_some()).await } else { None };
        let Some(connection) = idle else {
            let connection = open(inner, addr).await?;
            return exchange(inner, addr, connection, request).await.map_err(|failure| failure.error);
        };
        match exchange(inner, addr, connection, request).await {
            Ok(response) => {
                inner.reused.fetch_add(1, Ordering::Relaxed);
                return Ok(response);
            }
            Err(Failure { unsent: Some(unsent), .. }) => request = unsent,
            Err(Failure { error, unsent: None }) => match replay {
                Some(replay) if !error.is_request_body() => {
                    request = replay.into_request();
                    may_reuse = false;
                }
                _ => return Err(error),
            },
        }
        inner.resent.fetch_add(1, Ordering::Relaxed);
    }
}

/// An idle connection whose peer has not closed it, as far as this host knows; for a request that can be sent again, as far
/// as its reactor knows.
async fn take_ready(inner: &Inner, addr: &HostPort, again: bool) -> Option<Connection> {
    while let Some(Idle { mut connection, since }) = inner.http1.take(addr) {
        let queue = || if again { connection.probe.queue_as_told() } else { connection.probe.queue() };
        let stale = since.elapsed() >= inner.config.idle_timeout
            || connection.sender.is_closed()
            || queue() != Queue::Empty;
        if stale {
            continue;
        }
        if connection.sender.is_ready() {
            return Some(connection);
        }
        if matches!(timeout(READY_WAIT, connection.sender.ready()).await, Ok(Ok(()))) {
            return Some(connection);
        }
    }
    None
}

async fn open(inner: &Arc<Inner>, addr: &HostPort) -> Result<Connection, SendError> {
    let (io, probe, open) = inner.connect(addr).await?;
    let mut builder = Builder::new();
    builder
        .title_case_headers(inner.config.title_case_headers)
        .max_headers(inner.config.max_headers)
        .max_header_size(inner.config.max_header_bytes)
        .max_buf_size(HTTP1_BUFFER_BYTES.max(inner.config.max_header_bytes));
    let (sender, connection) = builder
        .handshake::<_, Body>(TokioIo::new(io))
        .await
        .map_err(|error| SendError::BeforeResponse { addr: addr.clone(), source: Box::new(error) })?;
    let (signal, signals) = mpsc::channel(1);
    let driver =
        drive(connection, signals, Arc::downgrade(inner), addr.clone(), inner.config.idle_timeout, open);
    drop(inner.tasks.spawn("http/1.1 client connection", driver));
    Ok(Connection { sender, probe, signal })
}

/// Runs a connection until it ends or nobody holds its [`Connection`].
async fn drive(
    connection: hyper::client::conn::http1::Connection<TokioIo<ClientIo>, Body>,
    mut signals: mpsc::Receiver<Signal>,
    pool: Weak<Inner>,
    addr: HostPort,
    idle_timeout: Duration,
    _open: Open,
) {
    let mut connection = Box::pin(connection.with_upgrades());
    loop {
        tokio::select! {
            biased;
            result = &mut connection => {
                log_end(&addr, result);
                return;
            }
            signal = signals.recv() => match signal {
                Some(Signal::Finishing(finishing)) => {
                    if !finish(&mut connection, finishing, &pool, &addr).await {
                        return;
                    }
                }
                Some(Signal::Upgraded) => {
                    log_end(&addr, connection.await);
                    return;
                }
                None => return,
            },
            () = sleep(idle_timeout / IDLE_CHECKS) => match pool.upgrade() {
                Some(inner) => inner.http1.close_older_than(&addr, idle_timeout),
                None => return,
            },
        }
    }
}

/// Lets a request body end shortly after its response; `false` if the connection is of no more use.
async fn finish<C: Future<Output = hyper::Result<()>>>(
    connection: &mut Pin<Box<C>>,
    mut finishing: Connection,
    pool: &Weak<Inner>,
    addr: &HostPort,
) -> bool {
    let ready = tokio::select! {
        _ = connection => false,
        ready = timeout(FINISH_GRACE, finishing.sender.ready()) => matches!(ready, Ok(Ok(()))),
    };
    match (ready, pool.upgrade()) {
        (true, Some(inner)) => {
            inner.http1.put(addr, finishing, inner.config.max_idle_per_host);
            true
        }
        _ => false,
    }
}

fn log_end(addr: &HostPort, result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%addr, error = crate::error::chain(&error), "client connection ended with an error");
    }
}

struct Failure {
    error: SendError,
    unsent: Option<Request<Body>>,
}

async fn exchange(
    inner: &Arc<Inner>,
    addr: &HostPort,
    mut connection: Connection,
    mut request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let exchange = Arc::new(Exchange::default());
    let expects = hop::has_token(request.headers(), &EXPECT, "100-continue") && !request.body().is_end();
    let informational = Informational::of(&request);
    if expects || informational.is_some() {
        let told = Arc::clone(&exchange);
        hyper::ext::on_informational(&mut request, move |response| {
            match (response.status(), &informational) {
                (StatusCode::CONTINUE, _) => told.start(),
                (status, Some(informational)) => {
                    let mut headers = response.headers().clone();
                    hop::strip_response(&mut headers);
                    informational.send(status, &headers);
                }
                (_, None) => {}
            }
        });
    }
    let is_connect = request.method() == Method::CONNECT;
    let hold_back = expects.then_some(inner.config.continue_timeout);
    let request = request.map(|body| request_body(body, &exchange, hold_back));
    let response = connection.sender.try_send_request(request).await.map_err(|mut failure| {
        let unsent = failure.take_message();
        Failure { error: broke_before_response(addr, &exchange, failure.into_error()), unsent }
    })?;
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (is_connect && response.status().is_success());
    if upgraded {
        // The only sender of an empty channel of one: it cannot be full.
        let _ = connection.signal.try_send(Signal::Upgraded);
        return Ok(response.map(|_| Body::empty()));
    }
    let finish = ToPool { inner: Arc::clone(inner), addr: addr.clone(), connection };
    let (mut parts, incoming) = response.into_parts();
    // A version belongs to one hop: a peer of HTTP/1.0 is no reason to speak it to anyone else.
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, response_body(incoming, false, exchange, finish).await))
}

struct ToPool {
    inner: Arc<Inner>,
    addr: HostPort,
    connection: Connection,
}

impl Finish for ToPool {
    fn complete(self, request_sent: bool) {
        if request_sent {
            self.inner.http1.put(&self.addr, self.connection, self.inner.config.max_idle_per_host);
        } else {
            let signal = self.connection.signal.clone();
            // As above: the only sender. If its task has ended, so has the connection.
            let _ = signal.try_send(Signal::Finishing(self.connection));
        }
    }

    fn give_up(self) {
        drop(self.connection);
    }
}
