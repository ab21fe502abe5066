//! One line of the log, byte for byte as zap's encoders write it.

use std::time::Duration;

use super::{Encoding, Level, Logging, TimeEncoding};
use crate::go::float;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry<'a> {
    /// How important it is.
    pub level: Level,
    /// When, as the time since 1970 in UTC.
    pub since_epoch: Duration,
    /// The text.
    pub message: &'a str,
    /// Fields, in the order they are written.
    pub fields: &'a [(&'a str, FieldValue<'a>)],
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
}

impl Logging {
    /// Appends the line of `entry` to `out`, with its line break; nothing if the level is not written.
    ///
    /// `context` are the fields that every line has beside [`Logging::initial_fields`]: [`super::KEY_FIELD`] and
    /// [`super::POD_FIELD`].
    pub fn write(&self, entry: &Entry<'_>, context: &[(&str, FieldValue<'_>)], out: &mut Vec<u8>) {
        if entry.level < self.level {
            return;
        }
        match self.encoding {
            Encoding::Json => self.json(entry, context, out),
            Encoding::Console => self.console(entry, context, out),
        }
        out.push(b'\n');
    }

    fn json(&self, entry: &Entry<'_>, context: &[(&str, FieldValue<'_>)], out: &mut Vec<u8>) {
        let keys = &self.keys;
        let mut object = Members { out, blanks: false, first: true };
        object.out.push(b'{');
        if !keys.level.is_empty() {
            object.member(&keys.level, FieldValue::Text(entry.level.word(self.level_words)));
        }
        if !keys.time.is_empty() {
            object.key(&keys.time);
            let time = time(self.time, entry.since_epoch);
            match time {
                Time::Text(text) => string(&text, object.out),
                Time::Float(value) => object.out.extend(value.to_string().as_bytes()),
                Time::Int(value) => object.out.extend(value.to_string().as_bytes()),
            }
        }
        if !keys.name.is_empty() {
            object.member(&keys.name, FieldValue::Text(self.logger));
        }
        if !keys.message.is_empty() {
            object.member(&keys.message, FieldValue::Text(entry.message));
        }
        self.members(entry, context, &mut object);
        out.push(b'}');
    }

    fn console(&self, entry: &Entry<'_>, context: &[(&str, FieldValue<'_>)], out: &mut Vec<u8>) {
        let keys = &self.keys;
        let mut columns: Vec<String> = Vec::with_capacity(4);
        if !keys.time.is_empty() {
            columns.push(match time(self.time, entry.since_epoch) {
                Time::Text(text) => text,
                Time::Float(value) => float::display(value),
                Time::Int(value) => value.to_string(),
            });
        }
        if !keys.level.is_empty() {
            columns.push(entry.level.word(self.level_words).to_owned());
        }
        if !keys.name.is_empty() {
            columns.push(self.logger.to_owned());
        }
        if !keys.message.is_empty() {
            columns.push(entry.message.to_owned());
        }
        out.extend(columns.join("\t").as_bytes());
        let mut fields = Vec::new();
        self.members(entry, context, &mut Members { out: &mut fields, blanks: true, first: true });
        if !fields.is_empty() {
            if !columns.is_empty() {
                out.push(b'\t');
            }
            out.push(b'{');
            out.extend(fields);
            out.push(b'}');
        }
    }

    fn members(&self, entry: &Entry<'_>, context: &[(&str, FieldValue<'_>)], object: &mut Members<'_>) {
        for (name, json) in &self.initial_fields {
            object.key(name);
            object.out.extend(json.as_bytes());
        }
        for (name, value) in context.iter().chain(entry.fields) {
            object.member(name, *value);
        }
    }
}

/// Writes members of an object, with blanks after colons and commas on a console.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    blanks: bool,
    first: bool,
}

impl Members<'_> {
    fn key(&mut self, name: &str) {
        if !self.first {
            self.out.extend(if self.blanks { &b", "[..] } else { b"," });
        }
        self.first = false;
        string(name, self.out);
        self.out.extend(if self.blanks { &b": "[..] } else { b":" });
    }

    fn member(&mut self, name: &str, value: FieldValue<'_>) {
        self.key(name);
        match value {
            FieldValue::Text(text) => string(text, self.out),
            FieldValue::Int(value) => self.out.extend(value.to_string().as_bytes()),
            FieldValue::Bool(value) => self.out.extend(value.to_string().as_bytes()),
            FieldValue::Float(value) if value.is_finite() => self.out.extend(value.to_string().as_bytes()),
            FieldValue::Float(value) => string(&float::display(value), self.out),
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'\\' | b'"' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0..0x20 => out.extend(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

enum Time {
    Text(String),
    Float(f64),
    Int(u128),
}

fn time(encoding: TimeEncoding, since_epoch: Duration) -> Time {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let whole = || format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    #[expect(clippy::cast_precision_loss, reason = "as zap does it: the nearest number")]
    let nanoseconds = since_epoch.as_nanos() as f64;
    match encoding {
        TimeEncoding::Rfc3339 => Time::Text(format!("{}Z", whole())),
        TimeEncoding::Rfc3339Nano => {
            let fraction = format!(".{:09}", since_epoch.subsec_nanos());
            Time::Text(format!("{}{}Z", whole(), fraction.trim_end_matches('0').trim_end_matches('.')))
        }
        TimeEncoding::Iso8601 => Time::Text(format!("{}.{:03}Z", whole(), since_epoch.subsec_millis())),
        TimeEncoding::Millis => Time::Float(nanoseconds / 1e6),
        TimeEncoding::Epoch => Time::Float(nanoseconds / 1e9),
        TimeEncoding::Nanos => Time::Int(since_epoch.as_nanos()),
    }
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March have their leap day at the end; eras of 400 years all have the same length.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let calendar = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(calendar <= 2), calendar, of_month)
}
