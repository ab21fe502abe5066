//! Amounts of bytes as people write them.

/// A text is not an amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an amount of bytes: write for example 131072, 128KiB, 64MiB or 1GiB")]
pub struct QuantityError {
    /// What was given, cut to 64 characters.
    pub text: String,
}

/// Reads an amount of bytes: a whole number, with `B`, `KiB`, `MiB`, `GiB` or Kubernetes' `Ki`, `Mi`, `Gi` behind it.
///
/// # Errors
/// [`QuantityError`] for anything else, amounts of 2^63 bytes and more included.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    let refuse = || QuantityError { text: text.chars().take(64).collect() };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" | "Ki" => 1 << 10,
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(factor).filter(|bytes| *bytes < 1 << 63).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, bytes) in
            [("0", 0), ("131072", 131_072), ("128KiB", 131_072), ("64 MiB", 64 << 20), ("1Gi", 1 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "-1", "1KB", "KiB", "1.5MiB", "99999999999GiB", "0x10", "١"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
