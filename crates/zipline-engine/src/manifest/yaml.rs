//! YAML as a tree whose every node knows its line, so that each complaint can name one.
//!
//! Built from the parser's events rather than by serde, because serde stops at the first error and loses lines.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Deepest nesting accepted; a Service needs about ten levels.
const DEPTH_MAX: usize = 32;
/// Most nodes of one file, aliases counted each time they are used, so that no alias can grow without bound.
const NODES_MAX: usize = 50_000;

/// One value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Line, from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Map(Vec<Entry>),
    List(Vec<Node>),
    /// `plain`: written without quotes, so it may be a number, a truth value or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
}

/// One field of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Line of the key, from 1.
    pub(super) line: usize,
    /// Column of the key, from 0.
    pub(super) column: usize,
    pub(super) node: Node,
}

/// The text is not YAML, or uses more of it than a manifest needs.
#[derive(Debug)]
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Node {
    /// A name of the kind of value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Map(_) => "a mapping",
            Value::List(_) => "a list",
            Value::Scalar { text, plain: true } => plain_kind(text),
            Value::Scalar { .. } => "text",
        }
    }

    /// Whether nothing was written.
    pub(super) fn is_null(&self) -> bool {
        self.kind() == "nothing"
    }
}

/// What a scalar without quotes is, by YAML's core schema.
fn plain_kind(text: &str) -> &'static str {
    let number = || {
        let digits = text.trim_start_matches(['+', '-']);
        let prefixed = digits.starts_with("0x") || digits.starts_with("0o");
        let decimal = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        prefixed || (decimal && text.parse::<f64>().is_ok())
    };
    match text {
        "" | "~" | "null" | "Null" | "NULL" => "nothing",
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => "a truth value",
        _ if number() => "a number",
        _ => "text",
    }
}

/// A collection whose end has not come yet.
enum Open {
    Map { line: usize, anchor: usize, entries: Vec<Entry>, key: Option<(String, usize, usize)> },
    List { line: usize, anchor: usize, items: Vec<Node> },
}

struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
}

/// Reads every document of `text`; empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut builder = Builder { documents: Vec::new(), open: Vec::new(), anchors: Vec::new(), nodes: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            line: error.marker().line(),
            message: format!("not valid YAML: {}", error.info()),
        })?;
        builder.take(event, span.start.line(), span.start.col())?;
    }
    Ok(builder.documents)
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize, column: usize) -> Result<(), YamlError> {
        let fail = |message: &str| Err(YamlError { line, message: message.to_owned() });
        match event {
            Event::MappingStart(anchor, tag) => {
                if tag.is_some() {
                    return fail("YAML tags are not used in manifests: remove it");
                }
                self.open.push(Open::Map { line, anchor, entries: Vec::new(), key: None });
            }
            Event::SequenceStart(anchor, tag) => {
                if tag.is_some() {
                    return fail("YAML tags are not used in manifests: remove it");
                }
                self.open.push(Open::List { line, anchor, items: Vec::new() });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                let (anchor, node) = match self.open.pop() {
                    Some(Open::Map { line, anchor, entries, .. }) => {
                        (anchor, Node { line, value: Value::Map(entries) })
                    }
                    Some(Open::List { line, anchor, items }) => {
                        (anchor, Node { line, value: Value::List(items) })
                    }
                    None => return fail("unbalanced YAML"),
                };
                return self.place(node, anchor, column);
            }
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    return fail("YAML tags are not used in manifests: put text in quotes instead");
                }
                let plain = style == ScalarStyle::Plain;
                let node = Node { line, value: Value::Scalar { text: text.into_owned(), plain } };
                return self.place(node, anchor, column);
            }
            Event::Alias(anchor) => {
                let Some((_, node)) = self.anchors.iter().rev().find(|(id, _)| *id == anchor) else {
                    return fail("this alias names something that is not complete yet");
                };
                let node = node.clone();
                return self.place(node, 0, column);
            }
            Event::DocumentEnd => self.anchors.clear(),
            _ => {}
        }
        if self.open.len() > DEPTH_MAX {
            return fail(&format!("nested more than {DEPTH_MAX} levels deep"));
        }
        Ok(())
    }

    fn place(&mut self, node: Node, anchor: usize, column: usize) -> Result<(), YamlError> {
        self.nodes += count(&node);
        if self.nodes > NODES_MAX {
            return Err(YamlError { line: node.line, message: format!("more than {NODES_MAX} values") });
        }
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        match self.open.last_mut() {
            None => {
                if !node.is_null() {
                    self.documents.push(node);
                }
            }
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                None => {
                    let Value::Scalar { text, .. } = node.value else {
                        return Err(YamlError {
                            line: node.line,
                            message: "a field's name must be text".into(),
                        });
                    };
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        let message = format!("`{text}` is given twice, first in line {}", first.line);
                        return Err(YamlError { line: node.line, message });
                    }
                    *key = Some((text, node.line, column));
                }
                Some((key, line, column)) => entries.push(Entry { key, line, column, node }),
            },
        }
        Ok(())
    }
}

/// Nodes that placing `node` adds beyond those already counted: an alias or a finished collection counts its direct
/// members once more, which only makes the limit stricter.
fn count(node: &Node) -> usize {
    match &node.value {
        Value::Map(entries) => 1 + entries.iter().map(|entry| count(&entry.node)).sum::<usize>(),
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Scalar { .. } => 1,
    }
}
