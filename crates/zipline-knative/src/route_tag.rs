//! The route tag of a request, as metrics and spans show it (`kn.route.tag`).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::contract::{DEFAULT_ROUTE, ROUTE_TAG};

/// Routing by tag header is off.
pub const DISABLED: &str = "kn:disabled";
/// No tag was asked for.
pub const DEFAULT: &str = "kn:default";
/// The tag asked for exists nowhere, so the default route was taken.
pub const UNDEFINED: &str = "kn:undefined";

/// The tag of a request with these headers.
///
/// # Source
/// `pkg/queue/routetag_handler.go`.
#[must_use]
pub fn of(headers: &HeaderMap) -> Cow<'_, str> {
    let text = |name: &HeaderName| headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    match (text(&ROUTE_TAG), text(&DEFAULT_ROUTE)) {
        (b"", b"") => DISABLED.into(),
        (b"", _) => DEFAULT.into(),
        (_, b"true") => UNDEFINED.into(),
        (tag, _) => String::from_utf8_lossy(tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination() {
        for (tag, default, expected) in [
            (None, None, "kn:disabled"),
            (Some(""), Some(""), "kn:disabled"),
            (None, Some("true"), "kn:default"),
            (None, Some("false"), "kn:default"),
            (Some("blue"), Some("true"), "kn:undefined"),
            (Some("blue"), Some("false"), "blue"),
            (Some("blue"), None, "blue"),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ROUTE_TAG, tag), (DEFAULT_ROUTE, default)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(of(&headers), expected, "{tag:?} {default:?}");
        }
    }
}
