//! What is recorded of one request, and the spans it becomes.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use zipline_knative::{metrics as names, route_tag};

use super::context::TraceContext;
use crate::telemetry::metrics::labels::{self, Outcome};
use crate::telemetry::metrics::{HTTP_SCOPE, QUEUE_SCOPE};

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
}

/// Attributes of a span.
pub(crate) type Attributes = Vec<(&'static str, Value)>;

/// Who is called, as OTLP numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// One finished span.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) scope: &'static str,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) context: TraceContext,
    pub(crate) trace_state: String,
    pub(crate) parent: Option<[u8; 8]>,
    /// The parent is another process.
    pub(crate) remote_parent: bool,
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
    pub(crate) attributes: Attributes,
    pub(crate) error: Option<String>,
}

/// From when to when.
pub(crate) type Period = (SystemTime, SystemTime);

/// A request as it came, as far as spans tell of it. Nothing is copied but counters of references.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) tls: bool,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) forwarded_for: Option<HeaderValue>,
    pub(crate) trace_state: Option<HeaderValue>,
    pub(crate) peer: Option<(IpAddr, u16)>,
    pub(crate) route_tag: Cow<'static, str>,
}

impl Arrived {
    /// Takes what spans tell from the head of a request.
    pub(crate) fn of<B>(request: &http::Request<B>, peer: Option<(IpAddr, u16)>, tls: bool) -> Self {
        let get = |name: header::HeaderName| request.headers().get(name).cloned();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            tls,
            host: get(header::HOST),
            user_agent: get(header::USER_AGENT),
            forwarded_for: get(header::HeaderName::from_static("x-forwarded-for")),
            trace_state: get(super::context::TRACESTATE),
            peer,
            route_tag: route_tag(request.headers()),
        }
    }

    /// What was asked for: host, and port if it is not the usual one.
    pub(crate) fn host_and_port(&self) -> (&str, Option<u16>) {
        let of_uri = self.uri.authority().map(http::uri::Authority::as_str);
        let authority = of_uri.or_else(|| self.host.as_ref()?.to_str().ok()).unwrap_or_default();
        labels::host_and_port(authority, self.tls)
    }
}

/// The ids of the spans of one request, made when it came: what is handed on names the last of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanIds {
    pub(crate) server: [u8; 8],
    pub(crate) proxy: [u8; 8],
    pub(crate) wait: [u8; 8],
    pub(crate) client: [u8; 8],
}

/// Everything recorded of one request.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    pub(crate) arrived: Arrived,
    pub(crate) trace: [u8; 16],
    pub(crate) ids: SpanIds,
    pub(crate) parent: Option<TraceContext>,
    pub(crate) whole: Period,
    /// Since when it stood in front of the breaker, and until when if that ended; no breaker, no period.
    pub(crate) wait: Option<Period>,
    /// From when it was on its way to the function; `None` if it never was.
    pub(crate) proxied: Option<SystemTime>,
    /// From when to when the function was asked, and what came of it.
    pub(crate) called: Option<(Period, Outcome)>,
    pub(crate) status: StatusCode,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) user_port: u16,
    /// What Zipline did for it.
    pub(crate) transfers: Attributes,
}

