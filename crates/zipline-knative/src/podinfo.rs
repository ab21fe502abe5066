//! Zipline's own settings of a revision: annotations of the pod, as the downward API writes them to a file.
//!
//! The file has one line per annotation, `key="value"`, the value quoted as Go quotes. A setting that cannot be read is
//! told and left at its default: a pod must not fail to start for a typing error in an annotation.
//!
//! # Source
//! The file's form: `k8s.io/kubernetes` `pkg/fieldpath`, `FormatMap`. Its path: `pkg/queue/constants.go`.

use std::str::FromStr;

use zipline_protocol::{Mode, limits};

use crate::go::number::parse_bool;
use crate::go::quote::unquote;

/// What the names of our annotations start with.
pub const PREFIX: &str = "zipline.internal/";
/// Whether payloads are deferred: `off`, `receive`, `on`. It can only lower what the cluster allows.
pub const MODE: &str = "zipline.internal/mode";
/// Payloads at or above it are deferred: bytes, or with `KiB`, `MiB`, `GiB`.
pub const THRESHOLD: &str = "zipline.internal/threshold";
/// Budget of bytes held.
pub const BUDGET: &str = "zipline.internal/budget";
/// Budget of bytes on their way to the function.
pub const IN_FLIGHT: &str = "zipline.internal/in-flight";
/// Payloads up to this length carry a digest.
pub const DIGEST_MAX: &str = "zipline.internal/digest-max";
/// Whether the data port speaks TLS: `true` or `false`.
pub const DATA_TLS: &str = "zipline.internal/data-tls";

/// Every annotation that means something to a queue-proxy.
pub const KNOWN: [&str; 6] = [MODE, THRESHOLD, BUDGET, IN_FLIGHT, DIGEST_MAX, DATA_TLS];

/// Most bytes of the file that are read: Kubernetes allows 256 KiB of annotations, quoting can make each byte four.
pub const FILE_MAX: usize = 1 << 20;

/// Settings that were given; `None` is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSettings {
    /// [`MODE`].
    pub mode: Option<Mode>,
    /// [`THRESHOLD`] in bytes, at least [`limits::THRESHOLD_MIN`].
    pub threshold_bytes: Option<u64>,
    /// [`BUDGET`] in bytes, at least one segment.
    pub budget_bytes: Option<u64>,
    /// [`IN_FLIGHT`] in bytes, at least one segment.
    pub in_flight_bytes: Option<u64>,
    /// [`DIGEST_MAX`] in bytes.
    pub digest_max_bytes: Option<u64>,
    /// [`DATA_TLS`].
    pub data_tls: Option<bool>,
}

/// An annotation that cannot be read; its setting keeps the default.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct SettingError {
    /// The annotation, or the file's line if it has no readable one.
    pub name: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl PodSettings {
    /// Reads the content of the file. Annotations of others are skipped; a name under [`PREFIX`] that means nothing is a
    /// problem, as it is most likely misspelt.
    #[must_use]
    pub fn parse_file(content: &str) -> (Self, Vec<SettingError>) {
        let mut annotations = Vec::new();
        let mut problems = Vec::new();
        for (at, line) in content.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let place = || format!("line {} of the annotations", at + 1);
            let Some((name, quoted)) = line.split_once('=') else {
                problems.push(SettingError { name: place(), problem: "is not key=\"value\"".to_owned() });
                continue;
            };
            if !name.starts_with(PREFIX) {
                continue;
            }
            let value = unquote(quoted)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not UTF-8"))
                .map_err(|problem| SettingError { name: name.to_owned(), problem: problem.to_owned() });
            match value {
                Ok(value) => annotations.push((name, value)),
                Err(problem) => problems.push(problem),
            }
        }
        let (settings, more) =
            Self::from_annotations(annotations.iter().map(|(name, value)| (*name, value.as_str())));
        problems.extend(more);
        (settings, problems)
    }

    /// Reads annotations as they are in a manifest.
    pub fn from_annotations<'a>(
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Vec<SettingError>) {
        let mut settings = Self::default();
        let mut problems = Vec::new();
        for (name, value) in annotations.into_iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            if let Err(problem) = settings.set(name, value) {
                problems.push(SettingError { name: name.to_owned(), problem });
            }
        }
        (settings, problems)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let segment = limits::SEGMENT as u64;
        match name {
            MODE => self.mode = Some(Mode::from_str(value).map_err(|error| error.to_string())?),
            THRESHOLD => self.threshold_bytes = Some(size(value, limits::THRESHOLD_MIN)?),
            BUDGET => self.budget_bytes = Some(size(value, segment)?),
            IN_FLIGHT => self.in_flight_bytes = Some(size(value, segment)?),
            DIGEST_MAX => self.digest_max_bytes = Some(size(value, 0)?),
            DATA_TLS => {
                let told = parse_bool(value).map_err(|_| format!("{value:?} is neither true nor false"))?;
                self.data_tls = Some(told);
            }
            _ => return Err(format!("no such setting; there are {}", KNOWN.join(", "))),
        }
        Ok(())
    }
}

