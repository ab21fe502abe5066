//! Where a request through the forward proxy wants to go.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::Authority;
use tokio::time::timeout;
use zipline_http::HostPort;
use zipline_protocol::{ErrorCode, FunctionName};

use crate::api::Refusal;
use crate::state::Shared;

/// Longest wait for a name to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// Name or address, without brackets.
    host: String,
    port: u16,
}

impl Destination {
    /// Reads `authority`; `default_port` is for those that name none.
    pub(super) fn new(authority: &Authority, default_port: Option<u16>) -> Result<Self, Refusal> {
        // A port that is there but is no number must not turn into the default.
        let bare = authority.as_str().rsplit('@').next().unwrap_or_default() == authority.host();
        let port = authority.port_u16().or(default_port.filter(|_| bare)).filter(|port| *port != 0);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        match port {
            Some(port) if !host.is_empty() => Ok(Self { host, port }),
            _ => Err(Refusal::invalid("the destination must be a host and a port")),
        }
    }

    /// The function that is meant, if it is one: by the form of its name, or because it is known to open references.
    pub(super) fn function(&self, shared: &Shared) -> Option<FunctionName> {
        FunctionName::from_host(&self.host).or_else(|| {
            let name = self.host.to_ascii_lowercase().parse().ok()?;
            shared.capabilities.is_known(&name).then_some(name)
        })
    }

    /// The same as the client takes it.
    pub(super) fn host_port(&self) -> HostPort {
        HostPort::new(&self.host, self.port)
    }

    /// Its addresses. One of our own listeners among them means a loop, which is refused.
    pub(super) async fn resolve(&self, shared: &Shared) -> Result<Vec<SocketAddr>, Refusal> {
        let failed = |what: &dyn std::fmt::Display| {
            let detail = format_args!("{} cannot be resolved: {what}", self.host).to_string();
            Refusal::new(ErrorCode::UpstreamFailed, detail)
        };
        let resolving = shared.client.resolver().resolve(&self.host, self.port);
        let found = timeout(RESOLVE_TIMEOUT, resolving).await;
        let mut addresses =
            found.map_err(|_elapsed| failed(&"no answer in time"))?.map_err(|error| failed(&error))?;
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(failed(&"it has no address"));
        }
        if addresses.iter().any(|address| shared.listeners.iter().any(|own| is_same(*own, *address))) {
            return Err(Refusal::invalid(
                "this is the queue-proxy itself: add its address to no_proxy, or speak to it directly",
            ));
        }
        Ok(addresses)
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Whether a connection to `address` would reach the listener `own`.
fn is_same(own: SocketAddr, address: SocketAddr) -> bool {
    let (own_ip, ip) = (own.ip().to_canonical(), address.ip().to_canonical());
    // Connecting to the unspecified address reaches this machine.
    own.port() == address.port() && (own_ip == ip || own_ip.is_unspecified() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Result<Destination, Refusal> {
        Destination::new(&text.parse().unwrap(), Some(80))
    }

    #[test]
    fn hosts_with_and_without_ports() {
        assert_eq!(destination("a.example").unwrap().to_string(), "a.example:80");
        assert_eq!(destination("a.example:8080").unwrap().to_string(), "a.example:8080");
        assert_eq!(destination("[::1]:1").unwrap().to_string(), "[::1]:1");
        assert_eq!(destination("user@a.example").unwrap().to_string(), "a.example:80");
        assert!(destination("a.example:0").is_err());
        assert!(destination("a.example:70000").is_err());
        assert!(Destination::new(&"a.example".parse().unwrap(), None).is_err());
    }

    #[test]
    fn loops_are_found_through_every_spelling() {
        let own = "127.0.0.1:80".parse().unwrap();
        for address in ["127.0.0.1:80", "0.0.0.0:80", "[::ffff:127.0.0.1]:80", "[::]:80"] {
            assert!(is_same(own, address.parse().unwrap()), "{address}");
        }
        assert!(!is_same(own, "127.0.0.1:81".parse().unwrap()));
        assert!(!is_same(own, "10.0.0.1:80".parse().unwrap()));
        assert!(is_same("0.0.0.0:80".parse().unwrap(), "10.0.0.1:80".parse().unwrap()));
    }
}
