//! Settings of `up`: each from the command line, else the environment, else the file `zipline.toml`, else its default.
//! Every complaint comes at once, with the place the value came from.

mod catalogue;
mod file;
mod flags;
#[cfg(test)]
mod tests;
mod typed;

use std::fmt;
use std::path::PathBuf;

pub(crate) use catalogue::CATALOGUE;
pub(crate) use file::FileValues;
pub(crate) use flags::SettingFlags;
pub(crate) use typed::Settings;

use crate::environment::{Environment, UP_PREFIX};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Flag(&'static str),
    /// A variable.
    Variable(String),
    /// A key of a file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl Origin {
    /// One word for it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Variable(_) => "environment",
            Self::File(_) => "file",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{key}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => f.write_str(&path.to_string_lossy()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One value, not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// Everything that is wrong with the settings, one line each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SettingsError(pub(crate) Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for SettingsError {}

/// A variable's name for a setting: `in-flight` is `ZIPLINE_UP_IN_FLIGHT`.
pub(crate) fn variable(key: &str) -> String {
    format!("{UP_PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"))
}

/// Puts the layers together, in the order of the catalogue.
pub(crate) fn resolve(
    flags: &[(&'static str, String)],
    environment: &Environment,
    file: &FileValues,
) -> Result<Vec<Resolved>, SettingsError> {
    let mut errors = Vec::new();
    for name in environment.up.keys() {
        if !CATALOGUE.iter().any(|setting| variable(setting.key) == *name) {
            errors.push(format!("variable {name} is not known; `zipline config show` lists every setting"));
        }
    }
    let mut resolved = Vec::new();
    for setting in CATALOGUE {
        let key = setting.key;
        let name = variable(key);
        let flag = flags.iter().find(|(flag, _)| *flag == key);
        let (value, origin) = if let Some((_, value)) = flag {
            (value.clone(), Origin::Flag(key))
        } else if let Some(value) = environment.up.get(&name) {
            match value.to_str() {
                Some(text) => (text.to_owned(), Origin::Variable(name)),
                None => {
                    errors.push(format!("variable {name} is not UTF-8"));
                    continue;
                }
            }
        } else if let Some(value) = file.values.get(key) {
            (value.clone(), Origin::File(file.path.clone()))
        } else {
            (setting.default.to_owned(), Origin::Default)
        };
        resolved.push(Resolved { key, value, origin });
    }
    if errors.is_empty() { Ok(resolved) } else { Err(SettingsError(errors)) }
}
