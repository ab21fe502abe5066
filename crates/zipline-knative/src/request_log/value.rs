//! Values of a template, and how Go's `fmt` shows them.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use super::url::Url;
use super::{Tls, escape};
use crate::go::float;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Text(Cow<'a, [u8]>),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// The values of one header.
    List(Vec<&'a [u8]>),
    Headers(&'a HeaderMap),
    /// The request target.
    Url(&'a str),
    Tls(Option<&'a Tls>),
    Nil,
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text.as_bytes()))
    }

    /// What `if`, `and`, `or` and `not` take it for.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Bool(value) => *value,
            Self::List(values) => !values.is_empty(),
            Self::Headers(headers) => visible(headers).next().is_some(),
            Self::Url(_) => true,
            Self::Tls(tls) => tls.is_some(),
            Self::Nil => false,
        }
    }

    /// As an action prints it, and the functions that escape.
    pub(super) fn show(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => out.extend(b"<no value>"),
            other => other.show_argument(false, out),
        }
    }

    /// As `%v` prints it; only there is a pointer seen.
    pub(super) fn show_argument(&self, pointers: bool, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text),
            Self::Int(value) => out.extend(value.to_string().as_bytes()),
            Self::Float(value) => out.extend(float::display(*value).as_bytes()),
            Self::Bool(value) => out.extend(value.to_string().as_bytes()),
            Self::List(values) => show_list(values, out),
            Self::Headers(headers) => show_headers(headers, out),
            Self::Url(target) => out.extend(Url::of(target).to_text().as_bytes()),
            Self::Tls(None) | Self::Nil => out.extend(b"<nil>"),
            Self::Tls(Some(tls)) => {
                if pointers {
                    out.push(b'&');
                }
                show_tls(tls, out);
            }
        }
    }

    /// Whether `fmt` knows it as a string, beside which it puts no blank.
    fn is_string(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

/// As `fmt.Sprint`: blanks only between two values that are no strings.
pub(super) fn sprint(values: &[Value<'_>], pointers: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && !value.is_string() && !values[at - 1].is_string() {
            out.push(b' ');
        }
        match value {
            Value::Nil if !pointers => value.show(&mut out),
            _ => value.show_argument(pointers, &mut out),
        }
    }
    out
}

/// As `fmt.Sprintln`.
pub(super) fn sprintln(values: &[Value<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        value.show_argument(true, &mut out);
    }
    out.push(b'\n');
    out
}

/// The functions that escape all their arguments put together.
pub(super) fn escaped(values: &[Value<'_>], how: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    how(&sprint(values, false), &mut out);
    out
}

/// `js` of the common case without a copy.
pub(super) fn js(values: &[Value<'_>], out: &mut Vec<u8>) {
    match values {
        [Value::Text(text)] => escape::js(text, out),
        _ => escape::js(&sprint(values, false), out),
    }
}

/// The names Go's server keeps in `Request.Header`; it puts these others elsewhere.
fn is_hidden(name: &HeaderName) -> bool {
    matches!(name.as_str(), "host" | "transfer-encoding" | "trailer")
}

pub(super) fn visible(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| !is_hidden(name))
}

/// Values of a header in the order they came; none of a hidden or missing one.
pub(super) fn header_values<'a>(headers: &'a HeaderMap, name: &[u8]) -> Vec<&'a [u8]> {
    match HeaderName::from_bytes(name) {
        Ok(name) if !is_hidden(&name) => headers.get_all(name).iter().map(|value| value.as_bytes()).collect(),
        _ => Vec::new(),
    }
}

/// As [`header_values`], for a name that must be spelled as Go spells it.
pub(super) fn header_entry<'a>(headers: &'a HeaderMap, name: &[u8]) -> Vec<&'a [u8]> {
    if canonical(name) == name { header_values(headers, name) } else { Vec::new() }
}

/// Go's spelling of a header's name: capitals at the start and behind hyphens.
pub(super) fn canonical(name: &[u8]) -> Vec<u8> {
    let mut capital = true;
    name.iter()
        .map(|byte| {
            let spelled = if capital { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
            capital = *byte == b'-';
            spelled
        })
        .collect()
}

fn show_list(values: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'[');
    out.extend(values.join(&b' '));
    out.push(b']');
}

fn show_headers(headers: &HeaderMap, out: &mut Vec<u8>) {
    let mut names: Vec<_> = visible(headers).map(|name| canonical(name.as_str().as_bytes())).collect();
    names.sort();
    out.extend(b"map[");
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name);
        out.push(b':');
        show_list(&header_values(headers, name), out);
    }
    out.push(b']');
}

/// What is known, at its place in Go's `tls.ConnectionState`; certificates of clients, which are not asked for, are empty.
fn show_tls(tls: &Tls, out: &mut Vec<u8>) {
    let Tls { version, resumed, cipher_suite, protocol, server_name } = tls;
    let text = format!(
        "{{{version} true {resumed} {cipher_suite} 0 {protocol} true {server_name} [] [] [] [] [] false false}}"
    );
    out.extend(text.as_bytes());
}
