//! How a client connects, and how a payload is to be kept.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketAddrUnix;
pub use zipline_protocol::Retrievals;
use zipline_protocol::limits;

use crate::core::check_wait;
use crate::{Error, Result};

/// Longest wait of an operation whose client was not told otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Largest body of a function's response, or of a payload over HTTP, whose client was not told otherwise.
const RESPONSE_MAX_DEFAULT: u64 = 1024 * 1024 * 1024;

/// How a client reaches its queue-proxy.
#[derive(Clone)]
pub struct Options {
    pub(crate) socket: Option<SocketAddress>,
    pub(crate) api: Option<SocketAddr>,
    pub(crate) token: Arc<[u8]>,
    pub(crate) timeout: Duration,
    pub(crate) namespace: Arc<str>,
    pub(crate) response_max: u64,
    pub(crate) interrupted: Option<fn() -> bool>,
}

/// A Unix socket: a file, or a name in the kernel's abstract space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SocketAddress {
    File(PathBuf),
    Abstract(Vec<u8>),
}

impl SocketAddress {
    /// `@name` is abstract, everything else a path.
    fn parse(text: &str) -> Self {
        match text.strip_prefix('@') {
            Some(name) => Self::Abstract(name.as_bytes().to_vec()),
            None => Self::File(text.into()),
        }
    }

    /// As the kernel takes it.
    pub(crate) fn to_unix(&self) -> io::Result<SocketAddrUnix> {
        Ok(match self {
            Self::File(path) => SocketAddrUnix::new(path)?,
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        })
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

impl Options {
    /// Options without any way to a queue-proxy; add [`Self::socket`] or [`Self::api`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            socket: None,
            api: None,
            token: Arc::from([]),
            timeout: TIMEOUT_DEFAULT,
            namespace: Arc::from("default"),
            response_max: RESPONSE_MAX_DEFAULT,
            interrupted: None,
        }
    }

    /// What the platform tells every function: `ZIPLINE_SOCKET`, `ZIPLINE_API`, `ZIPLINE_TOKEN`.
    ///
    /// # Errors
    /// `request-invalid` if neither a socket nor an API is named (the process is no function: start it with `zipline run`),
    /// or a value cannot be read.
    #[expect(clippy::disallowed_methods, reason = "the one place where the SDK reads the environment")]
    pub fn from_env() -> Result<Self> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut options = Self::new().token(read("ZIPLINE_TOKEN").unwrap_or_default());
        if let Some(socket) = read("ZIPLINE_SOCKET") {
            options = options.socket(&socket);
        }
        if let Some(api) = read("ZIPLINE_API") {
            options = options.api(&api)?;
        }
        if options.socket.is_none() && options.api.is_none() {
            return Err(Error::invalid(
                "neither ZIPLINE_SOCKET nor ZIPLINE_API is set, so this process is no function of Zipline's: \
                 start it with `zipline run -- COMMAND`, or use Client::local() where no other process takes part",
            ));
        }
        Ok(options)
    }

    /// The queue-proxy's Unix socket: a path, or `@name` for an abstract one.
    #[must_use]
    pub fn socket(mut self, address: &str) -> Self {
        self.socket = Some(SocketAddress::parse(address));
        self
    }

    /// The local HTTP API, as in `http://127.0.0.1:8030`. Used where there is no socket, or it cannot be reached
    /// ([`crate::Transport`]); invokes go over HTTP in any case.
    ///
    /// # Errors
    /// `request-invalid` if it is not `http://` and an IP address with a port.
    pub fn api(mut self, url: &str) -> Result<Self> {
        let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let address = address.map(|rest| rest.replace("localhost:", "127.0.0.1:"));
        let Some(address) = address.and_then(|address| address.parse().ok()) else {
            return Err(Error::invalid(format_args!(
                "the local API is given as {url:?}; it is http:// and an IP address with a port, as in http://127.0.0.1:8030"
            )));
        };
        self.api = Some(address);
        Ok(self)
    }

    /// The instance's token.
    #[must_use]
    pub fn token(mut self, token: impl AsRef<[u8]>) -> Self {
        self.token = token.as_ref().into();
        self
    }

    /// The namespace of functions that are named without one; `default` unless set.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Largest body, in bytes, that is taken of a function's response, and of a payload that comes over HTTP; 1 GiB unless set.
    #[must_use]
    pub fn response_max(mut self, bytes: u64) -> Self {
        self.response_max = bytes;
        self
    }

    /// Longest wait of one operation; 30 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asked whenever a blocking wait is interrupted by a signal, and every 100 ms of it: `true` gives the operation up.
    #[must_use]
    pub fn interrupted(mut self, asked: fn() -> bool) -> Self {
        self.interrupted = Some(asked);
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("socket", &self.socket)
            .field("api", &self.api)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// How a payload is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOptions {
    pub(crate) retrievals: Retrievals,
    pub(crate) ttl: Duration,
    pub(crate) linger: Duration,
    pub(crate) wait: Duration,
    pub(crate) content_type: Option<Arc<str>>,
    pub(crate) pre_issued: PreIssued,
}

