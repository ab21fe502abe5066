//! The head of a request, as a data port takes it: exact, short, without a body.
//!
//! Whatever is not of this form is refused and its connection closed: where one request ends and the next one begins is never
//! guessed. What the request asks for is not looked at here.

use std::fmt;
use zipline_protocol::header;

/// Longest head of a request. A proof takes some 250 bytes.
pub const HEAD_MAX: usize = 8 * 1024;
/// Most header fields of a request.
const FIELDS_MAX: usize = 32;

/// The head of one request.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Bytes it takes, the empty line included.
    pub bytes: usize,
    /// Its method.
    pub method: String,
    /// Its target, as it stands there.
    pub target: String,
    /// The values of its `Zipline-Auth` fields that are text; see [`Proof`].
    pub proof: Proof,
    /// The value of its `Zipline-Copy` field, if there is one that is text.
    pub copy: Option<String>,
    /// Whether a body follows. None is read, so such a connection ends.
    pub has_body: bool,
    /// Whether the peer wants to use the connection again.
    pub keep_alive: bool,
}

/// What stands in the place of a proof.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// No field.
    Missing,
    /// Several fields, or one that is no text.
    Malformed,
    /// One field.
    Value(String),
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("has_body", &self.has_body)
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "Missing",
            Self::Malformed => "Malformed",
            Self::Value(_) => "Value(..)",
        })
    }
}

/// A request's head is not of the form that a data port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's head is malformed: {0}")]
pub struct HeadError(pub(super) &'static str);

/// The head at the start of `bytes`, once all of it is there.
///
/// # Errors
/// [`HeadError`]: it will never be one, or is longer than [`HEAD_MAX`].
pub fn parse(bytes: &[u8]) -> Result<Option<RequestHead>, HeadError> {
    let window = &bytes[..bytes.len().min(HEAD_MAX)];
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let end = match request.parse(window) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if window.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(HeadError("it is too long")),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError("it has too many fields")),
        Err(_) => return Err(HeadError("it is not HTTP")),
    };
    // Lines that end in a bare LF, and empty lines before the first one, are read differently elsewhere.
    if window[..end]
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == b'\n' && (at == 0 || window[at - 1] != b'\r'))
    {
        return Err(HeadError("a line does not end in CRLF"));
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(HeadError("it is not HTTP"));
    };
    if !window.starts_with(method.as_bytes()) {
        return Err(HeadError("an empty line comes first"));
    }
    if version != 1 {
        return Err(HeadError("it is not HTTP/1.1"));
    }
    let values = |name: &'static str| {
        let fields = request.headers.iter();
        fields.filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    if values("host").count() != 1 {
        return Err(HeadError("it has not one Host"));
    }
    let coded = values("transfer-encoding").next().is_some();
    let mut lengths = values("content-length");
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => 0,
        (Some(length), None) => digits(length).ok_or(HeadError("its length is malformed"))?,
        (Some(_), Some(_)) => return Err(HeadError("it has several lengths")),
    };
    if coded && values("content-length").next().is_some() {
        return Err(HeadError("it has a length and a transfer coding"));
    }
    let mut proofs = values(header::AUTH);
    let proof = match (proofs.next(), proofs.next()) {
        (None, _) => Proof::Missing,
        (Some(value), None) if value.is_ascii() => {
            std::str::from_utf8(value).map_or(Proof::Malformed, |text| Proof::Value(text.to_owned()))
        }
        _ => Proof::Malformed,
    };
    let mut copies = values(header::COPY);
    let copy = match (copies.next(), copies.next()) {
        (Some(value), None) if value.is_ascii() => std::str::from_utf8(value).ok().map(str::to_owned),
        // Whoever offers nothing in good form offers nothing.
        _ => None,
    };
    let closes = values("connection").flat_map(|value| value.split(|byte| *byte == b','));
    let keep_alive = !closes.map(<[u8]>::trim_ascii).any(|token| token.eq_ignore_ascii_case(b"close"));
    Ok(Some(RequestHead {
        bytes: end,
        method: method.to_owned(),
        target: target.to_owned(),
        proof,
        copy,
        has_body: coded || length > 0,
        keep_alive,
    }))
}

fn digits(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(fields: &str) -> Result<Option<RequestHead>, HeadError> {
        parse(format!("POST /v1/retrieve HTTP/1.1\r\nhost: h\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn one_request_is_read_up_to_its_empty_line() {
        let bytes = b"POST /v1/alive HTTP/1.1\r\nHost: h\r\nZipline-Auth: v=1\r\n\r\nPOST";
        for end in 0..bytes.len() - 4 {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes");
        }
        let head = parse(bytes).unwrap().unwrap();
        assert_eq!(head.bytes, bytes.len() - 4);
        assert_eq!((head.method.as_str(), head.target.as_str()), ("POST", "/v1/alive"));
        assert_eq!(head.proof, Proof::Value("v=1".to_owned()));
        assert!(head.keep_alive && !head.has_body);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for fields in [
            "content-length: 1\r\ncontent-length: 1\r\n",
            "content-length: +1\r\n",
            "content-length: 1, 1\r\n",
            "content-length: \r\n",
            "content-length: 99999999999999999999\r\n",
            "content-length: 0\r\ntransfer-encoding: chunked\r\n",
            "host: again\r\n",
            "folded: a\r\n b\r\n",
            "spaced : a\r\n",
            "bare: lf\n",
        ] {
            assert!(head(fields).is_err(), "{fields:?}");
        }
        for bytes in [
            "\r\nPOST / HTTP/1.1\r\nhost: h\r\n\r\n",
            "POST / HTTP/1.0\r\nhost: h\r\n\r\n",
            "POST / HTTP/1.1\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01",
        ] {
            assert!(parse(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn bodies_closing_and_proofs_are_seen() {
        assert!(head("content-length: 5\r\n").unwrap().unwrap().has_body);
        assert!(head("transfer-encoding: chunked\r\n").unwrap().unwrap().has_body);
        assert!(!head("content-length: 0\r\n").unwrap().unwrap().has_body);
        assert!(!head("connection: te, Close\r\n").unwrap().unwrap().keep_alive);
        assert_eq!(head("").unwrap().unwrap().proof, Proof::Missing);
        assert_eq!(head("zipline-auth: a\r\nzipline-auth: a\r\n").unwrap().unwrap().proof, Proof::Malformed);
    }

    #[test]
    fn heads_are_bounded() {
        let long = format!("POST /{} ", "a".repeat(HEAD_MAX));
        assert_eq!(parse(long.as_bytes()), Err(HeadError("it is too long")));
        assert!(head(&"a: b\r\n".repeat(FIELDS_MAX)).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_no_head_reaches_beyond_its_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Some(head)) = parse(&bytes) {
                prop_assert!(head.bytes <= bytes.len());
            }
        }

        #[test]
        fn what_follows_a_head_changes_nothing(
            value in "[ -~]{0,40}", rest in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let alone = format!("POST /v1/cancel HTTP/1.1\r\nhost: h\r\nzipline-auth: {value}\r\n\r\n").into_bytes();
            let followed = [alone.as_slice(), &rest].concat();
            prop_assert_eq!(parse(&alone), parse(&followed));
            prop_assert_eq!(parse(&alone).unwrap().unwrap().bytes, alone.len());
        }
    }
}
