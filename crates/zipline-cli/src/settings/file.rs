//! The file `zipline.toml`: the keys of `up` in the table `[up]`, nothing else.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{CATALOGUE, SettingsError};

/// Name of the file that is read from the current folder if it is there.
pub(crate) const FILE: &str = "zipline.toml";
/// Longest file, in bytes.
const FILE_MAX: u64 = 256 * 1024;

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct FileValues {
    pub(crate) path: PathBuf,
    pub(crate) values: BTreeMap<String, String>,
}

impl FileValues {
    /// Reads the file that was named, or `zipline.toml` in the current folder if there is one.
    pub(crate) fn read(named: Option<&Path>) -> Result<Self, SettingsError> {
        let path = named.unwrap_or(Path::new(FILE));
        let complain = |what: String| SettingsError(vec![format!("{}: {what}", path.display())]);
        match std::fs::metadata(path) {
            Ok(data) if data.len() > FILE_MAX => {
                return Err(complain(format!("{} bytes long, at most {FILE_MAX} are read", data.len())));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Self::default());
            }
            _ => {}
        }
        let text =
            std::fs::read_to_string(path).map_err(|error| complain(format!("cannot be read: {error}")))?;
        Self::parse(path, &text)
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let shown = path.display();
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            SettingsError(vec![format!("{shown}: {}", error.to_string().trim_end())])
        })?;
        let mut errors = Vec::new();
        let mut values = BTreeMap::new();
        for (section, content) in table {
            match content {
                toml::Value::Table(keys) if section == "up" => {
                    for (key, value) in keys {
                        if !CATALOGUE.iter().any(|setting| setting.key == key) {
                            errors.push(format!(
                                "{shown}: up.{key} is not known; `zipline config show` lists every setting"
                            ));
                        } else if let Some(text) = scalar(&value) {
                            values.insert(key, text);
                        } else {
                            errors.push(format!(
                                "{shown}: up.{key} must be a text, a whole number or a boolean"
                            ));
                        }
                    }
                }
                _ => {
                    errors.push(format!("{shown}: {section} is not known; settings stand in the table [up]"))
                }
            }
        }
        if errors.is_empty() {
            Ok(Self { path: path.to_path_buf(), values })
        } else {
            Err(SettingsError(errors))
        }
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}
