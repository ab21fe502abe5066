//! The one place that reads the environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Start of the names of variables that set what `up` takes: `ZIPLINE_UP_BUDGET` for `--budget`.
pub(crate) const UP_PREFIX: &str = "ZIPLINE_UP_";
/// The variable for `--state-dir`.
pub(crate) const STATE_DIR: &str = "ZIPLINE_STATE_DIR";
/// The variable for `--config`.
pub(crate) const CONFIG: &str = "ZIPLINE_CONFIG";

/// What the environment says.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// Everything, for functions to inherit.
    pub(crate) all: Vec<(OsString, OsString)>,
    /// `ZIPLINE_STATE_DIR`.
    pub(crate) state_dir: Option<PathBuf>,
    /// `ZIPLINE_CONFIG`.
    pub(crate) config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// `ZIPLINE_UP_*`, by name.
    pub(crate) up: BTreeMap<String, OsString>,
}

impl Environment {
    /// Reads the environment of this process.
    pub(crate) fn read() -> Self {
        Self::from_variables(std::env::vars_os())
    }

    pub(crate) fn from_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let all: Vec<_> = variables.into_iter().collect();
        let path = |wanted: &str| {
            let (_, value) = all.iter().find(|(name, value)| name == wanted && !value.is_empty())?;
            Some(PathBuf::from(value))
        };
        let up = all.iter().filter_map(|(name, value)| {
            let name = name.to_str().filter(|name| name.starts_with(UP_PREFIX))?;
            Some((name.to_owned(), value.clone()))
        });
        Self {
            state_dir: path(STATE_DIR),
            config: path(CONFIG),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            up: up.collect(),
            all,
        }
    }

    /// A variable by its name.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.all.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }
}
