//! Names to addresses, without the C library.
//!
//! A static glibc binary cannot load the name service switch, so `getaddrinfo` fails in an image that is made `FROM scratch`.
//! This is the one path for all builds: `/etc/hosts` first, then DNS as `/etc/resolv.conf` says (search domains, ndots,
//! servers in their order). Both files are read again when they change. `docs/adr/0008`.

use futures_util::FutureExt as _;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, system_conf};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Lookups that ask DNS at a time; further ones wait, within their caller's limit.
const MAX_LOOKUPS: usize = 64;
/// Answers kept.
const MAX_CACHED: u64 = 1024;
/// Longest time an answer is kept: addresses of services that were made anew are seen this soon.
const MAX_TTL: Duration = Duration::from_secs(30);
/// Longest time the absence of a name is kept: a service that was just made is found this soon.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// Longest wait for one server, so that a lost datagram is asked again within the time a connection may take.
const MAX_SERVER_WAIT: Duration = Duration::from_secs(1);
/// Fewest times all servers are asked.
const MIN_ATTEMPTS: usize = 3;
/// The files are looked at again after this long.
const RECHECK: Duration = Duration::from_secs(1);

/// Turns names into addresses. Clones share the cache.
///
/// Its sockets belong to the runtime that first asks, so it is made per runtime and not once per process.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    room: Semaphore,
    state: Mutex<Option<State>>,
}

/// What the files said, and when they were looked at.
#[derive(Clone)]
struct State {
    looked: Instant,
    stamps: [Option<Stamp>; 2],
    hosts: Arc<Hosts>,
    /// Why there is no DNS, if there is none.
    dns: Result<TokioResolver, Arc<str>>,
}

/// What tells two versions of a file apart.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Resolver {
    /// As `/etc/hosts` and `/etc/resolv.conf` say. Nothing is read before the first name is asked for.
    pub fn system() -> Self {
        Self::with_files("/etc/hosts", "/etc/resolv.conf")
    }

    /// As the given files say, in the form of `/etc/hosts` and `/etc/resolv.conf`. Either may be absent.
    pub fn with_files(hosts: impl Into<PathBuf>, resolv_conf: impl Into<PathBuf>) -> Self {
        Self {
            inner: Arc::new(Inner {
                resolv_conf: resolv_conf.into(),
                hosts: hosts.into(),
                room: Semaphore::new(MAX_LOOKUPS),
                state: Mutex::new(None),
            }),
        }
    }

    /// The addresses of `host`, IPv4 before IPv6, each with `port`; never none. An address is its own answer, and
    /// `localhost` is loopback whatever the files say.
    ///
    /// # Errors
    /// `InvalidInput`: not a name. `NotFound`: no such name, or no address. Anything else: no server answered, or none is
    /// configured.
    ///
    /// # Cancel safety
    /// Dropping it drops the question. It has no deadline of its own short of all attempts; callers set one.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let with_port = |ip: IpAddr| SocketAddr::new(ip, port);
        if let Ok(ip) = host.parse() {
            return Ok(vec![with_port(ip)]);
        }
        if is_localhost(host) {
            return Ok([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(with_port).to_vec());
        }
        let name = Name::from_utf8(host).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is not a name: {error}"))
        })?;
        let state = self.inner.state();
        let mut found = from_hosts(&state.hosts, &name);
        if found.is_empty() {
            found = self.ask(&state, host, name).await?;
        }
        // Stable: within a family the order of the answer stays.
        found.sort_by_key(IpAddr::is_ipv6);
        found.dedup();
        Ok(found.into_iter().map(with_port).collect())
    }

    async fn ask(&self, state: &State, host: &str, name: Name) -> io::Result<Vec<IpAddr>> {
        let dns = state.dns.as_ref().map_err(|why| io::Error::other(format!("{host}: {why}")))?;
        let _place = self.inner.room.acquire().await.map_err(io::Error::other)?;
        // Boxed: hickory's future is large, and would be so in every request.
        let answer = dns.lookup_ip(name).boxed().await;
        let found: Vec<IpAddr> = match answer {
            Ok(answer) => answer.iter().collect(),
            Err(error) if error.is_no_records_found() => Vec::new(),
            Err(error) => return Err(io::Error::other(format!("{host} cannot be resolved: {error}"))),
        };
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address in DNS")));
        }
        Ok(found)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("hosts", &self.inner.hosts)
            .field("resolv_conf", &self.inner.resolv_conf)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// What the files say now, as of at most [`RECHECK`] ago.
    fn state(&self) -> State {
        let mut slot = self.state.lock();
        let now = Instant::now();
        if let Some(state) = slot.as_mut() {
            if now.duration_since(state.looked) < RECHECK {
                return state.clone();
            }
            state.looked = now;
            if state.stamps == self.stamps() {
                return state.clone();
            }
        }
        // The stamps first: a change in between is seen the next time.
        let stamps = self.stamps();
        let state = State {
            looked: now,
            stamps,
            hosts: Arc::new(read_hosts(&self.hosts)),
            dns: open_dns(&self.resolv_conf),
        };
        *slot = Some(state.clone());
        state
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.hosts, &self.resolv_conf].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some(Stamp { modified: metadata.modified().ok(), length: metadata.len() })
        })
    }
}

/// RFC 6761, 6.3.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case("localhost")
}

fn from_hosts(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)))
        .flat_map(|found| {
            found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        })
        .collect()
}

fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    let read = std::fs::File::open(path).and_then(|file| hosts.read_hosts_conf(file));
    if let Err(error) = read {
        tracing::debug!(%error, path = %path.display(), "no hosts are known by file");
    }
    hosts
}

fn open_dns(path: &Path) -> Result<TokioResolver, Arc<str>> {
    let text = std::fs::read(path).map_err(|error| format!("no DNS, {}: {error}", path.display()))?;
    let (config, options) = system_conf::parse_resolv_conf(text)
        .map_err(|error| format!("no DNS, {}: {error}", path.display()))?;
    // The domain of the host's own name is left out: with a search list, the C library ignores it as well.
    let config = ResolverConfig::from_parts(None, config.search().to_vec(), config.name_servers().to_vec());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = tuned(options);
    builder.build().map_err(|error| format!("no DNS, {}: {error}", path.display()).into())
}

fn tuned(mut options: ResolverOpts) -> ResolverOpts {
    options.timeout = options.timeout.min(MAX_SERVER_WAIT);
    options.attempts = options.attempts.max(MIN_ATTEMPTS);
    options.cache_size = MAX_CACHED;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    // In their order and one at a time, as resolv.conf(5) says: the second server may know fewer names.
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    // Asked before, by ourselves: hickory would ask DNS for every search domain first.
    options.use_hosts_file = ResolveHosts::Never;
    options
}

#[cfg(test)]
mod tests;
