//! Where requests go.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

/// A host (name or address) and a port. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    host: Arc<str>,
    port: u16,
}

/// Text that is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not host:port: {0:?}")]
pub struct HostPortError(String);

impl HostPort {
    /// From its parts; an IPv6 address without brackets.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// The host; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self::new(&address.ip().to_string(), address.port())
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let error = || HostPortError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port.parse().map_err(|_| error())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bare {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => Ok(Self::new(address, port)),
            None if !host.is_empty() && !host.contains([':', '/', '@', '[', ']', ' ']) => {
                Ok(Self::new(host, port))
            }
            _ => Err(error()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What to speak to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in clear with prior knowledge (h2c).
    Http2,
}

impl Protocol {
    /// The protocol a proxy uses upstream for a request that came in as `version`.
    pub fn like(version: http::Version) -> Self {
        if version == http::Version::HTTP_2 { Self::Http2 } else { Self::Http1 }
    }
}

/// Where to connect and what to speak. The request's own host need not be the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Where to connect.
    pub addr: HostPort,
    /// What to speak.
    pub protocol: Protocol,
}

impl Target {
    /// HTTP/1.1 at an address.
    pub fn http1(addr: impl Into<HostPort>) -> Self {
        Self { addr: addr.into(), protocol: Protocol::Http1 }
    }

    /// h2c at an address.
    pub fn http2(addr: impl Into<HostPort>) -> Self {
        Self { addr: addr.into(), protocol: Protocol::Http2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_port_text() {
        for text in ["a.b.svc:80", "127.0.0.1:1", "[::1]:65535"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in ["", "a", ":80", "a:65536", "::1:80", "[::1:80", "[a]:80", "u@h:80", "h/p:80"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
