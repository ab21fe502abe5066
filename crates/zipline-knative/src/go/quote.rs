//! Quoted text as `strconv.Unquote` reads it and `%q` writes it.

/// Reads a double-quoted Go string with all its escapes. The result is bytes, as `\xNN` can make any.
///
/// # Errors
/// What is wrong, without position.
pub(crate) fn unquote(text: &str) -> Result<Vec<u8>, &'static str> {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|_| text.len() >= 2)
        .ok_or("is not in double quotes")?;
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' => return Err("has a quote that is not escaped"),
            '\n' => return Err("has a line break"),
            '\\' => escape(&mut rest, &mut out)?,
            other => out.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Ok(out)
}

fn escape(rest: &mut std::str::Chars<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    const BAD: &str = "has an escape that Go does not know";
    let kind = rest.next().ok_or(BAD)?;
    let byte = match kind {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => u8::try_from(digits(rest, 2, 16).ok_or(BAD)?).map_err(|_| BAD)?,
        'u' | 'U' => {
            let length = if kind == 'u' { 4 } else { 8 };
            let character = digits(rest, length, 16).and_then(char::from_u32).ok_or(BAD)?;
            out.extend(character.encode_utf8(&mut [0; 4]).bytes());
            return Ok(());
        }
        '0'..='7' => {
            let first = kind.to_digit(8).ok_or(BAD)?;
            let value = first * 64 + digits(rest, 2, 8).ok_or(BAD)?;
            u8::try_from(value).map_err(|_| BAD)?
        }
        _ => return Err(BAD),
    };
    out.push(byte);
    Ok(())
}

fn digits(rest: &mut std::str::Chars<'_>, count: usize, base: u32) -> Option<u32> {
    (0..count).try_fold(0_u32, |value, _| Some(value.checked_mul(base)? + rest.next()?.to_digit(base)?))
}

/// Whether Go's `unicode.IsPrint` holds: letters, marks, numbers, punctuation, symbols and the ASCII space.
pub(crate) fn is_print(character: char) -> bool {
    // Rust's own escaping draws the same line, except that at the start of a text it also escapes combining marks: hence
    // the letter in front.
    let mut text = String::with_capacity(8);
    text.push('a');
    text.push(character);
    match character {
        '\'' | '"' | '\\' => true,
        _ => text.escape_debug().nth(1) == Some(character),
    }
}

/// Writes `bytes` as `%q` does: printable text as it is, everything else escaped.
pub(crate) fn quote(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend(b"\\\""),
                '\\' => out.extend(b"\\\\"),
                '\x07' => out.extend(b"\\a"),
                '\x08' => out.extend(b"\\b"),
                '\x0c' => out.extend(b"\\f"),
                '\n' => out.extend(b"\\n"),
                '\r' => out.extend(b"\\r"),
                '\t' => out.extend(b"\\t"),
                '\x0b' => out.extend(b"\\v"),
                _ if is_print(character) => out.extend(character.encode_utf8(&mut [0; 4]).bytes()),
                _ => {
                    let code = u32::from(character);
                    let text = match code {
                        ..0x20 | 0x7f => format!("\\x{code:02x}"),
                        ..0x1_0000 => format!("\\u{code:04x}"),
                        _ => format!("\\U{code:08x}"),
                    };
                    out.extend(text.bytes());
                }
            }
        }
        for byte in chunk.invalid() {
            out.extend(format!("\\x{byte:02x}").bytes());
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_read() {
        let all = r#""a\a\b\f\n\r\t\v\\\"\x41\u00e9\U0001f600\101é""#;
        let bytes = unquote(all).unwrap();
        assert_eq!(bytes, "a\x07\x08\x0c\n\r\t\x0b\\\"A\u{e9}\u{1f600}A\u{e9}".as_bytes());
        assert_eq!(unquote(r#""\xff""#).unwrap(), [0xff]);
        for bad in [
            "",
            "\"",
            "a",
            "\"a",
            "\"\\\"",
            "\"\\z\"",
            "\"\\x4\"",
            "\"\\ud800\"",
            "\"\\400\"",
            "\"a\nb\"",
            "\"\"\"",
        ] {
            assert!(unquote(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn printable_is_what_go_prints() {
        for printable in ['a', ' ', '~', 'é', '\u{301}', '😀', '中', '\u{fffd}', '\'', '"', '\\'] {
            assert!(is_print(printable), "{printable:?}");
        }
        for hidden in
            ['\u{7f}', '\u{a0}', '\u{ad}', '\u{200b}', '\u{2028}', '\u{3000}', '\u{e000}', '\u{feff}', '\n']
        {
            assert!(!is_print(hidden), "{hidden:?}");
        }
    }

    #[test]
    fn quotes_are_written() {
        let mut out = Vec::new();
        quote(b"a\"\\\n\x01\x7f\xff\xc2\xa0\xc3\xa9", &mut out);
        assert_eq!(out, "\"a\\\"\\\\\\n\\x01\\x7f\\xff\\u00a0\u{e9}\"".as_bytes());
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_comes_back(bytes: Vec<u8>) {
            let mut out = Vec::new();
            quote(&bytes, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(unquote(&text).unwrap(), bytes);
        }

        #[test]
        fn nothing_panics(text in "\"?[\\\\a-zA-Z0-9\"]{0,16}\"?|\\PC{0,16}") {
            let _ = unquote(&text);
        }
    }
}
