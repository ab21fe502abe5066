//! A YAML stream as trees whose nodes know where they stand.

use saphyr_parser::{Event, Parser};

/// Deepest nesting; Kubernetes' manifests need some twenty levels.
const DEPTH_MAX: usize = 64;

/// One value and its place.
#[derive(Debug)]
pub(super) struct Node {
    /// Line of its beginning, from 0.
    pub(super) line: usize,
    /// Column of its beginning, from 0.
    pub(super) column: usize,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// `flow`: written as `{…}`.
    Map { entries: Vec<(Node, Node)>, flow: bool },
    /// `flow`: written as `[…]`.
    List { items: Vec<Node>, flow: bool },
    /// `end`: line of its end, from 0.
    Scalar { text: String, end: usize },
    /// Stands for something elsewhere.
    Alias,
}

/// Not YAML, or not of a kind that lines can be inserted into.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct DocumentError {
    pub(super) line: usize,
    pub(super) what: String,
}

impl Node {
    /// The entry of a mapping: its key and its value.
    pub(super) fn entry(&self, name: &str) -> Option<(&Node, &Node)> {
        let Value::Map { entries, .. } = &self.value else { return None };
        entries.iter().find(|(key, _)| key.text() == Some(name)).map(|(key, value)| (key, value))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, value)| value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List { items, .. } => items,
            _ => &[],
        }
    }

    pub(super) fn is_flow(&self) -> bool {
        matches!(self.value, Value::Map { flow: true, .. } | Value::List { flow: true, .. })
    }

    /// Nothing was written, e.g. `env:` and no more.
    pub(super) fn is_empty(&self) -> bool {
        self.text() == Some("")
    }

    /// The last line it has anything on, from 0.
    pub(super) fn last_line(&self) -> usize {
        match &self.value {
            Value::Map { entries, .. } => entries.last().map_or(self.line, |(_, value)| value.last_line()),
            Value::List { items, .. } => items.last().map_or(self.line, Node::last_line),
            Value::Scalar { end, .. } => *end,
            Value::Alias => self.line,
        }
    }
}

/// Reads every document of a stream.
pub(super) fn read(text: &str) -> Result<Vec<Node>, DocumentError> {
    let mut reader = Reader { parser: Parser::new_from_str(text), text };
    let mut documents = Vec::new();
    while let Some((event, at)) = reader.next()? {
        match event {
            Event::StreamStart
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamEnd
            | Event::Nothing => {}
            event => documents.push(reader.node(event, at, 0)?),
        }
    }
    Ok(documents)
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    text: &'a str,
}

/// Lines and columns from 0: of the beginning, and the line of the end.
type Place = (usize, usize, usize);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Place)>, DocumentError> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Err(error)) => {
                Err(DocumentError { line: error.marker().line(), what: error.info().to_owned() })
            }
            Some(Ok((event, span))) => {
                let (start, mut end) = (span.start, span.end.line().saturating_sub(1));
                // Block scalars end where the next line begins.
                if span.end.col() == 0 && end > start.line().saturating_sub(1) {
                    end -= 1;
                }
                Ok(Some((event, (start.line().saturating_sub(1), start.col(), end))))
            }
        }
    }

    fn child(&mut self, depth: usize) -> Result<Option<Node>, DocumentError> {
        match self.next()? {
            None | Some((Event::MappingEnd | Event::SequenceEnd, _)) => Ok(None),
            Some((event, at)) => self.node(event, at, depth).map(Some),
        }
    }

    fn node(
        &mut self,
        event: Event<'a>,
        (line, column, end): Place,
        depth: usize,
    ) -> Result<Node, DocumentError> {
        if depth > DEPTH_MAX {
            return Err(DocumentError { line: line + 1, what: format!("deeper than {DEPTH_MAX} levels") });
        }
        let opens = |text: &str, with: char| {
            text.lines().nth(line).and_then(|text| text.chars().nth(column)) == Some(with)
        };
        let value = match event {
            Event::Scalar(text, ..) => Value::Scalar { text: text.into_owned(), end: end.max(line) },
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while let Some(item) = self.child(depth + 1)? {
                    items.push(item);
                }
                Value::List { items, flow: opens(self.text, '[') }
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                while let Some(key) = self.child(depth + 1)? {
                    let value = self.child(depth + 1)?.ok_or_else(|| DocumentError {
                        line: key.line + 1,
                        what: "a key without a value".to_owned(),
                    })?;
                    entries.push((key, value));
                }
                Value::Map { entries, flow: opens(self.text, '{') }
            }
            _ => Value::Alias,
        };
        Ok(Node { line, column, value })
    }
}
