//! h2c: connections shared by many requests, more of them when the peer's stream limit is reached.

use super::error::SendError;
use super::exchange::{Exchange, Finish, request_body, response_body};
use super::http1::IDLE_CHECKS;
use super::request::{Replay, for_http2};
use super::socket::{self, Probe, Queue};
use super::target::HostPort;
use super::{Inner, Open};
use crate::body::Body;
use crate::executor::{Spawned, WithSpawned};
use crate::hop;
use crate::serve::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES, header_list_bytes,
};
use http::{Method, Request, Response};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// Rounds the reactor gets to deliver what an idle connection's peer has said (a GOAWAY, most likely).
const DELIVERY_ROUNDS: usize = 3;

struct Connection {
    sender: SendRequest<Body>,
    probe: Probe,
    load: Mutex<Load>,
    /// The peer's limit, as far as it has said one.
    max_streams: AtomicUsize,
}

struct Load {
    streams: usize,
    used: bool,
    idle_since: Instant,
}

/// One stream's place on a connection.
struct Place {
    target: Arc<OfTarget>,
    connection: Arc<Connection>,
    reused: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut load = self.connection.load.lock();
        load.streams -= 1;
        load.idle_since = Instant::now();
        drop(load);
        self.target.freed.notify_one();
    }
}

impl Connection {
    fn has_room(&self) -> bool {
        self.load.lock().streams < self.max_streams.load(Ordering::Relaxed).max(1)
    }

    fn is_idle(&self) -> bool {
        self.load.lock().streams == 0
    }
}

#[derive(Default)]
struct OfTarget {
    connections: Mutex<Vec<Arc<Connection>>>,
    /// One connect at a time: those who wait for it share its connection.
    connecting: tokio::sync::Mutex<()>,
    /// A place may have become free.
    freed: Notify,
}

impl OfTarget {
    /// A place on the first connection that has room.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        let connection = connections.iter().find(|connection| connection.has_room())?;
        Some(self.place_on(connection))
    }

    fn place_on(self: &Arc<Self>, connection: &Arc<Connection>) -> Place {
        let mut load = connection.load.lock();
        load.streams += 1;
        let reused = std::mem::replace(&mut load.used, true);
        Place { target: Arc::clone(self), connection: Arc::clone(connection), reused }
    }

    fn remove(&self, gone: &Arc<Connection>) {
        self.connections.lock().retain(|connection| !Arc::ptr_eq(connection, gone));
    }
}

/// Connections by target.
#[derive(Default)]
pub(super) struct Pool {
    targets: Mutex<HashMap<HostPort, Arc<OfTarget>>>,
}

impl Pool {
    fn target(&self, addr: &HostPort) -> Arc<OfTarget> {
        Arc::clone(self.targets.lock().entry(addr.clone()).or_default())
    }

    pub(super) fn close_idle(&self) {
        self.retain(|_, connection| !connection.is_idle());
    }

    fn close_older_than(&self, of: &HostPort, age: Duration) {
        self.retain(|addr, connection| {
            let load = connection.load.lock();
            addr != of || load.streams > 0 || load.idle_since.elapsed() < age
        });
    }

    fn retain(&self, keep: impl Fn(&HostPort, &Connection) -> bool) {
        self.targets.lock().retain(|addr, target| {
            let mut connections = target.connections.lock();
            connections.retain(|connection| keep(addr, connection));
            // Somebody else who holds it is about to connect.
            !connections.is_empty() || Arc::strong_count(target) > 1
        });
    }
}

