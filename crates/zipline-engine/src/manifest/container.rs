//! The container: which process to run and how.

use std::path::Path;

use super::fields::{Fields, Item, Refused};
use super::report::Report;
use super::{Container, PortProtocol, probe};

const IMAGE_ONLY: &str = "it belongs to an image, and nothing is pulled here; remove it";

const REFUSED: &[Refused] = &[
    ("imagePullPolicy", IMAGE_ONLY),
    ("envFrom", "there are no ConfigMaps or Secrets here; write the variables under env"),
    ("resources", "processes are not limited here; remove it"),
    (
        "securityContext",
        "processes run as the engine's user or, under root, as users of their own; remove it",
    ),
    ("volumeMounts", "a process sees the host's files; remove it"),
    ("livenessProbe", "an instance is restarted when its process ends; remove it"),
    ("startupProbe", "use readinessProbe"),
    ("terminationMessagePath", "use stderr; `zipline logs` shows it"),
    ("terminationMessagePolicy", "use stderr; `zipline logs` shows it"),
    ("lifecycle", "Knative refuses it too; act on SIGTERM instead"),
    ("stdin", "Knative refuses it too"),
    ("tty", "Knative refuses it too"),
];

const FIELDS: &[&str] = &["name", "image", "command", "args", "env", "workingDir", "ports", "readinessProbe"];

/// Reads the one container of a template.
pub(super) fn read_only(
    pod: &Fields<'_>,
    folder: &Path,
    report: &mut Report,
    notes: &mut Vec<String>,
) -> Option<Container> {
    let item = pod.need(report, "containers", "add one container with a command")?;
    let containers = item.list(report)?;
    if containers.len() != 1 {
        item.complain(
            report,
            format!("has {} containers: an instance is exactly one process", containers.len()),
        );
        return None;
    }
    read(&containers[0], folder, report, notes)
}

fn read(item: &Item<'_>, folder: &Path, report: &mut Report, notes: &mut Vec<String>) -> Option<Container> {
    let fields = item.fields(report, FIELDS, REFUSED)?;
    let name = fields.text(report, "name").unwrap_or("user-container").to_owned();
    let image = fields.text(report, "image");
    let command = match fields.get("command") {
        Some(command) => {
            let words = command.texts(report);
            if words.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
                command.complain(report, "is empty: name the program to run");
            }
            words
        }
        None => {
            report.add(fields.line(), &fields.path_of("command"), missing_command(&fields));
            None
        }
    };
    if let (Some(_), Some(image)) = (&command, image) {
        notes.push(format!("image {image} is not used: the command runs as a local process"));
    }
    let args = fields.get("args").and_then(|args| args.texts(report)).unwrap_or_default();
    let env = fields.get("env").map(|env| read_env(&env, report)).unwrap_or_default();
    let working_dir = read_working_dir(&fields, folder, report);
    let (protocol, container_port) =
        fields.get("ports").map(|ports| read_ports(&ports, report)).unwrap_or_default();
    let readiness_probe =
        fields.get("readinessProbe").and_then(|item| probe::read(&item, container_port, report));
    Some(Container {
        name,
        command: command?,
        args,
        env,
        working_dir: working_dir?,
        protocol,
        readiness_probe,
    })
}

/// The lines to add, at the container's own depth.
fn missing_command(fields: &Fields<'_>) -> String {
    let (line, column) = fields.position("image").unwrap_or((fields.line(), fields.column()));
    let indent = " ".repeat(column);
    format!(
        "missing: images are not run here, local processes are; add below line {line}, with your program and its folder:\n\
         {indent}command: [\"python3\", \"app.py\"]\n{indent}workingDir: ."
    )
}

fn read_env(item: &Item<'_>, report: &mut Report) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    for variable in item.list(report).unwrap_or_default() {
        let Some(fields) = variable.fields(
            report,
            &["name", "value"],
            &[("valueFrom", "there are no ConfigMaps, Secrets or pod fields here; write a value")],
        ) else {
            continue;
        };
        let Some(name) = fields.need(report, "name", "name the variable") else { continue };
        let value = fields.text(report, "value").unwrap_or("");
        let Some(text) = name.text(report) else { continue };
        if text.is_empty() || text.contains(['=', '\0']) {
            name.complain(report, format!("\"{}\" cannot be the name of a variable", text.escape_debug()));
        } else if matches!(text, "PORT" | "K_SERVICE" | "K_REVISION" | "K_CONFIGURATION")
            || text.starts_with("ZIPLINE_")
        {
            name.complain(report, format!("{text} is set by the engine: remove it"));
        } else if env.iter().any(|(other, _)| other == text) {
            name.complain(report, format!("{text} is given twice"));
        } else if value.contains('\0') {
            name.complain(report, format!("the value of {text} holds a zero byte"));
        } else {
            env.push((text.to_owned(), value.to_owned()));
        }
    }
    env
}

fn read_working_dir(fields: &Fields<'_>, folder: &Path, report: &mut Report) -> Option<std::path::PathBuf> {
    let Some(item) = fields.get("workingDir") else { return Some(folder.to_path_buf()) };
    let path = folder.join(item.text(report)?);
    match std::fs::canonicalize(&path) {
        Ok(path) if path.is_dir() => Some(path),
        Ok(_) => {
            item.complain(report, format!("{} is not a folder", path.display()));
            None
        }
        Err(error) => {
            item.complain(report, format!("{}: {error}", path.display()));
            None
        }
    }
}

fn read_ports(item: &Item<'_>, report: &mut Report) -> (PortProtocol, Option<u32>) {
    let ports = item.list(report).unwrap_or_default();
    if ports.len() > 1 {
        item.complain(report, format!("has {} ports: a function serves on one", ports.len()));
    }
    let Some(fields) = ports.first().and_then(|port| {
        port.fields(
            report,
            &["name", "containerPort", "protocol"],
            &[
                ("hostPort", "ports are assigned here; remove it"),
                ("hostIP", "ports are assigned here; remove it"),
            ],
        )
    }) else {
        return (PortProtocol::default(), None);
    };
    // Its number has no effect, since the engine assigns a port and tells it by PORT; it is still checked.
    let number = fields.get("containerPort").and_then(|port| port.number(report, 1, 65_535));
    if let Some(protocol) = fields.get("protocol")
        && protocol.text(report).is_some_and(|text| text != "TCP")
    {
        protocol.complain(report, "must be TCP");
    }
    let protocol = match fields.get("name") {
        None => PortProtocol::AsReceived,
        Some(name) => match name.text(report) {
            Some("http1") => PortProtocol::Http1,
            Some("h2c") => PortProtocol::H2c,
            Some("") | None => PortProtocol::AsReceived,
            Some(other) => {
                name.complain(report, format!("\"{other}\" must be http1 or h2c"));
                PortProtocol::AsReceived
            }
        },
    };
    (protocol, number)
}
