//! The `Range` of a get: one range of bytes, or a refusal. Never silently the whole payload.

use super::query::digits;

/// Bytes `from..to` of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub(super) from: u64,
    /// Exclusive, and above `from`.
    pub(super) to: u64,
}

impl ByteRange {
    /// Reads the header's value for a payload of `length` bytes; `None` if it names no byte of it.
    pub(super) fn parse(value: &str, length: u64) -> Option<Self> {
        let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
        let range = if first.is_empty() {
            Self { from: length.saturating_sub(digits(last)?), to: length }
        } else {
            let to = if last.is_empty() { length } else { digits(last)?.checked_add(1)?.min(length) };
            Self { from: digits(first)?, to }
        };
        // A last byte before the first is caught here too, as is every range of an empty payload.
        (range.from < range.to).then_some(range)
    }

    /// The value of `Content-Range`.
    pub(super) fn content_range(self, length: u64) -> String {
        format!("bytes {}-{}/{length}", self.from, self.to - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges() {
        let range = |value| ByteRange::parse(value, 100).map(|range| (range.from, range.to));
        assert_eq!(range("bytes=0-0"), Some((0, 1)));
        assert_eq!(range("bytes=10-19"), Some((10, 20)));
        assert_eq!(range("bytes=90-"), Some((90, 100)));
        assert_eq!(range("bytes=90-1000"), Some((90, 100)));
        assert_eq!(range("bytes=-10"), Some((90, 100)));
        assert_eq!(range("bytes=-1000"), Some((0, 100)));
        assert_eq!(ByteRange::parse("bytes=10-19", 100).unwrap().content_range(100), "bytes 10-19/100");
    }

    #[test]
    fn what_names_no_byte_is_refused() {
        for value in [
            "bytes=100-",
            "bytes=20-10",
            "bytes=-0",
            "bytes=-",
            "bytes=0-18446744073709551615",
            "bytes=18446744073709551616-",
            "bytes=-5-10",
            "bytes=0-1,5-6",
            "bytes= 0-1",
            "bytes=+1-2",
            "lines=0-1",
            "",
        ] {
            assert_eq!(ByteRange::parse(value, 100), None, "{value}");
        }
        assert_eq!(ByteRange::parse("bytes=0-", 0), None);
    }
}
