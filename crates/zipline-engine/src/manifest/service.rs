//! A Service document.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use zipline_protocol::FunctionName;

use super::fields::{Fields, Item, Refused};
use super::report::Report;
use super::yaml::Node;
use super::{ServiceManifest, annotations, container, traffic};

/// Knative's default for `timeoutSeconds`.
const TIMEOUT_DEFAULT_SECONDS: u32 = 300;
/// Knative's largest `timeoutSeconds`.
const TIMEOUT_MAX_SECONDS: u32 = 600;
/// Knative's largest `containerConcurrency`.
const CONCURRENCY_MAX: u32 = 1000;

const API_VERSION: &str = "serving.knative.dev/v1";
const CLUSTER_ONLY: &str = "it has a meaning in a cluster only; remove it or keep it in a separate overlay";

const POD_REFUSED: &[Refused] = &[
    ("responseStartTimeoutSeconds", "use timeoutSeconds"),
    ("idleTimeoutSeconds", "use timeoutSeconds"),
    ("volumes", "a process sees the host's files; remove it"),
    ("initContainers", "an instance is one process; do the work at its start"),
    ("serviceAccountName", CLUSTER_ONLY),
    ("imagePullSecrets", CLUSTER_ONLY),
    ("enableServiceLinks", CLUSTER_ONLY),
    ("nodeSelector", CLUSTER_ONLY),
    ("affinity", CLUSTER_ONLY),
    ("tolerations", CLUSTER_ONLY),
];

const METADATA_REFUSED: &[Refused] = &[
    ("annotations", "write annotations under spec.template.metadata"),
    ("generateName", "write a name"),
    ("finalizers", CLUSTER_ONLY),
    ("ownerReferences", CLUSTER_ONLY),
];

/// Reads one document; `None` if something was reported that leaves no Service.
pub(super) fn read(
    document: &Node,
    file: &Path,
    folder: &Path,
    report: &mut Report,
) -> Option<ServiceManifest> {
    let complaints = report.findings.len();
    let root = Item { node: document, path: String::new() };
    let root = root.any_fields(report)?;
    check_kind(&root, report)?;
    let root = Item { node: document, path: String::new() }.fields(
        report,
        &["apiVersion", "kind", "metadata", "spec"],
        &[("status", "it is written by a cluster; remove it")],
    )?;

    let name = read_name(&root, report);
    let spec = root
        .need(report, "spec", "add spec.template.spec.containers")
        .and_then(|item| item.fields(report, &["template", "traffic"], &[]));
    if let Some(item) = spec.as_ref().and_then(|spec| spec.get("traffic")) {
        traffic::check(&item, report);
    }
    let template = spec
        .as_ref()
        .and_then(|spec| spec.need(report, "template", "add template.spec.containers"))
        .and_then(|item| item.fields(report, &["metadata", "spec"], &[]));
    let metadata = read_template_metadata(template.as_ref(), name.as_ref(), report);
    let pod = template.as_ref().and_then(|template| template.need(report, "spec", "add containers"));
    let pod = pod.and_then(|item| {
        item.fields(report, &["containerConcurrency", "timeoutSeconds", "containers"], POD_REFUSED)
    })?;

    let container_concurrency =
        pod.get("containerConcurrency").and_then(|item| item.number(report, 0, CONCURRENCY_MAX)).unwrap_or(0);
    let timeout = pod
        .get("timeoutSeconds")
        .and_then(|item| item.number(report, 0, TIMEOUT_MAX_SECONDS))
        .filter(|seconds| *seconds > 0)
        .unwrap_or(TIMEOUT_DEFAULT_SECONDS);
    let mut notes = Vec::new();
    let container = container::read_only(&pod, folder, report, &mut notes);
    let (name, container) = (name?, container?);
    if report.findings.len() > complaints {
        return None;
    }
    Some(ServiceManifest {
        revision: metadata.revision.unwrap_or_else(|| format!("{}-00001", name.service())),
        name,
        file: file.to_path_buf(),
        line: document.line,
        labels: metadata.labels,
        scale: metadata.annotations.scale,
        settings: metadata.annotations.settings,
        container_concurrency,
        timeout: Duration::from_secs(timeout.into()),
        container,
        notes,
    })
}

fn check_kind(root: &Fields<'_>, report: &mut Report) -> Option<()> {
    let hint = "a manifest starts with apiVersion: serving.knative.dev/v1 and kind: Service";
    let version = root.need(report, "apiVersion", hint);
    let kind = root.need(report, "kind", hint);
    let (version, kind) = (version?, kind?);
    let (version_text, kind_text) = (version.text(report)?, kind.text(report)?);
    if kind_text != "Service" {
        kind.complain(report, format!("\"{kind_text}\" cannot be run here: only {API_VERSION} Service"));
        return None;
    }
    if version_text != API_VERSION {
        version.complain(report, format!("\"{version_text}\" cannot be run here: write {API_VERSION}"));
        return None;
    }
    Some(())
}

fn read_name(root: &Fields<'_>, report: &mut Report) -> Option<FunctionName> {
    let item = root.need(report, "metadata", "add metadata.name")?;
    let metadata = item.fields(report, &["name", "namespace", "labels"], METADATA_REFUSED)?;
    if let Some(labels) = metadata.get("labels") {
        for (entry, path, _) in labels.text_map(report) {
            if entry.key.starts_with("networking.knative.dev/") {
                report.add(
                    entry.line,
                    &path,
                    "not supported here: the gateway listens on loopback only by default",
                );
            }
        }
    }
    let label = |report: &mut Report, item: Item<'_>| {
        let text = item.text(report)?;
        if FunctionName::new(text, "default").is_ok() {
            return Some(text.to_owned());
        }
        item.complain(
            report,
            format!("\"{text}\" is not a DNS label: use 1 to 63 of a-z, 0-9 and -, without - at either end"),
        );
        None
    };
    let namespace = match metadata.get("namespace") {
        Some(item) => label(report, item),
        None => Some("default".to_owned()),
    };
    let service = metadata.need(report, "name", "name the service")?;
    let service = label(report, service);
    FunctionName::new(&service?, &namespace?).ok()
}

#[derive(Default)]
struct TemplateMetadata {
    revision: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: annotations::Annotations,
}

fn read_template_metadata(
    template: Option<&Fields<'_>>,
    name: Option<&FunctionName>,
    report: &mut Report,
) -> TemplateMetadata {
    let mut read = TemplateMetadata::default();
    let Some(metadata) = template
        .and_then(|template| template.get("metadata"))
        .and_then(|item| item.fields(report, &["name", "labels", "annotations"], &[]))
    else {
        return read;
    };
    if let (Some(item), Some(name)) = (metadata.get("name"), name)
        && let Some(text) = item.text(report)
    {
        let service = name.service();
        let rest = text.strip_prefix(service).and_then(|rest| rest.strip_prefix('-'));
        if rest.is_none_or(str::is_empty) || FunctionName::new(text, "default").is_err() {
            item.complain(report, format!("\"{text}\" must be a DNS label that starts with {service}-"));
        } else {
            read.revision = Some(text.to_owned());
        }
    }
    if let Some(labels) = metadata.get("labels") {
        for (entry, _, text) in labels.text_map(report) {
            read.labels.insert(entry.key.clone(), text.to_owned());
        }
    }
    if let Some(item) = metadata.get("annotations") {
        read.annotations = annotations::read(&item, report);
    }
    read
}
