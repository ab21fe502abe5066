//! Manifests: `serving.knative.dev/v1` Services, one or more per file, as the standalone engine runs them.
//!
//! What the engine cannot do is refused by name and line, never ignored, and every complaint about every file comes at
//! once. Three things differ from a cluster: the command must be given (`image` is ignored when it is, with a note),
//! `containerPort` says nothing because ports are assigned, and `workingDir` is relative to the manifest's folder.

mod annotations;
mod container;
mod fields;
mod probe;
mod quantity;
mod report;
mod service;
mod traffic;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use probe::{Probe, ProbeAction};
pub use quantity::{QuantityError, parse_bytes};
use report::Report;
pub use report::{Finding, ManifestError};
use zipline_protocol::{FunctionName, Mode};

/// Largest manifest file, in bytes.
pub const MANIFEST_MAX: u64 = 1024 * 1024;

/// One Service, checked and with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceManifest {
    /// Service and namespace.
    pub name: FunctionName,
    /// The file it came from, as it was named.
    pub file: PathBuf,
    /// Line at which it starts, from 1.
    pub line: usize,
    /// `spec.template.metadata.name`, or `<service>-00001`.
    pub revision: String,
    /// `spec.template.metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// How many instances.
    pub scale: Scale,
    /// What the `zipline.internal/…` annotations say.
    pub settings: Settings,
    /// Requests that one instance works on at a time; 0: no limit.
    pub container_concurrency: u32,
    /// Longest time of one request.
    pub timeout: Duration,
    /// The process.
    pub container: Container,
    /// What was accepted but has no effect here; one sentence each.
    pub notes: Vec<String>,
}

/// Bounds for the number of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scale {
    /// At least this many, always.
    pub min: u32,
    /// At most this many; 0: no limit.
    pub max: u32,
    /// So many at first, if it was given.
    pub initial: Option<u32>,
}

/// Settings of one function in place of the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether it defers and opens references.
    pub mode: Option<Mode>,
    /// Smallest payload that is deferred, in bytes.
    pub threshold_bytes: Option<u64>,
    /// Memory for payloads held, per instance, in bytes.
    pub budget_bytes: Option<u64>,
}

/// The process of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The container's name.
    pub name: String,
    /// Program and first arguments; never empty.
    pub command: Vec<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Absolute folder the process starts in.
    pub working_dir: PathBuf,
    /// What the port's name says about the protocol.
    pub protocol: PortProtocol,
    /// When it is ready; none: as soon as it accepts connections.
    pub readiness_probe: Option<Probe>,
}

/// The protocol a function speaks on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortProtocol {
    /// Whatever the request came with.
    #[default]
    AsReceived,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 cleartext.
    H2c,
}

/// Reads all files.
///
/// # Errors
/// [`ManifestError`] with every complaint about every file, duplicate names across files included.
pub fn read_files<P: AsRef<Path>>(files: &[P]) -> Result<Vec<ServiceManifest>, ManifestError> {
    let mut services = Vec::new();
    let mut findings = Vec::new();
    for file in files {
        let file = file.as_ref();
        let shown = file.display().to_string();
        let complaint =
            |message: String| Finding { file: shown.clone(), line: 0, field: String::new(), message };
        let folder = std::path::absolute(file)
            .map(|path| path.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf));
        let text = match std::fs::metadata(file) {
            Ok(data) if data.len() > MANIFEST_MAX => {
                findings.push(complaint(format!(
                    "{} bytes long; a manifest may have {MANIFEST_MAX}: split it",
                    data.len()
                )));
                continue;
            }
            Ok(data) if data.is_dir() => {
                findings.push(complaint("is a folder: name the manifest files in it".into()));
                continue;
            }
            _ => std::fs::read_to_string(file),
        };
        match (text, folder) {
            (Ok(text), Ok(folder)) => collect(&text, file, &folder, &mut services, &mut findings),
            (Err(error), _) | (_, Err(error)) => {
                findings.push(complaint(format!("cannot be read: {error}")));
            }
        }
    }
    refuse_duplicates(&services, &mut findings);
    if findings.is_empty() { Ok(services) } else { Err(ManifestError { findings }) }
}

/// Reads the documents of one text. `file` is its name for messages, `folder` what `workingDir` is relative to.
///
/// # Errors
/// [`ManifestError`] with every complaint.
pub fn parse(text: &str, file: &Path, folder: &Path) -> Result<Vec<ServiceManifest>, ManifestError> {
    let mut services = Vec::new();
    let mut findings = Vec::new();
    collect(text, file, folder, &mut services, &mut findings);
    refuse_duplicates(&services, &mut findings);
    if findings.is_empty() { Ok(services) } else { Err(ManifestError { findings }) }
}

fn collect(
    text: &str,
    file: &Path,
    folder: &Path,
    services: &mut Vec<ServiceManifest>,
    findings: &mut Vec<Finding>,
) {
    let mut report = Report::new(file.display().to_string());
    match yaml::parse(text) {
        Ok(documents) => {
            if documents.is_empty() {
                report.add(0, "", "holds no document: write a serving.knative.dev/v1 Service");
            }
            for document in &documents {
                services.extend(service::read(document, file, folder, &mut report));
            }
        }
        Err(error) => report.add(error.line, "", error.message),
    }
    report.findings.sort_by_key(|finding| finding.line);
    findings.append(&mut report.findings);
}

fn refuse_duplicates(services: &[ServiceManifest], findings: &mut Vec<Finding>) {
    for (index, service) in services.iter().enumerate() {
        if let Some(first) = services[..index].iter().find(|other| other.name == service.name) {
            findings.push(Finding {
                file: service.file.display().to_string(),
                line: service.line,
                field: "metadata.name".into(),
                message: format!(
                    "{} is declared twice, first in {}:{}: rename or remove one",
                    service.name,
                    first.file.display(),
                    first.line
                ),
            });
        }
    }
}
