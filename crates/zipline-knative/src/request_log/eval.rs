//! From a tree and a request to a line.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};

use http::Version;

use super::fields::Field;
use super::tree::{Command, Function, HeaderMethod, Node, Operand, Pipeline};
use super::url::Url;
use super::value::{Value, escaped, header_entry, header_values, js, sprint, sprintln, visible};
use super::{Request, Response, Revision, Tls, compare, escape, format, trace_id};

/// The template does not fit the request; Go ends its execution there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault;

#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) response: &'a Response,
    pub(super) revision: &'a Revision,
}

impl<'a> Scope<'a> {
    pub(super) fn nodes(self, nodes: &'a [Node], out: &mut Vec<u8>) -> Result<(), Fault> {
        for node in nodes {
            match node {
                Node::Text(text) => out.extend_from_slice(text.as_bytes()),
                Node::Print(Pipeline(commands)) => self.print(commands, out)?,
                Node::If { condition, then, otherwise } => {
                    let branch = if self.pipeline(condition)?.is_true() { then } else { otherwise };
                    self.nodes(branch, out)?;
                }
            }
        }
        Ok(())
    }

    fn print(self, commands: &'a [Command], out: &mut Vec<u8>) -> Result<(), Fault> {
        // The default template is made of these; they need no text of their own.
        if let [Command::Call(Function::Js, arguments)] = commands {
            js(&self.operands(arguments)?, out);
            return Ok(());
        }
        self.commands(commands)?.show(out);
        Ok(())
    }

    fn pipeline(self, pipeline: &'a Pipeline) -> Result<Value<'a>, Fault> {
        self.commands(&pipeline.0)
    }

    fn commands(self, commands: &'a [Command]) -> Result<Value<'a>, Fault> {
        let mut piped = None;
        for command in commands {
            piped = Some(self.command(command, piped)?);
        }
        piped.ok_or(Fault)
    }

    fn command(self, command: &'a Command, piped: Option<Value<'a>>) -> Result<Value<'a>, Fault> {
        match command {
            Command::Value(operand) => self.operand(operand),
            Command::Header(method, arguments) => {
                let mut arguments = self.operands(arguments)?;
                arguments.extend(piped);
                let [Value::Text(name)] = &arguments[..] else { return Err(Fault) };
                let values = header_values(self.request.headers, name);
                Ok(match method {
                    HeaderMethod::Values => Value::List(values),
                    HeaderMethod::Get => Value::Text(Cow::Borrowed(values.first().copied().unwrap_or(b""))),
                })
            }
            Command::Call(function @ (Function::And | Function::Or), arguments) => {
                self.choose(*function, arguments, piped)
            }
            Command::Call(function, arguments) => {
                let mut values = self.operands(arguments)?;
                values.extend(piped);
                call(*function, values)
            }
        }
    }

    /// `and` and `or` end at the first argument that decides.
    fn choose(
        self,
        function: Function,
        arguments: &'a [Operand],
        piped: Option<Value<'a>>,
    ) -> Result<Value<'a>, Fault> {
        let mut last = None;
        for argument in arguments {
            let value = self.operand(argument)?;
            if value.is_true() == (function == Function::Or) {
                return Ok(value);
            }
            last = Some(value);
        }
        piped.or(last).ok_or(Fault)
    }

    fn operands(self, operands: &'a [Operand]) -> Result<Vec<Value<'a>>, Fault> {
        operands.iter().map(|operand| self.operand(operand)).collect()
    }

    fn operand(self, operand: &'a Operand) -> Result<Value<'a>, Fault> {
        Ok(match operand {
            Operand::Field(field) => self.field(field)?,
            Operand::Text(text) => Value::text(text),
            Operand::Int(value) => Value::Int(*value),
            Operand::Float(value) => Value::Float(*value),
            Operand::Bool(value) => Value::Bool(*value),
            Operand::Nil => Value::Nil,
            Operand::Pipeline(pipeline) => self.pipeline(pipeline)?,
        })
    }

    fn field(self, field: &'a Field) -> Result<Value<'a>, Fault> {
        let request = self.request;
        let url = || Url::of(request.request_uri);
        let owned = |text: String| Value::Text(Cow::Owned(text.into_bytes()));
        let header = |name: &str| {
            Value::Text(Cow::Borrowed(request.headers.get(name).map_or(b"", |value| value.as_bytes())))
        };
        Ok(match field {
            Field::Method => Value::text(request.method),
            Field::RequestUri => Value::text(request.request_uri),
            Field::Url => Value::Url(request.request_uri),
            Field::UrlPath => Value::Text(Cow::Owned(url().path())),
            Field::UrlEscapedPath => owned(url().escaped_path().into_owned()),
            Field::UrlRawQuery => Value::text(url().raw_query()),
            Field::UrlScheme => owned(url().scheme.into_owned()),
            Field::UrlHost => Value::text(url().host),
            Field::Host => Value::text(request.host),
            Field::Proto => Value::text(proto(request.version).0),
            Field::ProtoMajor => Value::Int(proto(request.version).1),
            Field::ProtoMinor => Value::Int(proto(request.version).2),
            Field::RemoteAddr => owned(peer(request.remote_addr)),
            Field::UserAgent => header("user-agent"),
            Field::Referer => header("referer"),
            Field::ContentLength => Value::Int(request.content_length),
            Field::Header => Value::Headers(request.headers),
            Field::HeaderKey(name) => match header_entry(request.headers, name.as_bytes()) {
                values if values.is_empty() => Value::Nil,
                values => Value::List(values),
            },
            Field::Tls => Value::Tls(request.tls),
            Field::TlsVersion => Value::Int(self.tls()?.version.into()),
            Field::TlsDidResume => Value::Bool(self.tls()?.resumed),
            Field::TlsCipherSuite => Value::Int(self.tls()?.cipher_suite.into()),
            Field::TlsProtocol => Value::text(&self.tls()?.protocol),
            Field::TlsServerName => Value::text(&self.tls()?.server_name),
            Field::Code => Value::Int(self.response.code.into()),
            Field::Size => Value::Int(i64::try_from(self.response.size).unwrap_or(i64::MAX)),
            Field::Latency => Value::Float(self.response.latency.as_secs_f64()),
            Field::RevisionName => Value::text(&self.revision.name),
            Field::RevisionNamespace => Value::text(&self.revision.namespace),
            Field::RevisionService => Value::text(&self.revision.service),
            Field::RevisionConfiguration => Value::text(&self.revision.configuration),
            Field::RevisionPodName => Value::text(&self.revision.pod_name),
            Field::RevisionPodIp => Value::text(&self.revision.pod_ip),
            Field::TraceId => Value::Text(Cow::Borrowed(trace_id(request.headers))),
        })
    }

    /// A field of a connection without TLS is a field of nothing.
    fn tls(self) -> Result<&'a Tls, Fault> {
        self.request.tls.ok_or(Fault)
    }
}

/// The peer as Go writes it: an IPv4 address as such, even if the socket speaks both.
fn peer(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())).to_string(),
        IpAddr::V6(_) => address.to_string(),
    }
}

