//! The text in which a message's trailers travel over the data port: `name: value\r\n` for each.

use http::{HeaderMap, HeaderName, HeaderValue};
use zipline_protocol::limits::{HEADER_COUNT_MAX, TRAILERS_MAX};

/// Trailers that cannot travel with a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrailersError {
    /// More bytes than allowed.
    #[error("trailers of more than {max} bytes")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// More fields than allowed.
    #[error("more than {max} trailers")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Not of the form.
    #[error("malformed trailers")]
    Malformed,
}

/// Writes trailers as they travel.
///
/// # Errors
/// [`TrailersError`] if there are too many or they are too long.
pub fn encode(trailers: &HeaderMap) -> Result<Vec<u8>, TrailersError> {
    if trailers.len() > HEADER_COUNT_MAX {
        return Err(TrailersError::TooMany { max: HEADER_COUNT_MAX });
    }
    let mut block = Vec::new();
    for (name, value) in trailers {
        block.extend_from_slice(name.as_str().as_bytes());
        block.extend_from_slice(b": ");
        block.extend_from_slice(value.as_bytes());
        block.extend_from_slice(b"\r\n");
        if block.len() > TRAILERS_MAX {
            return Err(TrailersError::TooLong { max: TRAILERS_MAX });
        }
    }
    Ok(block)
}

/// Reads trailers back.
///
/// # Errors
/// [`TrailersError`] if there are too many, they are too long, or not of the form that [`encode`] writes.
pub fn decode(block: &[u8]) -> Result<HeaderMap, TrailersError> {
    if block.len() > TRAILERS_MAX {
        return Err(TrailersError::TooLong { max: TRAILERS_MAX });
    }
    let mut trailers = HeaderMap::new();
    let mut rest = block;
    while !rest.is_empty() {
        if trailers.len() == HEADER_COUNT_MAX {
            return Err(TrailersError::TooMany { max: HEADER_COUNT_MAX });
        }
        let end = rest.windows(2).position(|pair| pair == b"\r\n").ok_or(TrailersError::Malformed)?;
        let (line, after) = rest.split_at(end);
        let colon = line.windows(2).position(|pair| pair == b": ").ok_or(TrailersError::Malformed)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| TrailersError::Malformed)?;
        let value = HeaderValue::from_bytes(&line[colon + 2..]).map_err(|_| TrailersError::Malformed)?;
        trailers.append(name, value);
        rest = &after[2..];
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn trailers_come_back() {
        let mut trailers = HeaderMap::new();
        trailers.append("grpc-status", HeaderValue::from_static("0"));
        trailers.append("grpc-message", HeaderValue::from_static("a: b"));
        trailers.append("grpc-message", HeaderValue::from_static(""));
        assert_eq!(decode(&encode(&trailers).unwrap()), Ok(trailers));
        assert_eq!(decode(b""), Ok(HeaderMap::new()));
    }

    #[test]
    fn what_is_too_much_or_malformed_is_refused() {
        for block in
            [&b"a"[..], b"a: b", b"a:b\r\n", b": b\r\n", b"a: b\r\n\r\n", b"a b: c\r\n", b"a: \x01\r\n"]
        {
            assert_eq!(decode(block), Err(TrailersError::Malformed), "{block:?}");
        }
        assert_eq!(decode(&b"a: b\r\n".repeat(257)), Err(TrailersError::TooMany { max: 256 }));
        assert_eq!(decode(&vec![b'a'; TRAILERS_MAX + 1]), Err(TrailersError::TooLong { max: TRAILERS_MAX }));
        let mut trailers = HeaderMap::new();
        trailers.append("a", HeaderValue::from_bytes(&vec![b'b'; TRAILERS_MAX]).unwrap());
        assert_eq!(encode(&trailers), Err(TrailersError::TooLong { max: TRAILERS_MAX }));
    }

    proptest! {
        #[test]
        fn arbitrary_blocks_never_panic(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&block);
        }
    }
}
