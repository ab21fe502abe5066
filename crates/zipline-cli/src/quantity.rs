//! Times and sizes as people write and read them.

use std::time::Duration;

/// Reads `500ms`, `30s`, `5m`, `1h`: whole numbers with a unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("\"{text}\" is not a duration: write for example 500ms, 30s, 5m or 1h");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(refuse)
}

/// Writes a duration so that [`parse_duration`] reads the same.
pub(crate) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

/// Writes an exact size: `64MiB`, `1500B`.
pub(crate) fn show_size(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

/// Writes a measured size, rounded: `1.5 MiB`.
pub(crate) fn show_measured(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift {
            // Tenths, in whole numbers.
            let tenths = u128::from(bytes) * 10 / (1 << shift);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in
            [("0s", 0), ("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "30", "s", "-1s", "1.5s", "1 s", "1d", "99999999999999999999s", "9999999999999999999h"]
        {
            assert!(parse_duration(text).unwrap_err().contains("write for example"), "{text}");
        }
        for text in ["1500ms", "90s"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!([show_size(64 << 20), show_size(1500), show_size(0)], ["64MiB", "1500B", "0B"]);
        assert_eq!(
            [show_measured(1536), show_measured(1_000_000_000), show_measured(12)],
            ["1.5 KiB", "953.6 MiB", "12 B"]
        );
    }
}