pub(super) async fn send(
    inner: &Arc<Inner>,
    addr: &HostPort,
    mut request: Request<Body>,
) -> Result<Response<Body>, SendError> {
    for_http2(&mut request, addr)?;
    let target = inner.http2.target(addr);
    let mut replayed = false;
    loop {
        let place = place(inner, addr, &target).await?;
        let connection = Arc::clone(&place.connection);
        let reused = place.reused;
        let replay = if reused && !replayed { Replay::of(&request) } else { None };
        match exchange(inner, addr, place, request).await {
            Ok(response) => {
                if reused {
                    inner.reused.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(response);
            }
            Err((_, Some(unsent))) if reused => request = unsent,
            Err((error, _)) => match replay {
                Some(replay) if !error.is_request_body() => {
                    request = replay.into_request();
                    replayed = true;
                }
                _ => return Err(error),
            },
        }
        target.remove(&connection);
        inner.resent.fetch_add(1, Ordering::Relaxed);
    }
}

/// A place on a connection that stands; waits for one, or opens a connection, where all are taken.
async fn place(inner: &Arc<Inner>, addr: &HostPort, target: &Arc<OfTarget>) -> Result<Place, SendError> {
    loop {
        let place = match target.place() {
            Some(place) => place,
            None => match wait_or_open(inner, addr, target).await? {
                Some(place) => place,
                None => continue,
            },
        };
        if is_alive(&place).await {
            return Ok(place);
        }
        target.remove(&place.connection);
    }
}

async fn wait_or_open(
    inner: &Arc<Inner>,
    addr: &HostPort,
    target: &Arc<OfTarget>,
) -> Result<Option<Place>, SendError> {
    let _connecting = target.connecting.lock().await;
    let freed = target.freed.notified();
    if let Some(place) = target.place() {
        return Ok(Some(place));
    }
    if target.connections.lock().len() >= inner.config.max_http2_connections_per_host {
        freed.await;
        return Ok(None);
    }
    let connection = open(inner, addr).await?;
    target.connections.lock().push(Arc::clone(&connection));
    Ok(Some(target.place_on(&connection)))
}

/// Whether a connection that was idle still stands, as far as this host knows.
async fn is_alive(place: &Place) -> bool {
    let connection = &place.connection;
    if connection.load.lock().streams > 1 {
        return true;
    }
    for _ in 0..DELIVERY_ROUNDS {
        match connection.probe.queue() {
            Queue::Empty => break,
            Queue::Closed => return false,
            Queue::Bytes => tokio::task::yield_now().await,
        }
    }
    !connection.sender.is_closed()
}

async fn open(inner: &Arc<Inner>, addr: &HostPort) -> Result<Arc<Connection>, SendError> {
    let (stream, open) = inner.connect(addr).await?;
    let (io, probe) = socket::share(stream);
    let spawned = Spawned::default();
    let mut builder = Builder::new(spawned.clone());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(header_list_bytes(inner.config.max_header_bytes));
    let (sender, connection) = builder
        .handshake::<_, Body>(TokioIo::new(io))
        .await
        .map_err(|error| SendError::BeforeResponse { addr: addr.clone(), source: Box::new(error) })?;
    let max_streams = connection.current_max_send_streams();
    let load = Load { streams: 0, used: false, idle_since: Instant::now() };
    let shared = Arc::new(Connection {
        sender,
        probe,
        load: Mutex::new(load),
        max_streams: AtomicUsize::new(max_streams),
    });
    let driver = WithSpawned::new(connection, spawned);
    let driver = drive(
        driver,
        Arc::downgrade(&shared),
        Arc::downgrade(inner),
        addr.clone(),
        inner.config.idle_timeout,
        open,
    );
    drop(inner.tasks.spawn("h2c client connection", driver));
    Ok(shared)
}

type Hyper = hyper::client::conn::http2::Connection<TokioIo<socket::ClientIo>, Body, Spawned>;

/// Runs a connection until its streams are over and nobody holds its sender.
async fn drive(
    mut connection: WithSpawned<Hyper>,
    shared: Weak<Connection>,
    pool: Weak<Inner>,
    addr: HostPort,
    idle_timeout: Duration,
    _open: Open,
) {
    loop {
        let run = poll_fn(|cx| {
            let result = connection.poll_both(cx);
            if let Some(shared) = shared.upgrade() {
                let max_streams = connection.connection().current_max_send_streams();
                shared.max_streams.store(max_streams, Ordering::Relaxed);
            }
            result
        });
        tokio::select! {
            result = run => {
                if let Err(error) = result {
                    tracing::debug!(%addr, error = crate::error::chain(&error), "client connection ended with an error");
                }
                break;
            }
            () = sleep(idle_timeout / IDLE_CHECKS) => {
                if let Some(inner) = pool.upgrade() {
                    inner.http2.close_older_than(&addr, idle_timeout);
                }
            }
        }
    }
    connection.finish().await;
}

async fn exchange(
    inner: &Inner,
    addr: &HostPort,
    place: Place,
    request: Request<Body>,
) -> Result<Response<Body>, (SendError, Option<Request<Body>>)> {
    let exchange = Arc::new(Exchange::default());
    let is_connect = request.method() == Method::CONNECT;
    let request = request.map(|body| request_body(body, &exchange));
    let mut sender = place.connection.sender.clone();
    let response = sender.try_send_request(request).await.map_err(|mut failure| {
        let unsent = failure.take_message();
        (broke_before_response(addr, &exchange, failure.into_error()), unsent)
    })?;
    let headers = response.headers();
    if headers.len() > inner.config.max_headers || hop::header_bytes(headers) > inner.config.max_header_bytes
    {
        let source = "its header fields are too large".into();
        return Err((SendError::BeforeResponse { addr: addr.clone(), source }, None));
    }
    if is_connect && response.status().is_success() {
        return Ok(response.map(|_| Body::empty()));
    }
    let finish = FreePlace { _place: place, exchange: Arc::clone(&exchange) };
    let (parts, incoming) = response.into_parts();
    Ok(Response::from_parts(parts, response_body(incoming, exchange, finish).await))
}

struct FreePlace {
    _place: Place,
    exchange: Arc<Exchange>,
}

impl Finish for FreePlace {
    fn complete(self, request_sent: bool) {
        if !request_sent {
            self.exchange.abandon();
        }
    }

    fn give_up(self) {}
}

fn broke_before_response(addr: &HostPort, exchange: &Exchange, error: hyper::Error) -> SendError {
    match exchange.request_failure() {
        Some(source) => SendError::RequestBody { source },
        None => SendError::BeforeResponse { addr: addr.clone(), source: Box::new(error) },
    }
}