impl RequestRecord {
    /// The spans, innermost first, as they end.
    ///
    /// # Source
    /// `pkg/queue/handler.go`, `pkg/queue/sharedmain/handlers.go` and otelhttp: the client span's parent is the wait,
    /// whose context the request goes on with.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let trace_state = self.arrived.trace_state.as_ref().filter(|_| self.parent.is_some());
        let trace_state = trace_state.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let span = |scope, name: &str, kind, id, parent, (start, end): Period| Span {
            scope,
            name: name.to_owned(),
            kind,
            context: TraceContext { trace: self.trace, span: id, sampled: true },
            trace_state: trace_state.to_owned(),
            parent,
            remote_parent: false,
            start,
            end,
            attributes: Attributes::new(),
            error: None,
        };
        let ids = self.ids;
        let mut spans = Vec::with_capacity(4);
        if let Some(period) = self.wait {
            spans.push(span(
                QUEUE_SCOPE,
                names::WAIT_SPAN,
                Kind::Internal,
                ids.wait,
                Some(ids.proxy),
                period,
            ));
        }
        if let Some((period, outcome)) = self.called {
            let parent = if self.wait.is_some() { ids.wait } else { ids.proxy };
            let method = labels::method(&self.arrived.method);
            let name = if method == "_OTHER" { "HTTP".to_owned() } else { format!("HTTP {method}") };
            let mut client = span(HTTP_SCOPE, &name, Kind::Client, ids.client, Some(parent), period);
            client.attributes = self.client_attributes(outcome);
            client.error = match outcome {
                Outcome::Status(status) => (status >= 400).then(String::new),
                Outcome::Error(word) => Some(word.to_owned()),
            };
            spans.push(client);
        }
        if let Some(start) = self.proxied {
            let period = (start, self.whole.1);
            spans.push(span(
                QUEUE_SCOPE,
                names::PROXY_SPAN,
                Kind::Internal,
                ids.proxy,
                Some(ids.server),
                period,
            ));
        }
        let method = labels::method(&self.arrived.method);
        let name = if method == "_OTHER" { "HTTP" } else { method };
        let parent = self.parent.map(|parent| parent.span);
        let mut server = span(HTTP_SCOPE, name, Kind::Server, ids.server, parent, self.whole);
        server.remote_parent = self.parent.is_some();
        server.attributes = self.server_attributes();
        server.error = self.status.is_server_error().then(String::new);
        spans.push(server);
        spans
    }

    fn server_attributes(&self) -> Attributes {
        let arrived = &self.arrived;
        let (host, port) = arrived.host_and_port();
        let mut out = vec![("server.address", text(host))];
        push_method(&arrived.method, &mut out);
        out.push(("url.scheme", text(if arrived.tls { "https" } else { "http" })));
        out.extend(port.map(|port| ("server.port", number(port))));
        if let Some((address, port)) = arrived.peer {
            out.push(("network.peer.address", text(&address.to_string())));
            out.push(("network.peer.port", number(port)));
        }
        let agent = arrived.user_agent.as_ref().map(lossy).filter(|agent| !agent.is_empty());
        out.extend(agent.map(|agent| ("user_agent.original", Value::Text(agent))));
        let forwarded = arrived.forwarded_for.as_ref().map(lossy).unwrap_or_default();
        let client = forwarded.split(',').next().unwrap_or_default().to_owned();
        let client = match (client.is_empty(), arrived.peer) {
            (true, Some((address, _))) => address.to_string(),
            _ => client,
        };
        if !client.is_empty() {
            out.push(("client.address", Value::Text(client)));
        }
        out.push(("url.path", text(arrived.uri.path())));
        out.push(("network.protocol.version", text(labels::version(arrived.version))));
        out.push((names::ROUTE_TAG, text(&arrived.route_tag)));
        for (name, bytes) in
            [("http.request.body.size", self.request_bytes), ("http.response.body.size", self.response_bytes)]
        {
            if bytes > 0 {
                out.push((name, Value::Number(i64::try_from(bytes).unwrap_or(i64::MAX))));
            }
        }
        out.push(("http.response.status_code", number(self.status.as_u16())));
        out.extend(self.transfers.iter().cloned());
        out
    }

    fn client_attributes(&self, outcome: Outcome) -> Attributes {
        let path = self.arrived.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut out = Attributes::new();
        push_method(&self.arrived.method, &mut out);
        out.push(("url.full", Value::Text(format!("http://127.0.0.1:{}{path}", self.user_port))));
        out.push(("server.address", text("127.0.0.1")));
        out.push(("server.port", number(self.user_port)));
        out.push(("network.protocol.version", text(labels::version(self.arrived.version))));
        match outcome {
            Outcome::Status(status) => {
                out.push(("http.response.status_code", number(status)));
                if status >= 400 {
                    out.push(("error.type", Value::Text(status.to_string())));
                }
            }
            Outcome::Error(word) => out.push(("error.type", text(word))),
        }
        out
    }
}

/// The usual tags are known words and cost no memory.
fn route_tag(headers: &HeaderMap) -> Cow<'static, str> {
    let tag = route_tag::of(headers);
    match [route_tag::DISABLED, route_tag::DEFAULT, route_tag::UNDEFINED]
        .into_iter()
        .find(|word| *word == tag)
    {
        Some(word) => Cow::Borrowed(word),
        None => Cow::Owned(tag.into_owned()),
    }
}

fn push_method(method: &Method, out: &mut Attributes) {
    let word = labels::method(method);
    out.push(("http.request.method", text(word)));
    if word != method.as_str() {
        out.push(("http.request.method_original", text(method.as_str())));
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn number(value: u16) -> Value {
    Value::Number(value.into())
}