/// Which puts take a reference that was issued in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreIssued {
    Never,
    /// Those that travel in a message, where one is at hand.
    Ready,
    Always,
}

impl PutOptions {
    /// One retrieval, a life of 60 s, no linger, at most 5 s of waiting for memory, no content type.
    #[must_use]
    pub fn new() -> Self {
        Self {
            retrievals: Retrievals::Limited(limits::RETRIEVALS_DEFAULT),
            ttl: limits::TTL_DEFAULT,
            linger: Duration::ZERO,
            wait: limits::PUT_WAIT_DEFAULT,
            content_type: None,
            pre_issued: PreIssued::Never,
        }
    }

    /// After how many acknowledged retrievals the payload is freed; at most 1,000,000 can be counted.
    #[must_use]
    pub fn retrievals(mut self, retrievals: Retrievals) -> Self {
        self.retrievals = retrievals;
        self
    }

    /// Its life; at most an hour applies.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long it stays for a retry after its last retrieval; at most 60 s.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Longest wait for memory; at most 60 s.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Its content type, at most 255 bytes.
    #[must_use]
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Takes a reference that was issued in advance: the put returns without waiting for the queue-proxy. Should it fail
    /// after all, a get of it says so, and so does the client's `settle`.
    #[must_use]
    pub fn pre_issued(mut self, pre_issued: bool) -> Self {
        self.pre_issued = if pre_issued { PreIssued::Always } else { PreIssued::Never };
        self
    }

    /// The same for payloads of at most 64 KiB, whenever such a reference is at hand; otherwise the put waits for its answer. The
    /// first puts of a kind wait, and so do all after one that failed, until one was taken.
    #[must_use]
    pub fn pre_issued_if_ready(mut self) -> Self {
        self.pre_issued = PreIssued::Ready;
        self
    }

    /// Refuses what the queue-proxy would refuse.
    pub(crate) fn check(&self) -> Result<()> {
        if let Retrievals::Limited(count) = self.retrievals
            && !(1..=limits::RETRIEVALS_MAX).contains(&count)
        {
            let most = limits::RETRIEVALS_MAX;
            return Err(Error::invalid(format_args!(
                "{count} retrievals: 1 to {most} can be counted, or none (unlimited)"
            )));
        }
        if self.ttl.is_zero() {
            return Err(Error::invalid("ttl must be more than 0"));
        }
        check_wait(self.wait)?;
        if self.linger > limits::LINGER_MAX {
            let (linger, most) = (self.linger, limits::LINGER_MAX);
            return Err(Error::invalid(format_args!("linger is {linger:?}, at most {most:?} are allowed")));
        }
        match self.content_type.as_deref().map(str::len) {
            Some(length) if length > limits::CONTENT_TYPE_MAX => Err(Error::invalid(format_args!(
                "the content type has {length} bytes, at most {} can be kept",
                limits::CONTENT_TYPE_MAX
            ))),
            _ => Ok(()),
        }
    }
}

impl Default for PutOptions {
    fn default() -> Self {
        Self::new()
    }
}
