//! From JSON to a probe.

use http::header::{CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING, USER_AGENT};

use super::{Check, Duration, HeaderName, HeaderValue, Json, Probe, ProbeError, Scheme, Uri, names};

pub(super) const LOOPBACK: &str = "127.0.0.1";

/// Kubernetes' default for `failureThreshold`.
const FAILURES_DEFAULT: u32 = 3;

pub(super) fn json(text: &str) -> Result<Json, ProbeError> {
    Json::parse(text).map_err(|error| ProbeError::Json(error.to_string()))
}

fn wrong(field: &str, problem: impl Into<String>) -> ProbeError {
    ProbeError::Field { field: field.to_owned(), problem: problem.into() }
}

/// The fields of one object, looked up as Go looks them up.
struct Fields<'a> {
    members: Vec<&'a (String, Json)>,
    path: String,
}

impl<'a> Fields<'a> {
    fn of(json: &'a Json, path: &str, known: &[&str], strict: bool) -> Result<Self, ProbeError> {
        Self::laid_over(&[json], path, known, strict)
    }

    /// One object after the other, as of a member that comes twice.
    fn laid_over(objects: &[&'a Json], path: &str, known: &[&str], strict: bool) -> Result<Self, ProbeError> {
        let mut members = Vec::new();
        for json in objects {
            members.extend(json.object(path.trim_end_matches('.'))?);
        }
        if strict && let Some((name, _)) = members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            let problem = format!("unknown field `{name}`, expected one of {}", known.join(", "));
            return Err(wrong(&format!("{path}{name}"), problem));
        }
        Ok(Self { members, path: path.to_owned() })
    }

    /// The last member that means `name` and is not null.
    fn get(&self, name: &str) -> Option<&'a Json> {
        self.all(name).last().copied()
    }

    fn all(&self, name: &str) -> Vec<&'a Json> {
        let lower = name.to_ascii_lowercase();
        let found =
            self.members.iter().filter(|(member, value)| names(member, &lower) && *value != Json::Null);
        found.map(|(_, value)| value).collect()
    }

    fn field(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    fn text(&self, name: &str) -> Result<String, ProbeError> {
        let mut text = String::new();
        if let Some(value) = self.get(name) {
            value.text_into(&self.field(name), &mut text)?;
        }
        Ok(text)
    }

    /// A whole number of 32 bits with sign, as all of Kubernetes'; below zero counts as zero.
    fn number(&self, name: &str) -> Result<u32, ProbeError> {
        let mut number = 0;
        if let Some(value) = self.get(name) {
            value.int_into(&self.field(name), &mut number)?;
        }
        let number = i32::try_from(number)
            .map_err(|_| wrong(&self.field(name), format!("{number} does not fit 32 bits")))?;
        Ok(u32::try_from(number).unwrap_or(0))
    }

    fn seconds(&self, name: &str) -> Result<Duration, ProbeError> {
        self.number(name).map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// A port as number or as text with a number in it.
    fn port(&self, name: &str, user_port: u16) -> Result<u16, ProbeError> {
        let field = self.field(name);
        let number = match self.get(name) {
            None => 0,
            Some(Json::Int(number)) => *number,
            Some(Json::Text(text)) if text.is_empty() => 0,
            Some(Json::Text(text)) if !text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(wrong(&field, format!("port {text:?} is a name; write its number")));
            }
            Some(Json::Text(text)) => text.parse().unwrap_or(i64::MAX),
            Some(_) => return Err(wrong(&field, "is neither a number nor a string")),
        };
        match u16::try_from(number) {
            Ok(0) => Ok(user_port),
            Ok(port) => Ok(port),
            Err(_) => Err(wrong(&field, "is not a port from 1 to 65535")),
        }
    }

    fn host(&self) -> Result<String, ProbeError> {
        let host = self.text("host")?;
        match host.as_str() {
            "" => Ok(LOOPBACK.to_owned()),
            _ if host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte)) => Ok(host),
            _ => Err(wrong(&self.field("host"), format!("{host:?} is neither an address nor a name"))),
        }
    }
}

