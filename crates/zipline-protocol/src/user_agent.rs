//! The `User-Agent` that makes software which does not know Zipline refuse a deferred request (section 5.1).

/// Stock Knative's queue-proxy answers requests whose `User-Agent` starts so itself.
pub const KNATIVE_PROBE: &str = "Knative-Activator-Probe";

const MARK: &[u8] = b"Knative-Activator-Probe zipline/1";

/// The `User-Agent` of a deferred request, from the function's own.
pub fn defer(original: Option<&[u8]>) -> Vec<u8> {
    let mut out = MARK.to_vec();
    if let Some(original) = original {
        out.push(b' ');
        out.extend_from_slice(original);
    }
    out
}

/// The function's own `User-Agent` of a deferred request: `None` if this is not one, `Some(None)` if it had none.
pub fn restore(value: &[u8]) -> Option<Option<&[u8]>> {
    match value.strip_prefix(MARK)? {
        [] => Some(None),
        [b' ', original @ ..] => Some(Some(original)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_what_was_there() {
        for original in [None, Some(&b""[..]), Some(&b"curl/8"[..])] {
            let deferred = defer(original);
            assert!(deferred.starts_with(KNATIVE_PROBE.as_bytes()));
            assert_eq!(restore(&deferred), Some(original));
        }
        assert_eq!(restore(b"curl/8"), None);
        assert_eq!(restore(b"Knative-Activator-Probe"), None);
        assert_eq!(restore(b"Knative-Activator-Probe zipline/12"), None);
    }
}
