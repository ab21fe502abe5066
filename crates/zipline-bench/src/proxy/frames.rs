//! As much of HTTP/2's framing (RFC 9113, section 4) as a tiny client and a tiny server need.

use anyhow::ensure;

/// What an HTTP/2 connection begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What everybody takes without having said so.
pub(super) const FRAME_MAX: usize = 16 * 1024;
/// Window of a connection or stream before anybody has said anything.
pub(super) const WINDOW_DEFAULT: i64 = 65_535;
/// Field block of status 200 alone: an index into the static table.
pub(super) const STATUS_200: u8 = 0x88;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ACK: u8 = 1;
pub(super) const SETTING_STREAMS: u16 = 3;
pub(super) const SETTING_WINDOW: u16 = 4;

const HEAD: usize = 9;
/// What is kept of a frame that is no data; larger ones are cut, which these peers never need more of.
const KEPT_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Other,
}

/// A frame whose last byte has come.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Its length on the wire.
    pub(super) length: usize,
    /// Its content; nothing for data.
    pub(super) content: &'a [u8],
}

impl Frame<'_> {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The four bytes at `at` as a number.
    pub(super) fn number(&self, at: usize) -> u32 {
        let bytes = self.content.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_be_bytes(bytes.unwrap_or_default())
    }

    /// The settings of a frame of settings.
    pub(super) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.content.chunks_exact(6).map(|setting| {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            (name, u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
        })
    }
}

/// Takes frames out of a stream of bytes, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: Vec<u8>,
    content: Vec<u8>,
    left: usize,
}

impl Frames {
    /// Tells `told` each frame that is complete with `bytes`.
    ///
    /// # Errors
    /// What `told` gives, or a frame longer than was allowed.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut told: impl FnMut(Frame<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            if self.head.len() < HEAD {
                let wanted = (HEAD - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                if self.head.len() < HEAD {
                    return Ok(());
                }
                self.left = self.length();
                ensure!(self.left <= FRAME_MAX, "a frame of {} bytes", self.left);
            }
            let taken = self.left.min(bytes.len());
            if self.kind() != Kind::Data {
                let room = KEPT_MAX.saturating_sub(self.content.len());
                self.content.extend_from_slice(&bytes[..taken.min(room)]);
            }
            self.left -= taken;
            bytes = &bytes[taken..];
            if self.left > 0 {
                return Ok(());
            }
            let stream = [self.head[5] & 0x7f, self.head[6], self.head[7], self.head[8]];
            told(Frame {
                kind: self.kind(),
                flags: self.head[4],
                stream: u32::from_be_bytes(stream),
                length: self.length(),
                content: &self.content,
            })?;
            self.head.clear();
            self.content.clear();
        }
    }

    fn length(&self) -> usize {
        usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2])
    }

    fn kind(&self) -> Kind {
        match self.head[3] {
            0 => Kind::Data,
            1 => Kind::Headers,
            3 => Kind::Reset,
            4 => Kind::Settings,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            _ => Kind::Other,
        }
    }
}

fn head(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: usize) {
    let length = u32::try_from(length).expect("frames are at most FRAME_MAX long");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

pub(super) fn data(out: &mut Vec<u8>, stream: u32, content: &[u8], end: bool) {
    head(out, 0, if end { END_STREAM } else { 0 }, stream, content.len());
    out.extend_from_slice(content);
}

pub(super) fn headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end: bool) {
    head(out, 1, END_HEADERS | if end { END_STREAM } else { 0 }, stream, block.len());
    out.extend_from_slice(block);
}

pub(super) fn settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    head(out, 4, 0, 0, settings.len() * 6);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn settings_ack(out: &mut Vec<u8>) {
    head(out, 4, ACK, 0, 0);
}

pub(super) fn pong(out: &mut Vec<u8>, content: &[u8]) {
    head(out, 6, ACK, 0, content.len());
    out.extend_from_slice(content);
}

pub(super) fn window_update(out: &mut Vec<u8>, stream: u32, more: u32) {
    head(out, 8, 0, stream, 4);
    out.extend_from_slice(&more.to_be_bytes());
}

/// A field without indexing, its name from the static table.
pub(super) fn field(block: &mut Vec<u8>, name: u8, value: &str) {
    if name < 15 {
        block.push(name);
    } else {
        block.extend_from_slice(&[15, name - 15]);
    }
    // One byte tells lengths below 127; these values are shorter.
    block.push(u8::try_from(value.len()).unwrap_or(0) & 0x7f);
    block.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = Vec::new();
        settings(&mut wire, &[(SETTING_STREAMS, 100), (SETTING_WINDOW, 70_000)]);
        headers(&mut wire, 3, &[STATUS_200], false);
        data(&mut wire, 3, &[7; 5000], false);
        data(&mut wire, 3, b"", true);
        window_update(&mut wire, 3, 77);
        for piece in [1, 2, 9, 10, 4096, wire.len()] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for bytes in wire.chunks(piece) {
                frames
                    .feed(bytes, |frame| {
                        let settings: Vec<_> = match frame.kind {
                            Kind::Settings => frame.settings().collect(),
                            _ => Vec::new(),
                        };
                        seen.push((frame.kind, frame.stream, frame.length, frame.has(END_STREAM), settings));
                        Ok(())
                    })
                    .unwrap();
            }
            let none = Vec::new;
            assert_eq!(
                seen,
                [
                    (Kind::Settings, 0, 12, false, vec![(SETTING_STREAMS, 100), (SETTING_WINDOW, 70_000)]),
                    (Kind::Headers, 3, 1, false, none()),
                    (Kind::Data, 3, 5000, false, none()),
                    (Kind::Data, 3, 0, true, none()),
                    (Kind::WindowUpdate, 3, 4, false, none()),
                ]
            );
        }
    }
}
