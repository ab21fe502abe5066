//! The W3C trace context: where a request stands in its trace.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header of the trace context. `tracestate` and `baggage` beside it are passed on as they came.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Which trace, which span of it, and whether it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    pub(crate) sampled: bool,
}

impl TraceContext {
    /// The context a request brought; `None` if it brought none, or none that is valid.
    ///
    /// # Source
    /// W3C Trace Context, level 1, section 3.2; `go.opentelemetry.io/otel/propagation` for what is let through.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(TRACEPARENT)?.as_bytes();
        let mut fields = text.split(|byte| *byte == b'-');
        let version: [u8; 1] = hex(fields.next()?)?;
        let trace: [u8; 16] = hex(fields.next()?)?;
        let span: [u8; 8] = hex(fields.next()?)?;
        let [flags]: [u8; 1] = hex(fields.next()?)?;
        // Version 0 has nothing behind the flags and no flags beyond the first two; later ones may; 255 is no version.
        let plain = fields.next().is_none() && flags <= 3;
        let known = version != [255] && (version != [0] || plain);
        let named = trace != [0; 16] && span != [0; 8];
        (known && named).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The header that hands this context on.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        push_hex(&self.trace, &mut text);
        text.push('-');
        push_hex(&self.span, &mut text);
        text.push_str(if self.sampled { "-01" } else { "-00" });
        HeaderValue::try_from(text).expect("hexadecimal digits and dashes are a header value")
    }
}

/// `bytes` in hexadecimal digits.
pub(crate) fn push_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
    }
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        // Upper case is not allowed.
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, text.parse().unwrap());
        TraceContext::of(&headers)
    }

    #[test]
    fn what_is_read_is_written() {
        for flags in ["00", "01"] {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            let context = of(&text).unwrap();
            assert_eq!((context.sampled, context.header().to_str().unwrap()), (flags == "01", text.as_str()));
        }
    }

    #[test]
    fn what_is_not_valid_is_no_context() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-08",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert!(of("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-09-more").is_some());
        assert_eq!(TraceContext::of(&HeaderMap::new()), None);
    }
}