pub(super) fn probe(json: &Json, path: &str, user_port: u16, strict: bool) -> Result<Probe, ProbeError> {
    const KNOWN: [&str; 10] = [
        "httpGet",
        "tcpSocket",
        "grpc",
        "exec",
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
        "terminationGracePeriodSeconds",
    ];
    if *json == Json::Null {
        return Err(wrong(&format!("{path}the probe"), "is null"));
    }
    let fields = Fields::of(json, path, &KNOWN, strict)?;
    let handlers: Vec<&str> = KNOWN[..4].iter().copied().filter(|name| fields.get(name).is_some()).collect();
    let check = match handlers[..] {
        [] => Check::Tcp { host: LOOPBACK.to_owned(), port: user_port },
        ["httpGet"] => http_get(&fields, user_port, strict)?,
        ["tcpSocket"] => tcp_socket(&fields, user_port, strict)?,
        ["grpc"] => grpc(&fields, user_port, strict)?,
        ["exec"] => {
            let problem = "exec probes are not supported by a queue-proxy; use httpGet, tcpSocket or grpc";
            return Err(wrong(&fields.field("exec"), problem));
        }
        _ => {
            return Err(wrong(
                &fields.field(handlers[0]),
                format!("{} exclude each other", handlers.join(" and ")),
            ));
        }
    };
    let period = fields.seconds("periodSeconds")?;
    let failures = fields.number("failureThreshold")?;
    Ok(Probe {
        check,
        timeout: fields.seconds("timeoutSeconds")?.max(Duration::from_secs(1)),
        period: Some(period).filter(|period| !period.is_zero()),
        success_threshold: fields.number("successThreshold")?.max(1),
        failure_threshold: if failures == 0 { FAILURES_DEFAULT } else { failures },
        initial_delay: fields.seconds("initialDelaySeconds")?,
    })
}

fn inner<'a>(outer: &Fields<'a>, name: &str, known: &[&str], strict: bool) -> Result<Fields<'a>, ProbeError> {
    Fields::laid_over(&outer.all(name), &format!("{}{name}.", outer.path), known, strict)
}

fn tcp_socket(outer: &Fields<'_>, user_port: u16, strict: bool) -> Result<Check, ProbeError> {
    let fields = inner(outer, "tcpSocket", &["port", "host"], strict)?;
    Ok(Check::Tcp { host: fields.host()?, port: fields.port("port", user_port)? })
}

fn grpc(outer: &Fields<'_>, user_port: u16, strict: bool) -> Result<Check, ProbeError> {
    let fields = inner(outer, "grpc", &["port", "service"], strict)?;
    Ok(Check::Grpc { port: fields.port("port", user_port)?, service: fields.text("service")? })
}

fn http_get(outer: &Fields<'_>, user_port: u16, strict: bool) -> Result<Check, ProbeError> {
    let fields = inner(outer, "httpGet", &["path", "port", "host", "scheme", "httpHeaders"], strict)?;
    let scheme = fields.text("scheme")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "" | "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(wrong(&fields.field("scheme"), format!("{scheme:?} is neither HTTP nor HTTPS"))),
    };
    let path = fields.text("path")?;
    // What follows a # never leaves a client.
    let (sent, _) = path.split_once('#').unwrap_or((&path, ""));
    let target = format!("/{}", sent.strip_prefix('/').unwrap_or(sent));
    let path: Uri = target
        .parse()
        .map_err(|error| wrong(&fields.field("path"), format!("{target:?} cannot be asked for: {error}")))?;
    if path.authority().is_some() {
        return Err(wrong(&fields.field("path"), format!("{target:?} is not a path")));
    }
    let mut headers = Vec::new();
    if let Some(list) = fields.get("httpHeaders") {
        let field = fields.field("httpHeaders");
        for (at, item) in list.list(&field)?.iter().enumerate() {
            headers.extend(header(item, &format!("{field}[{at}]."), strict)?);
        }
    }
    Ok(Check::Http { scheme, host: fields.host()?, port: fields.port("port", user_port)?, path, headers })
}

/// One header; `None` for those that a probe cannot set, which Go's client leaves out too.
fn header(item: &Json, path: &str, strict: bool) -> Result<Option<(HeaderName, HeaderValue)>, ProbeError> {
    let fields = Fields::of(item, path, &["name", "value"], strict)?;
    let (name, value) = (fields.text("name")?, fields.text("value")?);
    let name = HeaderName::try_from(&name)
        .map_err(|_| wrong(&fields.field("name"), format!("{name:?} is not a header's name")))?;
    let value = HeaderValue::try_from(&value)
        .map_err(|_| wrong(&fields.field("value"), format!("{value:?} cannot stand in a header")))?;
    let fixed = [HOST, USER_AGENT, CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER].contains(&name);
    Ok((!fixed).then_some((name, value)))
}
