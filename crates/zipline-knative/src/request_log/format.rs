//! The formats of `printf`.

use super::eval::Fault;
use super::fields::Kind;
use super::value::Value;
use crate::go::quote::quote;

/// Most characters a value is filled up to or cut at.
const WIDTH_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Verb(Verb),
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Verb {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
    verb: char,
}

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// What in it is not supported.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            if character != '%' {
                plain.push(character);
                continue;
            }
            let mut verb = Verb::default();
            while let Some(flag) = rest.next_if(|next| matches!(next, '-' | '0' | '+')) {
                match flag {
                    '-' => verb.left = true,
                    '0' => verb.zeros = true,
                    _ => verb.plus = true,
                }
            }
            verb.width = number(&mut rest);
            if rest.next_if_eq(&'.').is_some() {
                verb.precision = Some(number(&mut rest));
            }
            verb.verb = rest.next().ok_or("printf: the format ends in the middle of a verb")?;
            if verb.verb == '%' && verb == (Verb { verb: '%', ..Verb::default() }) {
                plain.push('%');
                continue;
            }
            verb.check()?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Verb(verb));
        }
        pieces.push(Piece::Text(plain));
        Ok(Self(pieces))
    }

    /// Whether values of these kinds fit.
    ///
    /// # Errors
    /// Which verb does not fit what.
    pub(super) fn check(&self, kinds: &[Kind]) -> Result<(), String> {
        let verbs: Vec<&Verb> = self.verbs().collect();
        if verbs.len() != kinds.len() {
            return Err(format!("printf: {} verbs for {} values", verbs.len(), kinds.len()));
        }
        for (verb, kind) in verbs.iter().zip(kinds) {
            let fits = match verb.verb {
                's' | 'q' => *kind == Kind::Text,
                'd' => *kind == Kind::Int,
                't' => *kind == Kind::Bool,
                'f' => *kind == Kind::Float,
                _ => true,
            };
            if !fits && *kind != Kind::Open {
                return Err(format!("printf: %{} does not print a value of this kind; %v does", verb.verb));
            }
        }
        Ok(())
    }

    fn verbs(&self) -> impl Iterator<Item = &Verb> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Verb(verb) => Some(verb),
        })
    }

    /// Writes the values into the format.
    pub(super) fn write(&self, values: &[Value<'_>]) -> Result<Vec<u8>, Fault> {
        let mut values = values.iter();
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend(text.as_bytes()),
                Piece::Verb(verb) => verb.write(values.next().ok_or(Fault)?, &mut out)?,
            }
        }
        Ok(out)
    }
}

impl Verb {
    fn check(&self) -> Result<(), String> {
        let verb = self.verb;
        if !matches!(verb, 'v' | 's' | 'q' | 'd' | 't' | 'f') {
            return Err(format!("printf: %{verb} is not supported; there are %v %s %q %d %t %f and %%"));
        }
        if (self.zeros || self.plus) && !matches!(verb, 'd' | 'f') {
            return Err(format!("printf: the flags 0 and + go with %d and %f, not with %{verb}"));
        }
        if self.precision.is_some() && !matches!(verb, 's' | 'f') {
            return Err(format!("printf: a precision goes with %s and %f, not with %{verb}"));
        }
        if self.width > WIDTH_MAX || self.precision.is_some_and(|precision| precision > WIDTH_MAX) {
            return Err(format!("printf: width and precision are at most {WIDTH_MAX}"));
        }
        Ok(())
    }

    fn write(&self, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut body = Vec::new();
        match (self.verb, value) {
            ('v', value) => value.show_argument(true, &mut body),
            ('s', Value::Text(_) | Value::Url(_)) => {
                value.show_argument(false, &mut body);
                if let Some(precision) = self.precision {
                    body.truncate(length_of(&body, precision));
                }
            }
            ('q', Value::Text(_) | Value::Url(_)) => {
                let mut text = Vec::new();
                value.show_argument(false, &mut text);
                quote(&text, &mut body);
            }
            ('d', Value::Int(number)) => body.extend(number.to_string().as_bytes()),
            ('t', Value::Bool(truth)) => body.extend(truth.to_string().as_bytes()),
            ('f', Value::Float(number)) => {
                body.extend(format!("{number:.*}", self.precision.unwrap_or(6)).as_bytes());
            }
            _ => return Err(Fault),
        }
        if self.plus && body.first().is_some_and(|byte| *byte != b'-') {
            body.insert(0, b'+');
        }
        let missing = self.width.saturating_sub(count(&body));
        if self.left {
            out.extend(&body);
            out.extend(std::iter::repeat_n(b' ', missing));
        } else if self.zeros {
            let sign = usize::from(matches!(body.first(), Some(b'-' | b'+')));
            out.extend(&body[..sign]);
            out.extend(std::iter::repeat_n(b'0', missing));
            out.extend(&body[sign..]);
        } else {
            out.extend(std::iter::repeat_n(b' ', missing));
            out.extend(&body);
        }
        Ok(())
    }
}

/// Digits that come next; 0 without any.
fn number(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut value = 0_usize;
    while let Some(digit) = rest.next_if(char::is_ascii_digit).and_then(|digit| digit.to_digit(10)) {
        value = value.saturating_mul(10).saturating_add(digit as usize);
    }
    value
}

/// Characters in `text`; a byte that is none counts as one.
fn count(text: &[u8]) -> usize {
    text.utf8_chunks().map(|chunk| chunk.valid().chars().count() + chunk.invalid().len()).sum()
}

/// Bytes of the first `characters` characters.
fn length_of(text: &[u8], characters: usize) -> usize {
    let mut lengths = Vec::new();
    for chunk in text.utf8_chunks() {
        lengths.extend(chunk.valid().chars().map(char::len_utf8));
        lengths.extend(chunk.invalid().iter().map(|_| 1));
    }
    lengths.iter().take(characters).sum()
}
