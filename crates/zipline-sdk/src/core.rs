//! What both clients share: the way to the queue-proxy.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use zipline_protocol::limits::PUT_WAIT_MAX;

use crate::local::Local;
use crate::options::SocketAddress;
use crate::proxy::{Link, Waiting};
use crate::{Error, Options, Result};

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

/// Who holds the payloads.
#[derive(Clone, Debug)]
pub(crate) enum Core {
    Local(Local),
    Proxy(Arc<Proxy>),
}

/// A queue-proxy, and the connection to it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) options: Options,
    socket: SocketAddress,
    link: Mutex<Option<(u32, Arc<Link>)>>,
    tasks: bool,
}

impl Proxy {
    pub(crate) fn new(options: Options, tasks: bool) -> Result<Arc<Self>> {
        let Some(socket) = options.socket.clone() else {
            return Err(Error::invalid(
                "no socket is named: an SDK talks to its queue-proxy over ZIPLINE_SOCKET, or Options::socket",
            ));
        };
        Ok(Arc::new(Self { options, socket, link: Mutex::new(None), tasks }))
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
        Link::open(&self.socket, &self.options.token, self.tasks)
    }

    /// From now on this one is used.
    pub(crate) fn welcomed(&self, link: &Arc<Link>) {
        *self.link.lock() = Some((std::process::id(), Arc::clone(link)));
    }
}
