//! Guesses the media type of a response that names none, as Go's servers do.
//!
//! # Source
//! The tables of the WHATWG document "MIME Sniffing" (section 7.1) that Go's `net/http` implements.

/// Bytes that are looked at.
pub(super) const LOOKED_AT: usize = 512;

/// Leading bytes of a type, compared under a mask where there is one.
struct Magic {
    mask: &'static [u8],
    pattern: &'static [u8],
    skips_blanks: bool,
    media_type: &'static str,
}

const fn exact(pattern: &'static [u8], media_type: &'static str) -> Magic {
    Magic { mask: &[], pattern, skips_blanks: false, media_type }
}

const fn masked(mask: &'static [u8], pattern: &'static [u8], media_type: &'static str) -> Magic {
    Magic { mask, pattern, skips_blanks: false, media_type }
}

/// Openings of HTML, upper case; a blank or `>` must follow.
const TAGS: [&[u8]; 17] = [
    b"<!DOCTYPE HTML",
    b"<HTML",
    b"<HEAD",
    b"<SCRIPT",
    b"<IFRAME",
    b"<H1",
    b"<DIV",
    b"<FONT",
    b"<TABLE",
    b"<A",
    b"<STYLE",
    b"<TITLE",
    b"<B",
    b"<BODY",
    b"<BR",
    b"<P",
    b"<!--",
];

const RIFF: &[u8] = b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff";

