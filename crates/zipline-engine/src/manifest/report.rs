//! Complaints about manifests, collected so that all of them are shown at once.

use std::fmt;

/// One complaint: where, which field, what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1; 0 if it is about the file as a whole.
    pub line: usize,
    /// Path of the field; empty if it is about the file or document as a whole.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Manifests that cannot be run, with every complaint about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// In the order of files and lines; never empty.
    pub findings: Vec<Finding>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

/// Collects complaints about one file.
#[derive(Debug)]
pub(super) struct Report {
    file: String,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(file: String) -> Self {
        Self { file, findings: Vec::new() }
    }

    pub(super) fn add(&mut self, line: usize, field: &str, message: impl Into<String>) {
        self.findings.push(Finding {
            file: self.file.clone(),
            line,
            field: field.to_owned(),
            message: message.into(),
        });
    }
}
