//! The architecture, as a test: dependencies point downwards, and no source file grows beyond what can be read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use zipline_testkit::binaries::{cargo, workspace};

/// Every crate with its layer. Crates of one layer know nothing of each other, except as [`SIDEWAYS`] says.
const LAYERS: [(&str, u32); 19] = [
    ("zipline-protocol", 0),
    ("zipline-seal", 1),
    ("zipline-segment", 1),
    ("zipline-buffer", 1),
    ("zipline-http", 1),
    ("zipline-https", 1),
    ("zipline-runtime", 1),
    ("zipline-knative", 1),
    ("zipline-transfer", 2),
    ("zipline-queue-proxy", 3),
    ("zipline-engine", 3),
    ("zipline-controller", 3),
    ("zipline-sdk", 3),
    ("zipline-bench", 4),
    ("zipline-cli", 4),
    ("zipline-py", 4),
    ("zipline-testkit", 9),
    ("zipline-tests", 10),
    ("zipline-soak", 10),
];

/// Within a layer: who may use whom.
const SIDEWAYS: [(&str, &str); 4] = [
    ("zipline-buffer", "zipline-segment"),
    ("zipline-http", "zipline-runtime"),
    ("zipline-https", "zipline-runtime"),
    ("zipline-https", "zipline-http"),
];

/// Lines a source file may have, tests apart.
const LINES_MOST: usize = 800;

#[test]
fn dependencies_point_downwards() -> Result<()> {
    let mut command = Command::new(cargo());
    command.current_dir(workspace()).args(["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let layers = BTreeMap::from(LAYERS);
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().context("name")?;
        let layer =
            layers.get(name).with_context(|| format!("{name} has no layer: give it one in this table"))?;
        for dependency in package["dependencies"].as_array().context("dependencies")? {
            let used = dependency["name"].as_str().context("name")?;
            let Some(below) = layers.get(used) else { continue };
            let test_only = dependency["kind"] == "dev";
            let downwards = below < layer || SIDEWAYS.contains(&(name, used));
            let for_tests = test_only && used == "zipline-testkit";
            ensure!(
                downwards || for_tests,
                "{name} (layer {layer}) must not depend on {used} (layer {below})"
            );
        }
    }
    Ok(())
}

#[test]
fn no_source_file_is_too_long() -> Result<()> {
    let mut long = Vec::new();
    for path in sources(&workspace().join("crates"))? {
        let content = fs::read_to_string(&path)?;
        let lines = content.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > LINES_MOST {
            long.push(format!("{} has {lines} lines", path.display()));
        }
    }
    ensure!(long.is_empty(), "split these by duty, at most {LINES_MOST} lines: {long:#?}");
    Ok(())
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "tests" | "target" | "node_modules") {
                found.extend(sources(&path)?);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
    Ok(found)
}