/// In the order in which they are tried.
const MAGICS: &[Magic] = &[
    Magic {
        mask: b"\xff\xff\xff\xff\xff",
        pattern: b"<?xml",
        skips_blanks: true,
        media_type: "text/xml; charset=utf-8",
    },
    exact(b"%PDF-", "application/pdf"),
    exact(b"%!PS-Adobe-", "application/postscript"),
    masked(b"\xff\xff\x00\x00", b"\xfe\xff\x00\x00", "text/plain; charset=utf-16be"),
    masked(b"\xff\xff\x00\x00", b"\xff\xfe\x00\x00", "text/plain; charset=utf-16le"),
    masked(b"\xff\xff\xff\x00", b"\xef\xbb\xbf\x00", "text/plain; charset=utf-8"),
    exact(b"\x00\x00\x01\x00", "image/x-icon"),
    exact(b"\x00\x00\x02\x00", "image/x-icon"),
    exact(b"BM", "image/bmp"),
    exact(b"GIF87a", "image/gif"),
    exact(b"GIF89a", "image/gif"),
    masked(RIFF, b"RIFF\x00\x00\x00\x00WEBPVP", "image/webp"),
    exact(b"\x89PNG\x0d\x0a\x1a\x0a", "image/png"),
    exact(b"\xff\xd8\xff", "image/jpeg"),
    masked(b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff", b"FORM\x00\x00\x00\x00AIFF", "audio/aiff"),
    exact(b"ID3", "audio/mpeg"),
    exact(b"OggS\x00", "application/ogg"),
    exact(b"MThd\x00\x00\x00\x06", "audio/midi"),
    masked(b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff", b"RIFF\x00\x00\x00\x00AVI ", "video/avi"),
    masked(b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff", b"RIFF\x00\x00\x00\x00WAVE", "audio/wave"),
];

const WEBM: &[u8] = b"\x1a\x45\xdf\xa3";

/// Tried after video/mp4.
const LATER: &[Magic] = &[
    exact(WEBM, "video/webm"),
    exact(b"\x00\x01\x00\x00", "font/ttf"),
    exact(b"OTTO", "font/otf"),
    exact(b"ttcf", "font/collection"),
    exact(b"wOFF", "font/woff"),
    exact(b"wOF2", "font/woff2"),
    exact(b"\x1f\x8b\x08", "application/x-gzip"),
    exact(b"PK\x03\x04", "application/zip"),
    exact(b"Rar!\x1a\x07\x00", "application/x-rar-compressed"),
    exact(b"Rar!\x1a\x07\x01\x00", "application/x-rar-compressed"),
    exact(b"\x00\x61\x73\x6d", "application/wasm"),
];

/// The type of a body that begins with `data`, which is not empty.
pub(super) fn guess(data: &[u8]) -> &'static str {
    let data = &data[..data.len().min(LOOKED_AT)];
    let start = data.iter().position(|byte| !is_blank(*byte)).unwrap_or(data.len());
    let rest = &data[start..];
    if TAGS.iter().any(|tag| opens(rest, tag)) {
        return "text/html; charset=utf-8";
    }
    let found = MAGICS.iter().find(|magic| magic.fits(data, rest));
    if let Some(magic) = found {
        return magic.media_type;
    }
    if is_mp4(data) {
        return "video/mp4";
    }
    if data.get(34..36) == Some(b"LP") && !data.starts_with(WEBM) {
        return "application/vnd.ms-fontobject";
    }
    if let Some(magic) = LATER.iter().find(|magic| magic.fits(data, rest)) {
        return magic.media_type;
    }
    let binary = rest.iter().any(|byte| matches!(byte, 0..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f));
    if binary { "application/octet-stream" } else { "text/plain; charset=utf-8" }
}

impl Magic {
    fn fits(&self, data: &[u8], rest: &[u8]) -> bool {
        let data = if self.skips_blanks { rest } else { data };
        if self.mask.is_empty() {
            return data.starts_with(self.pattern);
        }
        data.len() >= self.pattern.len()
            && data
                .iter()
                .zip(self.mask)
                .zip(self.pattern)
                .all(|((byte, mask), wanted)| byte & mask == *wanted)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

fn opens(data: &[u8], tag: &[u8]) -> bool {
    data.len() > tag.len()
        && data[..tag.len()].eq_ignore_ascii_case(tag)
        && matches!(data[tag.len()], b' ' | b'>')
}

fn is_mp4(data: &[u8]) -> bool {
    let Some(size) = data.first_chunk::<4>().map(|size| u32::from_be_bytes(*size) as usize) else {
        return false;
    };
    if data.len() < 12 || data.len() < size || size % 4 != 0 || data.get(4..8) != Some(b"ftyp") {
        return false;
    }
    // The fourth word is the minor version, not a brand.
    (8..size).step_by(4).filter(|at| *at != 12).any(|at| data.get(at..at + 3) == Some(b"mp4"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_as_go_tells_them() {
        let cases: [(&[u8], &str); 20] = [
            (b"plain", "text/plain; charset=utf-8"),
            (b"{\"a\": 1}", "text/plain; charset=utf-8"),
            (b"\x00\x01", "application/octet-stream"),
            (b" \n<html>", "text/html; charset=utf-8"),
            (b"<!doctype HTML>", "text/html; charset=utf-8"),
            (b"<HtMl", "text/plain; charset=utf-8"),
            (b"<h10>", "text/plain; charset=utf-8"),
            (b"\n<?xml version", "text/xml; charset=utf-8"),
            (b"%PDF-1.7", "application/pdf"),
            (b"\xef\xbb\xbfa", "text/plain; charset=utf-8"),
            (b"\xef\xbb\xbf", "text/plain; charset=utf-8"),
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"RIFF1234WEBPVP8 ", "image/webp"),
            (b"RIFF1234WAVEfmt ", "audio/wave"),
            (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "video/mp4"),
            (b"PK\x03\x04", "application/zip"),
            (b"\x1f\x8b\x08\x00", "application/x-gzip"),
            (b"\x00asm\x01", "application/wasm"),
            (b"a\x1bb", "text/plain; charset=utf-8"),
        ];
        for (data, media_type) in cases {
            assert_eq!(guess(data), media_type, "{data:?}");
        }
    }

    #[test]
    fn only_the_first_bytes_count() {
        let mut text = vec![b'a'; LOOKED_AT];
        text.push(0);
        assert_eq!(guess(&text), "text/plain; charset=utf-8");
    }
}
