//! From tokens to a tree; whatever is not supported ends here.

use super::TemplateError;
use super::fields::{Field, Kind, supported_fields};
use super::format::Format;
use super::lex::{Token, error, tokens};
use super::tree::{Command, Function, HeaderMethod, Node, Operand, Pipeline, supported_functions};

/// Deepest nesting of parentheses and conditions.
const DEPTH_MAX: usize = 64;

pub(super) fn template(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, end: text.len() };
    let (nodes, end) = parser.nodes(0)?;
    match end {
        Stop::Template => Ok(nodes),
        Stop::Else(at) => Err(error(at, "unexpected {{else}}")),
        Stop::End(at) => Err(error(at, "unexpected {{end}}")),
    }
}

/// What ended a list of nodes, and where.
enum Stop {
    Template,
    Else(usize),
    End(usize),
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    /// Where the next token begins in the text.
    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(at, _)| *at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek() == Some(&Token::Space) {
            self.at += 1;
        }
    }

    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Stop), TemplateError> {
        if depth > DEPTH_MAX {
            return Err(error(self.place(), format!("more than {DEPTH_MAX} conditions in each other")));
        }
        let mut nodes = Vec::new();
        loop {
            let place = self.place();
            match self.next() {
                None => return Ok((nodes, Stop::Template)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                // Between actions there is nothing but text.
                Some(_) => {
                    self.skip_space();
                    let word = match self.peek() {
                        Some(Token::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match word.as_str() {
                        "if" => {
                            self.at += 1;
                            nodes.push(self.condition(depth)?);
                        }
                        "end" => {
                            self.at += 1;
                            self.close("end")?;
                            return Ok((nodes, Stop::End(place)));
                        }
                        "else" => {
                            self.at += 1;
                            return Ok((nodes, Stop::Else(place)));
                        }
                        _ => {
                            let pipeline = self.pipeline("an action", false, 0)?;
                            nodes.push(Node::Print(pipeline));
                        }
                    }
                }
            }
        }
    }

    /// What follows `if`, up to and with its `end`.
    fn condition(&mut self, depth: usize) -> Result<Node, TemplateError> {
        let begin = self.place();
        let condition = self.pipeline("if", false, 0)?;
        let (then, end) = self.nodes(depth + 1)?;
        let otherwise = match end {
            Stop::Template => return Err(error(begin, "this if has no {{end}}")),
            Stop::End(_) => Vec::new(),
            Stop::Else(_) => {
                self.skip_space();
                if self.peek() == Some(&Token::Word("if".to_owned())) {
                    self.at += 1;
                    vec![self.condition(depth + 1)?]
                } else {
                    self.close("else")?;
                    match self.nodes(depth + 1)? {
                        (otherwise, Stop::End(_)) => otherwise,
                        (_, Stop::Else(at)) => return Err(error(at, "expected end; found {{else}}")),
                        (_, Stop::Template) => return Err(error(begin, "this if has no {{end}}")),
                    }
                }
            }
        };
        Ok(Node::If { condition, then, otherwise })
    }

    fn close(&mut self, what: &str) -> Result<(), TemplateError> {
        self.skip_space();
        let place = self.place();
        match self.next() {
            Some(Token::Close) => Ok(()),
            other => Err(error(place, format!("unexpected {} in {what}", show(other.as_ref())))),
        }
    }

    /// A pipeline and what closes it: a parenthesis or the end of the action.
    fn pipeline(&mut self, context: &str, inner: bool, depth: usize) -> Result<Pipeline, TemplateError> {
        if depth > DEPTH_MAX {
            return Err(error(self.place(), format!("more than {DEPTH_MAX} parentheses in each other")));
        }
        let closing = if inner { Token::RightParen } else { Token::Close };
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            let place = self.place();
            if self.peek() == Some(&closing) && commands.is_empty() {
                return Err(error(place, format!("missing value for {context}")));
            }
            let piped = commands.last().map(kind_of);
            commands.push(self.command(piped, depth)?);
            self.skip_space();
            let place = self.place();
            match self.next() {
                Some(Token::Pipe) => {}
                Some(token) if token == closing => return Ok(Pipeline(commands)),
                None => return Err(error(place, "unclosed action")),
                other => {
                    return Err(error(place, format!("unexpected {} in {context}", show(other.as_ref()))));
                }
            }
        }
    }

    /// A value, or a function with its arguments. `piped` is the kind of what comes through the pipe.
    fn command(&mut self, piped: Option<Kind>, depth: usize) -> Result<Command, TemplateError> {
        let begin = self.place();
        let head = match self.peek().cloned() {
            Some(Token::Word(name)) if !is_literal(&name) => {
                self.at += 1;
                Head::Function(function(&name, begin)?)
            }
            Some(Token::Field(path)) if header_method(&path).is_some() => {
                self.at += 1;
                Head::Header(header_method(&path).unwrap_or(HeaderMethod::Get))
            }
            _ => Head::Value(self.operand(depth)?),
        };
        let mut arguments = Vec::new();
        while self.peek() == Some(&Token::Space) {
            self.skip_space();
            if matches!(self.peek(), None | Some(Token::Close | Token::Pipe | Token::RightParen)) {
                break;
            }
            arguments.push(self.operand(depth)?);
        }
        let count = arguments.len() + usize::from(piped.is_some());
        match head {
            Head::Value(value) if count == 0 && value == Operand::Nil => {
                Err(error(begin, "nil is not a command"))
            }
            Head::Value(value) if count == 0 => Ok(Command::Value(value)),
            Head::Value(_) => Err(error(begin, "only a function or a method takes arguments")),
            Head::Header(method) if count == 1 => Ok(Command::Header(method, arguments)),
            Head::Header(_) => Err(error(begin, "this method of Header takes one argument, a header's name")),
            Head::Function(function) if !function.arguments().contains(&count) => {
                let wanted = function.arguments();
                let wanted = if wanted.start() == wanted.end() {
                    wanted.start().to_string()
                } else {
                    format!("{} to {}", wanted.start(), wanted.end())
                };
                Err(error(begin, format!("{} takes {wanted} arguments, not {count}", function.name())))
            }
            Head::Function(function) => {
                if function == Function::Printf {
                    check_printf(&arguments, piped).map_err(|problem| error(begin, problem))?;
                }
                Ok(Command::Call(function, arguments))
            }
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, TemplateError> {
        let place = self.place();
        let operand = match self.next() {
            Some(Token::Field(path)) => field(&path, place)?,
            Some(Token::Quoted(text)) => Operand::Text(text),
            Some(Token::Number(text)) => number(&text, place)?,
            Some(Token::Char(character)) => Operand::Int(i64::from(u32::from(character))),
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "nil" => Operand::Nil,
                name => {
                    // A function without arguments is a value too; those there are make no sense so.
                    function(name, place)?;
                    return Err(error(place, format!("put {name} and its arguments in parentheses")));
                }
            },
            Some(Token::LeftParen) => Operand::Pipeline(self.pipeline("parentheses", true, depth + 1)?),
            Some(Token::Variable(name)) => {
                return Err(error(place, format!("variables are not supported: ${name}")));
            }
            other => return Err(error(place, format!("unexpected {}", show(other.as_ref())))),
        };
        if matches!(self.peek(), None | Some(Token::Space | Token::Close | Token::Pipe | Token::RightParen)) {
            return Ok(operand);
        }
        let place = self.place();
        let found = show(self.peek());
        Err(error(place, format!("unexpected {found} behind a value")))
    }
}

enum Head {
    Function(Function),
    Header(HeaderMethod),
    Value(Operand),
}

fn is_literal(word: &str) -> bool {
    matches!(word, "true" | "false" | "nil")
}

fn header_method(path: &str) -> Option<HeaderMethod> {
    match path {
        ".Request.Header.Get" => Some(HeaderMethod::Get),
        ".Request.Header.Values" => Some(HeaderMethod::Values),
        _ => None,
    }
}

fn function(name: &str, at: usize) -> Result<Function, TemplateError> {
    Function::named(name).ok_or_else(|| {
        let supported = supported_functions().join(", ");
        error(at, format!("{name} is not supported; there are if, else, end and the functions {supported}"))
    })
}

fn field(path: &str, at: usize) -> Result<Operand, TemplateError> {
    if header_method(path).is_some() {
        return Err(error(at, format!("put {path} and the header's name in parentheses")));
    }
    Field::at(path).map(Operand::Field).ok_or_else(|| {
        let supported = supported_fields().join(", ");
        error(at, format!("{path} is not supported; there are {supported}, and .Request.Header.Get \"Name\""))
    })
}

fn number(text: &str, at: usize) -> Result<Operand, TemplateError> {
    let lower = text.to_ascii_lowercase();
    if !lower.trim_start_matches(['+', '-']).starts_with("0x") && lower.contains(['.', 'e']) {
        let plain = lower.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte));
        let value: Option<f64> = lower.parse().ok().filter(|value: &f64| plain && value.is_finite());
        return value.map(Operand::Float).ok_or_else(|| error(at, format!("bad number syntax: {text:?}")));
    }
    let value = crate::go::number::parse_int(text);
    value.map(Operand::Int).map_err(|_| error(at, format!("bad number syntax: {text:?}")))
}

