//! What both clients share: the way to the queue-proxy.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use zipline_protocol::limits::PUT_WAIT_MAX;

use crate::http::{Address, Http};
use crate::local::Local;
use crate::options::SocketAddress;
use crate::proxy::{Link, Waiting};
use crate::{Error, ErrorCode, Options, Result};

/// The queue-proxy keeps the time of what it is asked; beyond it a client waits this long for the answer.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How long the answer to what waits for memory is waited for: the queue-proxy's own word should come first, but within the timeout.
pub(crate) fn longest(wait: Duration, timeout: Duration) -> Duration {
    if wait < timeout { timeout + GRACE } else { timeout }
}

/// Refuses a wait for memory that the queue-proxy would cut.
pub(crate) fn check_wait(wait: Duration) -> Result<()> {
    if wait > PUT_WAIT_MAX {
        let what = format_args!("wait is {wait:?}, at most {PUT_WAIT_MAX:?} are allowed");
        return Err(Error::invalid(what));
    }
    Ok(())
}

/// How a client reaches what holds its payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// The SDK's own protocol on the queue-proxy's socket: payloads lie in memory that both map.
    Socket,
    /// The queue-proxy's HTTP API: payloads are copied through it.
    Http,
    /// There is no queue-proxy: they are held in this process.
    Process,
}

/// Who holds the payloads.
#[derive(Clone, Debug)]
pub(crate) enum Core {
    Local(Local),
    Proxy(Arc<Proxy>),
    Http(Http),
}

impl Core {
    /// Of the queue-proxy that the options name.
    pub(crate) fn new(options: &Options, tasks: bool) -> Result<Self> {
        match (&options.socket, options.api) {
            (Some(socket), _) => Proxy::new(options, socket, tasks).map(Self::Proxy),
            (None, Some(api)) => Http::new(Address::Tcp(api), options).map(Self::Http),
            (None, None) => Err(Error::invalid(
                "no queue-proxy is named: set ZIPLINE_SOCKET or ZIPLINE_API, or Options::socket or Options::api",
            )),
        }
    }

    /// What is used in place of a socket that cannot be.
    ///
    /// # Errors
    /// There is nothing, or the socket works and refuses us.
    pub(crate) fn instead(options: &Options, error: Error) -> Result<Self> {
        match options.api {
            Some(api) if error.code() == ErrorCode::UpstreamFailed => {
                Http::new(Address::Tcp(api), options).map(Self::Http)
            }
            _ => Err(error),
        }
    }

    pub(crate) fn http(&self) -> Option<&Http> {
        match self {
            Self::Local(_) => None,
            Self::Proxy(proxy) => Some(&proxy.http),
            Self::Http(http) => Some(http),
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Local(_) => Transport::Process,
            Self::Proxy(_) => Transport::Socket,
            Self::Http(_) => Transport::Http,
        }
    }
}

/// A queue-proxy, and the connection to it.
#[derive(Debug)]
pub(crate) struct Proxy {
    token: Arc<[u8]>,
    socket: SocketAddress,
    link: Mutex<Option<(u32, Arc<Link>)>>,
    tasks: bool,
    pub(crate) http: Http,
}

impl Proxy {
    fn new(options: &Options, socket: &SocketAddress, tasks: bool) -> Result<Arc<Self>> {
        let http = Http::new(Address::Unix(socket.clone()), options)?;
        let (token, socket) = (Arc::clone(&options.token), socket.clone());
        Ok(Arc::new(Self { token, socket, link: Mutex::new(None), tasks, http }))
    }

    /// The connection, while it holds. That of another process is not ours: a child that was forked makes its own.
    pub(crate) fn present(&self) -> Option<Arc<Link>> {
        let mut present = self.link.lock();
        let (pid, link) = present.as_ref()?;
        if *pid != std::process::id() {
            // Dropping it would end the parent's.
            if let Some((_, link)) = present.take() {
                std::mem::forget(link);
            }
            return None;
        }
        (!link.is_broken()).then(|| Arc::clone(link))
    }

    /// A new connection, whose welcome is to be waited for.
    pub(crate) fn open(&self) -> Result<(Arc<Link>, Waiting)> {
        Link::open(&self.socket, &self.token, self.tasks)
    }

    /// From now on this one is used.
    pub(crate) fn welcomed(&self, link: &Arc<Link>) {
        *self.link.lock() = Some((std::process::id(), Arc::clone(link)));
    }
}