/// The protocol as Go names it, with its numbers.
fn proto(version: Version) -> (&'static str, i64, i64) {
    match version {
        Version::HTTP_09 => ("HTTP/0.9", 0, 9),
        Version::HTTP_10 => ("HTTP/1.0", 1, 0),
        Version::HTTP_2 => ("HTTP/2.0", 2, 0),
        Version::HTTP_3 => ("HTTP/3.0", 3, 0),
        _ => ("HTTP/1.1", 1, 1),
    }
}

fn call<'a>(function: Function, values: Vec<Value<'a>>) -> Result<Value<'a>, Fault> {
    let text = |bytes: Vec<u8>| Ok(Value::Text(Cow::Owned(bytes)));
    match (function, &values[..]) {
        (Function::Js, values) => text(escaped(values, escape::js)),
        (Function::Html, values) => text(escaped(values, escape::html)),
        (Function::Urlquery, values) => text(escaped(values, escape::query)),
        (Function::Print, values) => text(sprint(values, true)),
        (Function::Println, values) => text(sprintln(values)),
        (Function::Printf, [Value::Text(format), rest @ ..]) => {
            let format = std::str::from_utf8(format).map_err(|_| Fault)?;
            text(format::Format::parse(format).map_err(|_| Fault)?.write(rest)?)
        }
        (Function::Not, [value]) => Ok(Value::Bool(!value.is_true())),
        (Function::Eq, [one, others @ ..]) => {
            for other in others {
                if compare::equal(one, other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        (Function::Ne, [one, other]) => compare::equal(one, other).map(|equal| Value::Bool(!equal)),
        (Function::Lt, [one, other]) => ordered(one, other, |order| order == Some(Ordering::Less)),
        (Function::Le, [one, other]) => {
            ordered(one, other, |order| matches!(order, Some(Ordering::Less | Ordering::Equal)))
        }
        // Go answers these two by the opposite.
        (Function::Gt, [one, other]) => {
            ordered(one, other, |order| !matches!(order, Some(Ordering::Less | Ordering::Equal)))
        }
        (Function::Ge, [one, other]) => ordered(one, other, |order| order != Some(Ordering::Less)),
        (Function::Len, [value]) => length(value),
        (Function::Index, [value, keys @ ..]) => {
            keys.iter().try_fold(value.clone(), |value, key| index(&value, key))
        }
        _ => Err(Fault),
    }
}

fn ordered<'a>(
    one: &Value<'_>,
    other: &Value<'_>,
    holds: impl Fn(Option<Ordering>) -> bool,
) -> Result<Value<'a>, Fault> {
    compare::order(one, other).map(|order| Value::Bool(holds(order)))
}

fn length<'a>(value: &Value<'_>) -> Result<Value<'a>, Fault> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(values) => values.len(),
        Value::Headers(headers) => visible(headers).count(),
        _ => return Err(Fault),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index<'a>(value: &Value<'a>, key: &Value<'_>) -> Result<Value<'a>, Fault> {
    match (value, key) {
        (Value::Headers(headers), Value::Text(name)) => Ok(Value::List(header_entry(headers, name))),
        (Value::List(values), Value::Int(at)) => {
            let at = usize::try_from(*at).map_err(|_| Fault)?;
            values.get(at).map(|value| Value::Text(Cow::Borrowed(*value))).ok_or(Fault)
        }
        (Value::Text(text), Value::Int(at)) => {
            let at = usize::try_from(*at).map_err(|_| Fault)?;
            text.get(at).map(|byte| Value::Int((*byte).into())).ok_or(Fault)
        }
        _ => Err(Fault),
    }
}
