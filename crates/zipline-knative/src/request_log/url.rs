//! A request target as Go's `net/url` takes it apart and puts it together again.

use std::borrow::Cow;

use super::escape::percent;

pub(super) struct Url<'a> {
    pub(super) scheme: Cow<'a, str>,
    pub(super) host: &'a str,
    raw_path: &'a str,
    /// `None` without question mark.
    query: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// Never fails: Go refuses a request whose target it cannot take apart, and so does whoever serves it here.
    pub(super) fn of(target: &'a str) -> Self {
        let (front, query) = match target.split_once('?') {
            Some((front, query)) => (front, Some(query)),
            None => (target, None),
        };
        let origin_or_star = front.starts_with('/') || front == "*" || front.is_empty();
        let (scheme, rest) = match front.split_once("://") {
            Some((scheme, rest)) if !origin_or_star => (scheme, rest),
            // What CONNECT asks for is an authority alone.
            _ if !origin_or_star => ("", front),
            _ => return Self { scheme: "".into(), host: "", raw_path: front, query },
        };
        let (host, raw_path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self { scheme: scheme.to_ascii_lowercase().into(), host, raw_path, query }
    }

    pub(super) fn raw_query(&self) -> &'a str {
        self.query.unwrap_or("")
    }

    /// The path with escapes resolved: bytes of any kind.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw_path.len());
        let mut rest = self.raw_path.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let digit = |at: usize| after.get(at).and_then(|byte| (*byte as char).to_digit(16));
            match (first, digit(0), digit(1)) {
                (b'%', Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(0));
                    rest = &after[2..];
                }
                _ => {
                    out.push(*first);
                    rest = after;
                }
            }
        }
        out
    }

    /// The path as it is written in a URL: as it came if that is proper, else escaped anew.
    pub(super) fn escaped_path(&self) -> Cow<'a, str> {
        let proper = |byte: u8| !escaped_in_path(byte) || b"!'()*[]%".contains(&byte);
        if self.raw_path == "*" || self.raw_path.bytes().all(proper) {
            return self.raw_path.into();
        }
        percent(&self.path(), escaped_in_path).into()
    }

    /// The whole.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        if !self.scheme.is_empty() {
            out.push_str(&self.scheme);
            out.push(':');
        }
        if !self.scheme.is_empty() || !self.host.is_empty() {
            out.push_str("//");
            out.push_str(self.host);
        }
        out.push_str(&self.escaped_path());
        if let Some(query) = self.query {
            out.push('?');
            out.push_str(query);
        }
        out
    }
}

fn escaped_in_path(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte))
}
