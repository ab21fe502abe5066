//! Which function a request is for.

use std::net::IpAddr;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use zipline_protocol::FunctionName;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Finds the function by host name, or by the first two parts of the path where the host is `localhost` or an address.
/// In the latter case these parts are taken off the path, and the host becomes the function's; both stay known in
/// `X-Forwarded-Prefix` and `X-Forwarded-Host`.
///
/// # Errors
/// Why the request is for no function, for people.
pub(super) fn route<B>(request: &mut Request<B>) -> Result<FunctionName, String> {
    if request.method() == Method::CONNECT {
        return Err("the gateway opens no tunnels; the forward proxy of a local API does".into());
    }
    let host = host_of(request).ok_or("the request names no host")?;
    if let Some(name) = FunctionName::from_host(&host) {
        // An absolute target wins over the Host field (RFC 9112, 3.2.2).
        set_host(request, &host);
        return Ok(name);
    }
    if !is_address(&host) {
        return Err(format!("host \"{}\" is no function's", host.escape_debug()));
    }
    let name = by_path(request)?;
    if let Ok(value) = HeaderValue::from_str(&host) {
        request.headers_mut().insert(X_FORWARDED_HOST, value);
    }
    set_host(request, &name.host());
    Ok(name)
}

fn host_of<B>(request: &Request<B>) -> Option<String> {
    let authority = request.uri().authority().map(|authority| {
        // Without a user's name.
        authority.as_str().rsplit('@').next().unwrap_or_default().to_owned()
    });
    authority.or_else(|| request.headers().get(HOST)?.to_str().ok().map(str::to_owned))
}

/// Whether a host is `localhost` or an IP address, with or without a port.
fn is_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn by_path<B>(request: &mut Request<B>) -> Result<FunctionName, String> {
    let path = request.uri().path();
    let mut parts = path.strip_prefix('/').unwrap_or(path).splitn(3, '/');
    let (namespace, service) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let name = FunctionName::new(service, namespace)
        .map_err(|_| "the path does not start with /NAMESPACE/SERVICE".to_owned())?;
    let rest = format!("/{}", parts.next().unwrap_or_default());
    let rest = match request.uri().query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest,
    };
    let prefix = HeaderValue::from_str(&format!("/{namespace}/{service}"))
        .map_err(|_| "the path is no header value".to_owned())?;
    let target = PathAndQuery::try_from(rest).map_err(|error| format!("the path is not valid: {error}"))?;
    *request.uri_mut() = Uri::from(target);
    request.headers_mut().insert(X_FORWARDED_PREFIX, prefix);
    Ok(name)
}

/// Puts the host into the one place that is the same in both protocols.
fn set_host<B>(request: &mut Request<B>, host: &str) {
    if let Ok(value) = HeaderValue::from_str(host) {
        request.headers_mut().insert(HOST, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, host: &str) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().unwrap();
        if !host.is_empty() {
            request.headers_mut().insert(HOST, HeaderValue::from_str(host).unwrap());
        }
        request
    }

    #[test]
    fn by_host() {
        for (target, host, name) in [
            ("/x?y=1", "a.b.svc.cluster.local", "a.b"),
            ("/x?y=1", "a.b.svc:80", "a.b"),
            ("/x?y=1", "a.b.localhost:8080", "a.b"),
            ("/x?y=1", "a.localhost:8080", "a.default"),
            ("http://a.b.svc/x?y=1", "elsewhere", "a.b"),
        ] {
            let mut request = request(target, host);
            assert_eq!(route(&mut request).unwrap().to_string(), name);
            assert_eq!(request.uri().path_and_query().unwrap(), "/x?y=1");
            assert!(request.headers()[HOST].to_str().unwrap().starts_with("a."), "{target} {host}");
        }
    }

    #[test]
    fn by_path_on_addresses_only() {
        for (target, host, rest) in [
            ("/b/a/x/y?z=1", "127.0.0.1:8080", "/x/y?z=1"),
            ("/b/a", "localhost", "/"),
            ("/b/a?z", "[::1]:8080", "/?z"),
            ("/b/a//x", "192.168.0.7:80", "//x"),
            ("/b/a/%2e%2e/", "localhost:1", "/%2e%2e/"),
        ] {
            let mut request = request(target, host);
            assert_eq!(route(&mut request).unwrap().to_string(), "a.b", "{target}");
            assert_eq!(request.uri(), rest);
            assert_eq!(request.headers()[HOST], "a.b.svc.cluster.local");
            assert_eq!(request.headers()[X_FORWARDED_PREFIX], "/b/a");
            assert_eq!(request.headers()[X_FORWARDED_HOST], host);
        }
    }

    #[test]
    fn everything_else_is_nobody() {
        for (target, host) in [
            ("/b/a", "example.com"),
            ("/b/a", "a.b"),
            ("/", "localhost"),
            ("/A/b", "localhost"),
            ("/b/a", ""),
        ] {
            assert!(route(&mut request(target, host)).is_err(), "{target} {host}");
        }
        let mut connect = request("a.b.svc:80", "");
        *connect.method_mut() = Method::CONNECT;
        assert!(route(&mut connect).unwrap_err().contains("no tunnels"));
    }
}
