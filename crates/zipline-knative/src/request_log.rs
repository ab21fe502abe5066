//! The request log: one line per request, in the form of a Go text template.
//!
//! Knative takes any template over an `http.Request`. Here it is a subset that is checked at start, so that a template
//! either prints exactly what Go prints or is refused by name with the list of what there is:
//!
//! - fields of `.Request`, `.Response`, `.Revision` and `.TraceID` ([`supported_fields`]), `$.` in front of them, header
//!   values by `.Request.Header.Get "Name"`, `.Request.Header.Values "Name"`, `index .Request.Header "Name"` and
//!   `.Request.Header.Name`;
//! - literals, pipelines, parentheses, comments, trim markers, `if`, `else if`, `else`, `end`;
//! - the functions of [`supported_functions`]; `printf` with a literal format of `%v %s %q %d %t %f` and `%%`.
//!
//! Not supported: `range`, `with`, `define`, `template`, `block`, variables, and fields that a proxy does not know.
//! `.Request.TLS` prints what is known of the connection in the place where Go prints it, and `<nil>` without TLS.
//!
//! # Source
//! `pkg/http/request_log.go`, `pkg/http/trace.go`, `pkg/observability/config.go` (the default template); Go 1.26
//! `text/template`, `net/url`, `fmt`.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Version};

mod compare;
pub(crate) mod escape;
mod eval;
mod fields;
mod format;
mod lex;
mod parse;
mod tree;
mod url;
mod value;

#[cfg(test)]
mod tests;

use crate::contract::is_probe;
use eval::Scope;
use tree::Node;

pub use fields::supported_fields;
pub use tree::supported_functions;

/// Longest template that is read, in bytes: one annotation's worth of text.
pub const TEMPLATE_MAX: usize = 256 * 1024;

/// A template that was checked.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<Node>,
}

/// A request as the template sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target as it came: path and query, or for HTTP/1 whatever stood in the request line.
    pub request_uri: &'a str,
    /// The host asked for.
    pub host: &'a str,
    /// The protocol.
    pub version: Version,
    /// The peer.
    pub remote_addr: SocketAddr,
    /// Length of the body; -1 if unknown, 0 without body.
    pub content_length: i64,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The connection's TLS.
    pub tls: Option<&'a Tls>,
}

/// What is known of a connection's TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The version's number in the protocol, as 772 for 1.3.
    pub version: u16,
    /// Whether it resumed an earlier connection.
    pub resumed: bool,
    /// The cipher suite's number in the protocol.
    pub cipher_suite: u16,
    /// The protocol chosen by ALPN; may be empty.
    pub protocol: String,
    /// The name the client asked for; may be empty.
    pub server_name: String,
}

/// A response as the template sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Response {
    /// The status.
    pub code: u16,
    /// Bytes of its body.
    pub size: u64,
    /// From the request's first byte to the response's last.
    pub latency: Duration,
}

/// Whose queue-proxy writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revision {
    /// The revision.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service.
    pub service: String,
    /// Its configuration.
    pub configuration: String,
    /// The pod.
    pub pod_name: String,
    /// The pod's address.
    pub pod_ip: String,
}

/// A template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request log template, byte {at}: {problem}")]
pub struct TemplateError {
    /// Where in the template.
    pub at: usize,
    /// What is wrong, and what there is instead.
    pub problem: String,
}

impl From<&crate::Environment> for Revision {
    fn from(environment: &crate::Environment) -> Self {
        Self {
            name: environment.revision.clone(),
            namespace: environment.namespace.clone(),
            service: environment.service.clone(),
            configuration: environment.configuration.clone(),
            pod_name: environment.pod.clone(),
            pod_ip: environment.pod_ip.clone(),
        }
    }
}

impl Template {
    /// Reads and checks a template. A line break is added if it does not end with one. The empty template is `None`: no
    /// request log.
    ///
    /// # Errors
    /// [`TemplateError`] names the first thing that is not supported.
    pub fn parse(text: &str) -> Result<Option<Self>, TemplateError> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > TEMPLATE_MAX {
            let problem = format!("{} bytes are more than {TEMPLATE_MAX}", text.len());
            return Err(TemplateError { at: 0, problem });
        }
        let line = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
        parse::template(&line).map(|nodes| Some(Self { nodes }))
    }

    /// Appends the line of one request to `out`. A template that turns out not to fit this request, as Go's do that
    /// compare a text with a number, writes Go's line about that instead.
    pub fn write(&self, request: &Request<'_>, response: &Response, revision: &Revision, out: &mut Vec<u8>) {
        let begin = out.len();
        let scope = Scope { request, response, revision };
        if scope.nodes(&self.nodes, out).is_err() {
            out.truncate(begin);
            out.extend_from_slice(b"Invalid request log template: method: ");
            out.extend_from_slice(request.method.as_bytes());
            let latency = crate::go::float::display(response.latency.as_secs_f64());
            let rest = format!(", response code: {}, latency: {latency}, url: ", response.code);
            out.extend_from_slice(rest.as_bytes());
            out.extend_from_slice(url::Url::of(request.request_uri).to_text().as_bytes());
            out.push(b'\n');
        }
    }
}

/// Whether a request with these headers is logged.
#[must_use]
pub fn is_logged(headers: &HeaderMap, probes_too: bool) -> bool {
    probes_too || !is_probe(headers)
}

/// The id of the trace a request belongs to; empty if it names none. It is what stands in the header, checked by nobody.
///
/// # Source
/// `pkg/http/trace.go`.
#[must_use]
pub fn trace_id(headers: &HeaderMap) -> &[u8] {
    let first = |name: &str| headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let mut parts = first("traceparent").splitn(3, |byte| *byte == b'-').skip(1);
    parts.next().unwrap_or_else(|| first("x-b3-traceid"))
}
