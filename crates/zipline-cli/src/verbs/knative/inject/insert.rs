//! Which lines go where.

use super::super::manifests::quoted;
use super::document::{self, DocumentError, Node};

/// The API group of Knative's Services.
const GROUP: &str = "serving.knative.dev/";

/// A manifest with its lines.
#[derive(Debug)]
pub(super) struct Injected {
    pub(super) text: String,
    /// What was left alone, and why.
    pub(super) notes: Vec<String>,
}

/// Names and values.
type Pairs = [(&'static str, String)];

/// Puts variables into every container of every Knative Service in `text`, and annotations into its template.
pub(super) fn into(text: &str, variables: &Pairs, annotations: &Pairs) -> Result<Injected, DocumentError> {
    let mut work = Work { text, inserts: Vec::new(), notes: Vec::new() };
    let mut services = 0;
    for document in document::read(text)? {
        let list = document.get("items").map(Node::items).unwrap_or_default();
        for object in std::iter::once(&document).chain(list) {
            let of = |name: &str| object.get(name).and_then(Node::text).unwrap_or_default();
            if of("apiVersion").starts_with(GROUP) && of("kind") == "Service" {
                work.service(object, variables, annotations)?;
                services += 1;
            }
        }
    }
    if services == 0 {
        work.notes.push("no Service of serving.knative.dev is in it, so nothing was added".to_owned());
    }
    Ok(work.finish())
}

struct Work<'a> {
    text: &'a str,
    /// Before which line (from 0) which lines go.
    inserts: Vec<(usize, Vec<String>)>,
    notes: Vec<String>,
}

impl Work<'_> {
    fn service(
        &mut self,
        object: &Node,
        variables: &Pairs,
        annotations: &Pairs,
    ) -> Result<(), DocumentError> {
        let missing =
            |name: &str| DocumentError { line: object.line + 1, what: format!("this Service has no {name}") };
        let spec = object.get("spec").ok_or_else(|| missing("spec"))?;
        let template = spec.get("template").ok_or_else(|| missing("spec.template"))?;
        let (spec_key, pod) = template.entry("spec").ok_or_else(|| missing("spec.template.spec"))?;
        let containers = pod.get("containers").ok_or_else(|| missing("spec.template.spec.containers"))?;
        self.annotations(template, spec_key, annotations)?;
        for container in containers.items() {
            self.variables(container, variables)?;
        }
        Ok(())
    }

    fn annotations(&mut self, template: &Node, spec_key: &Node, wanted: &Pairs) -> Result<(), DocumentError> {
        block(template)?;
        let lines = |pad: usize, wanted: &[&(&str, String)]| -> Vec<String> {
            wanted.iter().map(|(name, value)| format!("{:pad$}{name}: {}", "", quoted(value))).collect()
        };
        let all: Vec<_> = wanted.iter().collect();
        let Some((metadata_key, metadata)) = template.entry("metadata") else {
            let pad = spec_key.column;
            let mut new = vec![format!("{:pad$}metadata:", ""), format!("{:pad$}  annotations:", "")];
            new.extend(lines(pad + 4, &all));
            return self.before(spec_key, new);
        };
        block(metadata)?;
        let Some((key, present)) = metadata.entry("annotations") else {
            let pad = if metadata.is_empty() { metadata_key.column + 2 } else { metadata.column };
            let mut new = vec![format!("{:pad$}annotations:", "")];
            new.extend(lines(pad + 2, &all));
            return self.after(metadata_key.line, new);
        };
        block(present)?;
        let mut missing = Vec::new();
        for pair @ (name, value) in wanted {
            match present.get(name).map(Node::text) {
                None => missing.push(pair),
                Some(Some(text)) if text == value => {}
                Some(_) => self.left_alone(present.get(name).unwrap_or(key), name),
            }
        }
        let pad = if present.is_empty() { key.column + 2 } else { present.column };
        self.after(key.line, lines(pad, &missing))
    }

    fn variables(&mut self, container: &Node, wanted: &Pairs) -> Result<(), DocumentError> {
        block(container)?;
        let lines = |pad: usize, wanted: &[&(&str, String)]| -> Vec<String> {
            wanted
                .iter()
                .flat_map(|(name, value)| {
                    [format!("{:pad$}- name: {name}", ""), format!("{:pad$}  value: {}", "", quoted(value))]
                })
                .collect()
        };
        let all: Vec<_> = wanted.iter().collect();
        let Some((key, env)) = container.entry("env") else {
            let mut new = vec![format!("{:1$}env:", "", container.column)];
            new.extend(lines(container.column + 2, &all));
            return self.after(container.last_line(), new);
        };
        block(env)?;
        let mut missing = Vec::new();
        for pair @ (name, value) in wanted {
            let present = env.items().iter().find(|item| item.get("name").and_then(Node::text) == Some(name));
            match present {
                None => missing.push(pair),
                Some(item) if item.get("value").and_then(Node::text) == Some(value) => {}
                Some(item) => self.left_alone(item, name),
            }
        }
        // `$(…)` sees only what stands before it, and nothing of ours is meant to be seen.
        match env.items().last() {
            Some(last) => {
                let dash =
                    self.text.lines().nth(last.line).and_then(|line| line.find('-')).unwrap_or(key.column);
                self.after(env.last_line(), lines(dash, &missing))
            }
            None => self.after(key.line, lines(key.column + 2, &missing)),
        }
    }

    fn left_alone(&mut self, node: &Node, name: &str) {
        self.notes.push(format!("line {}: {name} has another value and was left alone", node.line + 1));
    }

    fn before(&mut self, node: &Node, lines: Vec<String>) -> Result<(), DocumentError> {
        let start = self.text.lines().nth(node.line).unwrap_or_default();
        if start.chars().take(node.column).any(|character| character != ' ') {
            return Err(not_block(node));
        }
        self.inserts.push((node.line, lines));
        Ok(())
    }

    fn after(&mut self, line: usize, lines: Vec<String>) -> Result<(), DocumentError> {
        if !lines.is_empty() {
            self.inserts.push((line + 1, lines));
        }
        Ok(())
    }

    fn finish(mut self) -> Injected {
        self.inserts.sort_by_key(|(line, _)| *line);
        let ending = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut inserts = self.inserts.into_iter().peekable();
        let mut text = String::with_capacity(self.text.len() + 1024);
        for (number, line) in self.text.split_inclusive('\n').chain([""]).enumerate() {
            while let Some((_, new)) = inserts.next_if(|(before, _)| *before == number) {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push_str(ending);
                }
                for line in new {
                    text.push_str(&line);
                    text.push_str(ending);
                }
            }
            text.push_str(line);
        }
        Injected { text, notes: self.notes }
    }
}

/// Lines go between lines only.
fn block(node: &Node) -> Result<(), DocumentError> {
    if node.is_flow() || matches!(node.value, document::Value::Alias) {
        return Err(not_block(node));
    }
    Ok(())
}

fn not_block(node: &Node) -> DocumentError {
    DocumentError {
        line: node.line + 1,
        what: "lines cannot be inserted here: write it in block style, without braces, brackets and aliases"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests;
