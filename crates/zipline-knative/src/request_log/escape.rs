//! Escaping, byte for byte as Go's template functions do it.

use crate::go::quote::is_print;

/// `js`: what stands in a JavaScript string. Bytes that are no UTF-8 stay as they are.
pub(crate) fn js(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.extend(b"\\\\"),
                '\'' => out.extend(b"\\'"),
                '"' => out.extend(b"\\\""),
                '<' => out.extend(b"\\u003C"),
                '>' => out.extend(b"\\u003E"),
                '&' => out.extend(b"\\u0026"),
                '=' => out.extend(b"\\u003D"),
                ' '..='\x7f' => out.push(character as u8),
                _ if character >= ' ' && is_print(character) => {
                    out.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => out.extend(format!("\\u{:04X}", u32::from(character)).as_bytes()),
            }
        }
        out.extend(chunk.invalid());
    }
}

/// `html`.
pub(crate) fn html(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            0 => out.extend("\u{fffd}".as_bytes()),
            b'"' => out.extend(b"&#34;"),
            b'\'' => out.extend(b"&#39;"),
            b'&' => out.extend(b"&amp;"),
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            other => out.push(*other),
        }
    }
}

/// `urlquery`: what stands in a query, with a blank as `+`.
pub(crate) fn query(text: &[u8], out: &mut Vec<u8>) {
    let escaped = |byte: u8| !(byte.is_ascii_alphanumeric() || b"-_.~ ".contains(&byte));
    out.extend(percent(text, escaped).replace(' ', "+").as_bytes());
}

/// Writes what must not stand as `%XX`. What may stand must be ASCII.
pub(super) fn percent(text: &[u8], escaped: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        if escaped(*byte) {
            out.push_str(&format!("%{byte:02X}"));
        } else {
            out.push(*byte as char);
        }
    }
    out
}
