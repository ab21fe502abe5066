//! The labels of the standard HTTP instruments and of Knative's own.

use http::Method;
use zipline_knative::metrics as names;

use super::table::{LABEL_MAX_BYTES, LabelPairs, LabelValue, Labels};

/// Labels of `http.server.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Server<S> {
    pub(crate) method: &'static str,
    pub(crate) status: u16,
    pub(crate) route_tag: S,
    pub(crate) version: &'static str,
    pub(crate) host: S,
    pub(crate) port: Option<u16>,
    pub(crate) scheme: &'static str,
}

/// Labels of `http.client.*`: requests to the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Client<S> {
    pub(crate) method: &'static str,
    /// The status, or why there is none.
    pub(crate) outcome: Outcome,
    pub(crate) route_tag: S,
    pub(crate) version: &'static str,
    pub(crate) port: u16,
}

/// What came of a request to the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It answered.
    Status(u16),
    /// It did not; the word for `error.type`.
    Error(&'static str),
}

/// Labels of `kn.serving.invocation.duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Invocation {
    pub(crate) status: u16,
}

/// The word for a method: the standard ones by name, all others together.
pub(crate) fn method(method: &Method) -> &'static str {
    match method.as_str().to_ascii_uppercase().as_str() {
        "CONNECT" => "CONNECT",
        "DELETE" => "DELETE",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "POST" => "POST",
        "PUT" => "PUT",
        "TRACE" => "TRACE",
        _ => "_OTHER",
    }
}

/// The words for a version of HTTP, as labels have them.
pub(crate) fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "0.9",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2.0",
        http::Version::HTTP_3 => "3.0",
        _ => "1.1",
    }
}

/// Host and port of a `Host` header or authority; the port only if it is not the scheme's own.
///
/// # Source
/// `SplitHostPort` and `requiredHTTPPort` of `go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp`.
pub(crate) fn host_and_port(authority: &str, tls: bool) -> (&str, Option<u16>) {
    let name_end = if authority.starts_with('[') { authority.rfind(']') } else { Some(0) };
    let Some(name_end) = name_end else { return ("", None) };
    let Some(colon) = authority[name_end..].rfind(':').map(|at| at + name_end) else {
        let bare = authority.strip_prefix('[').map_or(authority, |rest| rest.trim_end_matches(']'));
        return (bare, None);
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match bracketed {
        Some(inner) => inner,
        // Two colons and no brackets are nothing.
        None if host.contains([':', '[', ']']) => return ("", None),
        None => host,
    };
    let own = if tls { 443 } else { 80 };
    // Go reads digits only, and an unreadable port takes the host with it.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.is_empty() {
        return ("", None);
    }
    match port.parse::<u16>() {
        Ok(port) => (host, (port != 0 && port != own).then_some(port)),
        Err(_) => ("", None),
    }
}

impl Labels for Server<Box<str>> {
    type Borrowed<'a> = Server<&'a str>;

    fn own(borrowed: &Server<&str>) -> Option<Self> {
        let Server { method, status, route_tag, version, host, port, scheme } = *borrowed;
        let (route_tag, host) = (keep(route_tag)?, keep(host)?);
        Some(Self { method, status, route_tag, version, host, port, scheme })
    }

    fn is(&self, other: &Server<&str>) -> bool {
        self.status == other.status
            && self.port == other.port
            && self.method == other.method
            && self.version == other.version
            && self.scheme == other.scheme
            && *self.host == *other.host
            && *self.route_tag == *other.route_tag
    }

    fn pairs(&self) -> LabelPairs {
        let mut pairs = vec![
            ("http.request.method", text(self.method)),
            (names::STATUS_CODE, number(self.status)),
            (names::ROUTE_TAG, text(&self.route_tag)),
            ("network.protocol.name", text("http")),
            ("network.protocol.version", text(self.version)),
            ("server.address", text(&self.host)),
        ];
        pairs.extend(self.port.map(|port| ("server.port", number(port))));
        pairs.push(("url.scheme", text(self.scheme)));
        pairs
    }
}

impl Labels for Client<Box<str>> {
    type Borrowed<'a> = Client<&'a str>;

    fn own(borrowed: &Client<&str>) -> Option<Self> {
        let Client { method, outcome, route_tag, version, port } = *borrowed;
        Some(Self { method, outcome, route_tag: keep(route_tag)?, version, port })
    }

    fn is(&self, other: &Client<&str>) -> bool {
        self.outcome == other.outcome
            && self.method == other.method
            && self.version == other.version
            && self.port == other.port
            && *self.route_tag == *other.route_tag
    }

    fn pairs(&self) -> LabelPairs {
        let mut pairs = Vec::with_capacity(8);
        if let Outcome::Error(word) = self.outcome {
            pairs.push(("error.type", text(word)));
        }
        pairs.push(("http.request.method", text(self.method)));
        if let Outcome::Status(status) = self.outcome {
            pairs.push((names::STATUS_CODE, number(status)));
        }
        pairs.push((names::ROUTE_TAG, text(&self.route_tag)));
        pairs.push(("network.protocol.name", text("http")));
        pairs.push(("network.protocol.version", text(self.version)));
        pairs.push(("server.address", text("127.0.0.1")));
        pairs.push(("server.port", number(self.port)));
        pairs.push(("url.scheme", text("http")));
        pairs
    }
}

impl Labels for Invocation {
    type Borrowed<'a> = Self;

    fn own(borrowed: &Self) -> Option<Self> {
        Some(*borrowed)
    }

    fn is(&self, other: &Self) -> bool {
        self == other
    }

    fn pairs(&self) -> LabelPairs {
        vec![(names::STATUS_CODE, number(self.status))]
    }
}

fn keep(label: &str) -> Option<Box<str>> {
    (label.len() <= LABEL_MAX_BYTES).then(|| label.into())
}

fn text(value: &str) -> LabelValue {
    LabelValue::Text(value.to_owned())
}

fn number(value: u16) -> LabelValue {
    LabelValue::Number(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_go_splits_them() {
        for (authority, tls, expected) in [
            ("localhost:8012", false, ("localhost", Some(8012))),
            ("hello.default.svc", false, ("hello.default.svc", None)),
            ("hello:80", false, ("hello", None)),
            ("hello:443", true, ("hello", None)),
            ("hello:80", true, ("hello", Some(80))),
            ("[::1]:8012", false, ("::1", Some(8012))),
            ("[::1]", false, ("::1", None)),
            ("[::1", false, ("", None)),
            ("::1", false, ("", None)),
            ("a:b", false, ("", None)),
            ("a:", false, ("", None)),
            ("a:99999", false, ("", None)),
            ("", false, ("", None)),
        ] {
            assert_eq!(host_and_port(authority, tls), expected, "{authority}");
        }
    }

    #[test]
    fn rare_methods_share_a_label() {
        let rare = Method::from_bytes(b"PROPFIND").unwrap();
        let lower = Method::from_bytes(b"get").unwrap();
        assert_eq!((method(&rare), method(&lower), method(&Method::POST)), ("_OTHER", "GET", "POST"));
    }
}
