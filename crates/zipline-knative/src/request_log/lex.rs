//! From text to tokens, as Go's template lexer cuts them.

use super::TemplateError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// What stands outside of actions, trimmed as asked for.
    Text(String),
    /// The begin of an action.
    Open,
    /// The end of an action.
    Close,
    /// `.Request.Method`, or `.` alone; with `$` in front it is the same.
    Field(String),
    /// A word that starts with a letter.
    Word(String),
    /// A variable other than `$`.
    Variable(String),
    /// The content of a quoted text.
    Quoted(String),
    /// A number.
    Number(String),
    /// The value of a character constant.
    Char(char),
    Pipe,
    LeftParen,
    RightParen,
    /// At least one blank between operands.
    Space,
    /// `=`, `:=`, `,` and other characters that mean nothing here.
    Other(String),
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

pub(super) fn error(at: usize, problem: impl Into<String>) -> TemplateError {
    TemplateError { at, problem: problem.into() }
}

/// The tokens with where they begin.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, TemplateError> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    let mut trim_next = false;
    loop {
        let rest = lexer.rest();
        let begin = lexer.at;
        let end = rest.find(LEFT).unwrap_or(rest.len());
        let mut plain = &rest[..end];
        if trim_next {
            plain = plain.trim_start_matches(BLANKS);
        }
        if end == rest.len() {
            lexer.text_token(begin, plain);
            return Ok(lexer.tokens);
        }
        lexer.at += end + LEFT.len();
        let trims = lexer.rest().starts_with('-') && lexer.rest()[1..].starts_with(BLANKS);
        if trims {
            plain = plain.trim_end_matches(BLANKS);
            lexer.at += 2;
        }
        lexer.text_token(begin, plain);
        trim_next = if lexer.rest().starts_with("/*") { lexer.comment()? } else { lexer.action()? };
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<(usize, Token)>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn text_token(&mut self, at: usize, plain: &str) {
        if !plain.is_empty() {
            self.tokens.push((at, Token::Text(plain.to_owned())));
        }
    }

    /// Length of the end of an action if it is here, and whether it trims.
    fn closing(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        if rest.starts_with(RIGHT) {
            return Some((RIGHT.len(), false));
        }
        let trimmed = rest.strip_prefix(BLANKS)?.strip_prefix('-')?;
        trimmed.starts_with(RIGHT).then_some((2 + RIGHT.len(), true))
    }

    fn comment(&mut self) -> Result<bool, TemplateError> {
        let begin = self.at;
        let end = self.rest().find("*/").ok_or_else(|| error(begin, "unclosed comment"))?;
        self.at += end + 2;
        let (length, trims) =
            self.closing().ok_or_else(|| error(begin, "comment ends before closing delimiter"))?;
        self.at += length;
        Ok(trims)
    }

    /// The inside of an action; whether its end trims.
    fn action(&mut self) -> Result<bool, TemplateError> {
        self.tokens.push((self.at, Token::Open));
        loop {
            let begin = self.at;
            if let Some((length, trims)) = self.closing() {
                self.tokens.push((begin, Token::Close));
                self.at += length;
                return Ok(trims);
            }
            let rest = self.rest();
            let first = rest.chars().next().ok_or_else(|| error(begin, "unclosed action"))?;
            let token = match first {
                _ if BLANKS.contains(&first) => {
                    while self.closing().is_none() && self.rest().starts_with(BLANKS) {
                        self.at += 1;
                    }
                    Token::Space
                }
                '|' => self.single(Token::Pipe),
                '(' => self.single(Token::LeftParen),
                ')' => self.single(Token::RightParen),
                '"' => self.quoted()?,
                '`' => self.raw()?,
                '\'' => self.character()?,
                '$' => self.variable(),
                '.' if !rest[1..].starts_with(|next: char| next.is_ascii_digit()) => self.field(),
                '+' | '-' | '.' | '0'..='9' => self.number(),
                _ if is_name(first) => {
                    let word = self.name();
                    Token::Word(word)
                }
                _ => {
                    self.at += first.len_utf8();
                    Token::Other(first.to_string())
                }
            };
            self.tokens.push((begin, token));
        }
    }

    fn single(&mut self, token: Token) -> Token {
        self.at += 1;
        token
    }

    fn name(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|character| !is_name(character)).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }

    /// A chain of names, each with a dot in front; the dot alone if no name follows.
    fn field(&mut self) -> Token {
        let mut path = String::new();
        while self.rest().starts_with('.') {
            self.at += 1;
            let name = self.name();
            path.push('.');
            path.push_str(&name);
            if name.is_empty() {
                break;
            }
        }
        Token::Field(path)
    }

    fn variable(&mut self) -> Token {
        self.at += 1;
        let name = self.name();
        if !name.is_empty() {
            return Token::Variable(name);
        }
        if self.rest().starts_with('.') { self.field() } else { Token::Field(".".to_owned()) }
    }

    fn number(&mut self) -> Token {
        let rest = self.rest();
        let belongs = |(at, character): (usize, char)| {
            let sign = matches!(character, '+' | '-');
            let exponent = at > 0 && matches!(rest.as_bytes()[at - 1], b'e' | b'E' | b'p' | b'P');
            character == '.' || is_name(character) || (sign && (at == 0 || exponent))
        };
        let end = rest.char_indices().find(|item| !belongs(*item)).map_or(rest.len(), |(at, _)| at);
        self.at += end;
        Token::Number(rest[..end].to_owned())
    }

    fn quoted(&mut self) -> Result<Token, TemplateError> {
        let begin = self.at;
        let end = self.until('"').ok_or_else(|| error(begin, "unterminated quoted string"))?;
        let bytes = crate::go::quote::unquote(&self.text[begin..end])
            .map_err(|problem| error(begin, format!("this text {problem}")))?;
        let text = String::from_utf8(bytes).map_err(|_| error(begin, "this text is not UTF-8"))?;
        Ok(Token::Quoted(text))
    }

    fn raw(&mut self) -> Result<Token, TemplateError> {
        let begin = self.at;
        let rest = &self.rest()[1..];
        let end = rest.find('`').ok_or_else(|| error(begin, "unterminated raw quoted string"))?;
        self.at += end + 2;
        // Go drops carriage returns from raw texts.
        Ok(Token::Quoted(rest[..end].replace('\r', "")))
    }

    fn character(&mut self) -> Result<Token, TemplateError> {
        let begin = self.at;
        let problem = || error(begin, "not a character constant");
        let end = self.until('\'').ok_or_else(problem)?;
        let inner = &self.text[begin + 1..end - 1];
        // In double quotes an escape means the same, but for the quotes themselves.
        let text = match inner {
            "\\'" => "'".to_owned(),
            "\"" => "\"".to_owned(),
            _ => {
                let bytes = crate::go::quote::unquote(&format!("\"{inner}\"")).map_err(|_| problem())?;
                String::from_utf8(bytes).map_err(|_| problem())?
            }
        };
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(Token::Char(character)),
            _ => Err(problem()),
        }
    }

    /// Moves behind the closing quote, which is not behind a backslash; where that is.
    fn until(&mut self, quote: char) -> Option<usize> {
        let mut escaped = false;
        for (at, character) in self.rest().char_indices().skip(1) {
            match character {
                '\n' => return None,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if character == quote => {
                    self.at += at + 1;
                    return Some(self.at);
                }
                _ => {}
            }
        }
        None
    }
}

fn is_name(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}