/// Bytes, or a whole number of KiB, MiB or GiB.
fn size(text: &str, least: u64) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    let value = UNITS.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?;
        let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if plain { number.parse::<u64>().ok()?.checked_mul(*factor) } else { None }
    });
    match value {
        Some(value) if value >= least => Ok(value),
        Some(value) => Err(format!("{value} is below the least, {least} bytes")),
        None => Err(format!("{text:?} is not a size: write bytes, or 256KiB, 64MiB, 4GiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_file_of_the_downward_api_is_read() {
        let (settings, problems) = PodSettings::parse_file(concat!(
            "autoscaling.knative.dev/min-scale=\"1\"\n",
            "kubectl.kubernetes.io/restartedAt=\"a=b \\\"c\\\"\\n\"\n",
            "zipline.internal/budget=\"64MiB\"\n",
            "zipline.internal/data-tls=\"true\"\n",
            "zipline.internal/digest-max=\"0\"\n",
            "zipline.internal/in-flight=\"1GiB\"\n",
            "zipline.internal/mode=\"\\x72eceive\"\n",
            "zipline.internal/threshold=\"4096\"",
        ));
        assert_eq!(problems, []);
        assert_eq!(
            settings,
            PodSettings {
                mode: Some(Mode::Receive),
                threshold_bytes: Some(4096),
                budget_bytes: Some(64 << 20),
                in_flight_bytes: Some(1 << 30),
                digest_max_bytes: Some(0),
                data_tls: Some(true),
            }
        );
        assert_eq!(PodSettings::parse_file(""), (PodSettings::default(), vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_told_by_name_and_changes_nothing() {
        let (settings, problems) = PodSettings::parse_file(concat!(
            "zipline.internal/mode=\"maybe\"\n",
            "zipline.internal/threshold=\"1\"\n",
            "zipline.internal/budget=\"64 MiB\"\n",
            "zipline.internal/in-flight=\"99999999999GiB\"\n",
            "zipline.internal/data-tls=\"on\"\n",
            "zipline.internal/treshold=\"1MiB\"\n",
            "zipline.internal/digest-max=12\n",
            "nonsense\n",
        ));
        assert_eq!(settings, PodSettings::default());
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for part in [
            "zipline.internal/mode: \"maybe\" is not one of off, receive, on",
            "zipline.internal/threshold: 1 is below the least, 1024 bytes",
            "zipline.internal/budget: \"64 MiB\" is not a size",
            "zipline.internal/in-flight: ",
            "zipline.internal/data-tls: \"on\" is neither true nor false",
            "zipline.internal/treshold: no such setting; there are zipline.internal/mode,",
            "zipline.internal/digest-max: is not in double quotes",
            "line 8 of the annotations: is not key=\"value\"",
        ] {
            assert!(texts.iter().any(|text| text.starts_with(part)), "{part}: {texts:#?}");
        }
        assert_eq!(problems.len(), 8);
    }

    proptest! {
        #[test]
        fn nothing_panics(content in "(zipline.internal/[a-z-]{0,12}=\"?[\\\\a-zA-Z0-9]{0,12}\"?\n){0,4}|\\PC{0,64}") {
            let _ = PodSettings::parse_file(&content);
        }

        #[test]
        fn sizes_come_back(bytes in limits::THRESHOLD_MIN..) {
            let text = bytes.to_string();
            let (settings, problems) = PodSettings::from_annotations([(THRESHOLD, text.as_str())]);
            prop_assert_eq!(problems, vec![]);
            prop_assert_eq!(settings.threshold_bytes, Some(bytes));
        }
    }
}
