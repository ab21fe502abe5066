//! Fields of heads and trailers: their limits, their values, and how they are written.

use http::{HeaderName, HeaderValue};

/// Fields that are parsed without an allocation. More take a second look.
pub(crate) const FEW_FIELDS: usize = 64;
/// Longest name of a field, in bytes: what `http::HeaderName` can hold.
pub(crate) const NAME_MAX: usize = 65_535;
/// What a field takes on average, in bytes.
pub(crate) const FIELD_BYTES: usize = 48;

/// Fields that must not come after a body: whoever framed, routed and checked the message cannot have known them.
pub(crate) const NO_TRAILERS: [&str; 21] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "www-authenticate",
];

/// The limits of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}

/// Whether an empty line has come since `seen` bytes were there.
pub(crate) fn is_complete(read: &[u8], seen: usize) -> bool {
    let since = &read[seen.saturating_sub(3)..];
    since.windows(2).any(|two| two == b"\n\n") || since.windows(3).any(|three| three == b"\n\r\n")
}

/// As many fields as there are lines, at most `limit`.
pub(crate) fn room_for_fields(read: &[u8], limit: usize) -> Vec<httparse::Header<'static>> {
    let lines = read.iter().filter(|byte| **byte == b'\n').count();
    vec![httparse::EMPTY_HEADER; lines.min(limit)]
}

/// Whether a list of tokens has this one.
pub(crate) fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|found| found.trim().eq_ignore_ascii_case(token)))
}

/// Digits and nothing else, within 64 bits.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Writes a field; with `title_case` its name as `X-Name`.
pub(crate) fn write(bytes: &mut Vec<u8>, name: &HeaderName, value: &[u8], title_case: bool) {
    let name = name.as_str().as_bytes();
    if title_case {
        let mut before = b'-';
        bytes.extend(name.iter().map(|byte| {
            let upper = before == b'-';
            before = *byte;
            if upper { byte.to_ascii_uppercase() } else { *byte }
        }));
    } else {
        bytes.extend_from_slice(name);
    }
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}
