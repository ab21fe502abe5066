//! One line for each request, in the configured form.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Uri, Version, header};
use zipline_http::Body;
use zipline_knative::request_log::{self, Response, Tls};

use super::config::LogConfig;
use super::lines::Lines;

/// TLS 1.3, by its number in the protocol: what the TLS port speaks unless older versions were allowed.
const TLS_1_3: u16 = 0x0304;

/// Writes lines about requests.
#[derive(Debug)]
pub(super) struct RequestLog {
    config: LogConfig,
    lines: Lines,
}

/// A request that is to be logged, as it came.
#[derive(Debug)]
pub(super) struct Entry {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    peer: SocketAddr,
    content_length: i64,
    tls: Option<Tls>,
}

impl RequestLog {
    /// A log that goes to `lines`.
    pub(super) fn new(config: LogConfig, lines: Lines) -> Self {
        Self { config, lines }
    }

    /// Notes a request that has just come, if requests like it are logged.
    pub(super) fn entry(
        &self,
        request: &Request<Body>,
        peer: Option<(IpAddr, u16)>,
        tls: bool,
    ) -> Option<Entry> {
        let headers = request.headers();
        if !request_log::is_logged(headers, self.config.probes) {
            return None;
        }
        let (address, port) = peer.unwrap_or((Ipv4Addr::UNSPECIFIED.into(), 0));
        let length = request.body().exact_length().and_then(|length| i64::try_from(length).ok());
        Some(Entry {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: headers.clone(),
            peer: SocketAddr::new(address, port),
            content_length: length.unwrap_or(-1),
            tls: tls.then(|| Tls { version: TLS_1_3, ..Tls::default() }),
        })
    }

    /// Writes the line of a request that has ended.
    pub(super) fn write(&self, entry: &Entry, code: u16, size: u64, latency: Duration) {
        let whole;
        // HTTP/2 has no request line; HTTP/1 may have a whole URL there.
        let request_uri = match (entry.version, entry.uri.path_and_query()) {
            (Version::HTTP_2, Some(path)) => path.as_str(),
            _ if entry.uri.authority().is_none() => {
                entry.uri.path_and_query().map_or("/", |path| path.as_str())
            }
            _ => {
                whole = entry.uri.to_string();
                &whole
            }
        };
        let of_uri = entry.uri.authority().map(http::uri::Authority::as_str);
        let of_header = || entry.headers.get(header::HOST)?.to_str().ok();
        let request = request_log::Request {
            method: entry.method.as_str(),
            request_uri,
            host: of_uri.or_else(of_header).unwrap_or_default(),
            version: entry.version,
            remote_addr: entry.peer,
            content_length: entry.content_length,
            headers: &entry.headers,
            tls: entry.tls.as_ref(),
        };
        let response = Response { code, size, latency };
        let mut line = Vec::with_capacity(512);
        self.config.template.write(&request, &response, &self.config.revision, &mut line);
        self.lines.write(line);
    }
}
