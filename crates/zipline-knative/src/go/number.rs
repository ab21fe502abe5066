//! Whole numbers and truth values as `strconv` reads them.

/// Reads a whole number of 64 bits as `strconv.ParseInt(text, 0, 64)` does: a sign, a base prefix (`0x`, `0o`, `0b`, or a
/// plain `0` for octal), and underscores between digits or after the prefix.
///
/// # Errors
/// Go's words for it: `invalid syntax` or `value out of range`.
pub(crate) fn parse_int(text: &str) -> Result<i64, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    const RANGE: &str = "value out of range";
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (base, digits, prefixed) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest, true)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest, true)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest, true)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..], true)
    } else {
        (10, lower.as_str(), false)
    };
    let mut value: u64 = 0;
    let mut overflow = false;
    // A prefix counts as a digit for the rule that underscores stand between digits.
    let (mut after_digit, mut any) = (prefixed, false);
    for character in digits.chars() {
        if character == '_' {
            if !after_digit {
                return Err(SYNTAX);
            }
            after_digit = false;
            continue;
        }
        let digit = character.to_digit(base).ok_or(SYNTAX)?;
        (after_digit, any) = (true, true);
        match value.checked_mul(base.into()).and_then(|value| value.checked_add(digit.into())) {
            Some(next) => value = next,
            None => overflow = true,
        }
    }
    if !any || !after_digit {
        return Err(SYNTAX);
    }
    if overflow {
        return Err(RANGE);
    }
    if negative {
        0_i64.checked_sub_unsigned(value).ok_or(RANGE)
    } else {
        i64::try_from(value).map_err(|_| RANGE)
    }
}

/// Reads a truth value as `strconv.ParseBool` does.
///
/// # Errors
/// Go's words for it: `invalid syntax`.
pub(crate) fn parse_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("invalid syntax"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_as_go_reads_them() {
        for (text, value) in [
            ("0", 0),
            ("10", 10),
            ("+7", 7),
            ("-7", -7),
            ("0x1F", 31),
            ("0X_1f", 31),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("0_17", 15),
            ("1_000", 1000),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_int(text), Ok(value), "{text}");
        }
        for text in
            ["", "-", "+", "_1", "1_", "1__0", "0x", "0x_", "0b2", "08", "1.0", "1e3", " 1", "1 ", "ten", "٣"]
        {
            assert_eq!(parse_int(text), Err("invalid syntax"), "{text:?}");
        }
        for text in ["9223372036854775808", "-9223372036854775809", "0xFFFFFFFFFFFFFFFFFFFFFF"] {
            assert_eq!(parse_int(text), Err("value out of range"), "{text}");
        }
    }

    #[test]
    fn truth_as_go_reads_it() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_bool(text), Ok(true));
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_bool(text), Ok(false));
        }
        for text in ["", "yes", "tRUE", "on", " true"] {
            assert!(parse_bool(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[-+0-9a-fxob_]{0,24}|\\PC{0,12}") {
            let _ = (parse_int(&text), parse_bool(&text));
        }

        #[test]
        fn every_number_comes_back(value: i64) {
            prop_assert_eq!(parse_int(&value.to_string()), Ok(value));
        }
    }
}
