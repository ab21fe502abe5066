//! Finds the binaries under test, building them if they are missing or older than their sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

/// Where built binaries are looked for instead of building them, if set.
const DIRECTORY_VARIABLE: &str = "ZIPLINE_TEST_BINARIES";

static BUILT: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// The path of `zipline-queue-proxy`.
///
/// # Errors
/// It cannot be built.
pub fn queue_proxy() -> Result<PathBuf> {
    binary("zipline-queue-proxy", "zipline-queue-proxy")
}

/// The path of `zipline`; `zipline-queue-proxy` stands beside it.
///
/// # Errors
/// It cannot be built.
pub fn zipline() -> Result<PathBuf> {
    queue_proxy()?;
    binary("zipline", "zipline-cli")
}

/// The path of `zipline-bench`; `zipline` and `zipline-queue-proxy` stand beside it.
///
/// # Errors
/// It cannot be built.
pub fn bench() -> Result<PathBuf> {
    zipline()?;
    binary("zipline-bench", "zipline-bench")
}

/// The path of the test function.
///
/// # Errors
/// It cannot be built.
pub fn test_function() -> Result<PathBuf> {
    binary("zipline-test-function", "zipline-testkit")
}

fn binary(name: &'static str, package: &str) -> Result<PathBuf> {
    if let Some(directory) = given_directory() {
        return Ok(directory.join(name));
    }
    // target/<profile>/deps/<this test>, or target/<profile>/<this program>
    let program = std::env::current_exe()?;
    let directory = program.parent().context("the program lies outside a target directory")?;
    let directory = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    let directory = directory.context("the test lies outside a target directory")?;
    let path = directory.join(name);
    let mut built = BUILT.lock();
    if !built.contains(&name) {
        if is_stale(&path)? {
            build(package, directory)?;
        }
        built.push(name);
    }
    ensure!(path.exists(), "{} is missing", path.display());
    Ok(path)
}

fn build(package: &str, directory: &Path) -> Result<()> {
    let mut command = Command::new(cargo());
    command.current_dir(workspace()).args(["build", "--bins", "--quiet", "--package", package]);
    if directory.file_name().is_some_and(|name| name == "release") {
        command.arg("--release");
    }
    let output = command.output().context("run cargo")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo build --package {package}: {text}");
    Ok(())
}

/// The directory of the workspace.
///
/// # Panics
/// Never: this crate lies two directories below it.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/<name> has two parents")
}

/// The cargo that runs the tests.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "cargo tells its children by environment which cargo it is")]
pub fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into())
}

#[expect(clippy::disallowed_methods, reason = "the only setting of the test kit")]
fn given_directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from)
}

/// Whether any source of the workspace is newer than `binary`, so that `cargo test -p` never drives an old one.
fn is_stale(binary: &Path) -> Result<bool> {
    let Ok(metadata) = binary.metadata() else { return Ok(true) };
    let built = metadata.modified()?;
    Ok(newest(&workspace().join("crates"))? > built)
}

fn newest(directory: &Path) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in directory.read_dir()? {
        let entry = entry?;
        let time = if entry.file_type()?.is_dir() {
            newest_unless_tests(&entry.path())?
        } else {
            entry.metadata()?.modified()?
        };
        newest = newest.max(time);
    }
    Ok(newest)
}

fn newest_unless_tests(directory: &Path) -> Result<SystemTime> {
    let is_tests = directory.file_name().is_some_and(|name| name == "tests" || name == "zipline-tests");
    if is_tests { Ok(SystemTime::UNIX_EPOCH) } else { newest(directory) }
}
