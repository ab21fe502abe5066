//! Typed reading of mappings: every field is named, unknown ones are refused.

use super::report::Report;
use super::yaml::{Entry, Node, Value};

/// A field or list member together with its path.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
}

/// The fields of one mapping.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    entries: &'a [Entry],
    path: String,
    line: usize,
}

/// A field that Knative knows and the standalone engine refuses, and why.
pub(super) type Refused = (&'static str, &'static str);

impl<'a> Item<'a> {
    pub(super) fn complain(&self, report: &mut Report, message: impl Into<String>) {
        report.add(self.node.line, &self.path, message);
    }

    fn wrong(&self, report: &mut Report, expected: &str) {
        self.complain(report, format!("must be {expected}, not {}", self.node.kind()));
    }

    /// The fields of a mapping. Unknown and refused ones are reported here.
    pub(super) fn fields(
        &self,
        report: &mut Report,
        allowed: &[&'static str],
        refused: &[Refused],
    ) -> Option<Fields<'a>> {
        let fields = self.any_fields(report)?;
        for entry in fields.entries {
            if allowed.contains(&entry.key.as_str()) {
                continue;
            }
            let path = fields.path_of(&entry.key);
            let message = match refused.iter().find(|(name, _)| *name == entry.key) {
                Some((_, why)) => format!("not supported here: {why}"),
                None => format!("unknown field; known here: {}", allowed.join(", ")),
            };
            report.add(entry.line, &path, message);
        }
        Some(fields)
    }

    /// The fields of a mapping whose names are free.
    pub(super) fn any_fields(&self, report: &mut Report) -> Option<Fields<'a>> {
        match &self.node.value {
            Value::Map(entries) => Some(Fields { entries, path: self.path.clone(), line: self.node.line }),
            _ => {
                self.wrong(report, "a mapping");
                None
            }
        }
    }

    /// The members of a list.
    pub(super) fn list(&self, report: &mut Report) -> Option<Vec<Item<'a>>> {
        match &self.node.value {
            Value::List(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, node)| Item { node, path: format!("{}[{index}]", self.path) })
                    .collect(),
            ),
            _ => {
                self.wrong(report, "a list");
                None
            }
        }
    }

    /// Text. A number or truth value without quotes is refused, as Kubernetes does.
    pub(super) fn text(&self, report: &mut Report) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } if self.node.kind() == "text" => Some(text),
            Value::Scalar { text, .. } if !self.node.is_null() => {
                let kind = self.node.kind();
                self.complain(report, format!("must be text, not {kind}: put it in quotes, \"{text}\""));
                None
            }
            _ => {
                self.wrong(report, "text");
                None
            }
        }
    }

    /// A whole number within bounds, both included.
    pub(super) fn number(&self, report: &mut Report, least: u32, most: u32) -> Option<u32> {
        let bounds = format!("a whole number from {least} to {most}");
        match &self.node.value {
            Value::Scalar { text, plain: true } => match text.parse::<u32>() {
                Ok(number) if (least..=most).contains(&number) => Some(number),
                _ => {
                    self.complain(report, format!("must be {bounds}, not {text}"));
                    None
                }
            },
            _ => {
                self.wrong(report, &bounds);
                None
            }
        }
    }

    /// A truth value.
    pub(super) fn truth(&self, report: &mut Report) -> Option<bool> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if text.eq_ignore_ascii_case("true") => Some(true),
            Value::Scalar { text, plain: true } if text.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                self.wrong(report, "true or false");
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, report: &mut Report) -> Option<Vec<String>> {
        let items = self.list(report)?;
        let texts: Vec<_> = items.iter().filter_map(|item| item.text(report).map(str::to_owned)).collect();
        (texts.len() == items.len()).then_some(texts)
    }

    /// A mapping from text to text.
    pub(super) fn text_map(&self, report: &mut Report) -> Vec<(&'a Entry, String, &'a str)> {
        let Some(fields) = self.any_fields(report) else { return Vec::new() };
        fields
            .entries
            .iter()
            .filter_map(|entry| {
                let item = Item { node: &entry.node, path: fields.path_of(&entry.key) };
                let text = item.text(report)?;
                Some((entry, item.path, text))
            })
            .collect()
    }
}

impl<'a> Fields<'a> {
    /// Path of a field of this mapping. Names with dots or slashes stand in brackets.
    pub(super) fn path_of(&self, name: &str) -> String {
        if name.contains(['.', '/']) {
            format!("{}[\"{name}\"]", self.path)
        } else if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The line and column of a field's name.
    pub(super) fn position(&self, name: &str) -> Option<(usize, usize)> {
        self.entries.iter().find(|entry| entry.key == name).map(|entry| (entry.line, entry.column))
    }

    /// Column of the first field, from 0.
    pub(super) fn column(&self) -> usize {
        self.entries.first().map_or(0, |entry| entry.column)
    }

    /// A field that is given and not empty.
    pub(super) fn get(&self, name: &str) -> Option<Item<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        (!entry.node.is_null()).then(|| Item { node: &entry.node, path: self.path_of(name) })
    }

    /// A field that must be given.
    pub(super) fn need(&self, report: &mut Report, name: &str, hint: &str) -> Option<Item<'a>> {
        let found = self.get(name);
        if found.is_none() {
            report.add(self.line, &self.path_of(name), format!("missing: {hint}"));
        }
        found
    }

    /// A field that must be text if it is given.
    pub(super) fn text(&self, report: &mut Report, name: &str) -> Option<&'a str> {
        self.get(name)?.text(report)
    }
}