/// The kind of what a command gives.
fn kind_of(command: &Command) -> Kind {
    match command {
        Command::Value(operand) => operand_kind(operand),
        Command::Header(HeaderMethod::Get, _) => Kind::Text,
        Command::Header(HeaderMethod::Values, _) => Kind::Other,
        Command::Call(function, _) => match function {
            Function::Eq
            | Function::Ge
            | Function::Gt
            | Function::Le
            | Function::Lt
            | Function::Ne
            | Function::Not => Kind::Bool,
            Function::Html
            | Function::Js
            | Function::Print
            | Function::Printf
            | Function::Println
            | Function::Urlquery => Kind::Text,
            Function::Len => Kind::Int,
            Function::And | Function::Or | Function::Index => Kind::Open,
        },
    }
}

fn operand_kind(operand: &Operand) -> Kind {
    match operand {
        Operand::Field(field) => field.kind(),
        Operand::Text(_) => Kind::Text,
        Operand::Int(_) => Kind::Int,
        Operand::Float(_) => Kind::Float,
        Operand::Bool(_) => Kind::Bool,
        Operand::Nil => Kind::Other,
        Operand::Pipeline(Pipeline(commands)) => commands.last().map_or(Kind::Open, kind_of),
    }
}

fn check_printf(arguments: &[Operand], piped: Option<Kind>) -> Result<(), String> {
    let Some((Operand::Text(format), rest)) = arguments.split_first() else {
        return Err("printf takes a text as its format, written in place".to_owned());
    };
    let kinds: Vec<Kind> = rest.iter().map(operand_kind).chain(piped).collect();
    let format = Format::parse(format)?;
    format.check(&kinds)
}

fn show(token: Option<&Token>) -> String {
    match token {
        None => "end of the template".to_owned(),
        Some(Token::Text(_)) => "text".to_owned(),
        Some(Token::Open) => "{{".to_owned(),
        Some(Token::Close) => "}}".to_owned(),
        Some(Token::Field(text) | Token::Word(text) | Token::Number(text) | Token::Other(text)) => {
            format!("\"{text}\"")
        }
        Some(Token::Variable(name)) => format!("\"${name}\""),
        Some(Token::Quoted(text)) => format!("{text:?}"),
        Some(Token::Char(character)) => format!("{character:?}"),
        Some(Token::Pipe) => "\"|\"".to_owned(),
        Some(Token::LeftParen) => "\"(\"".to_owned(),
        Some(Token::RightParen) => "\")\"".to_owned(),
        Some(Token::Space) => "a blank".to_owned(),
    }
}
