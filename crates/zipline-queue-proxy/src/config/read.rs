//! Reads single variables strictly and collects what is wrong with them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use zipline_protocol::FunctionName;

use crate::readiness::Probe;

use super::{ConfigError, KeySource, TOKEN_MAX, TOKEN_MIN, Token};

/// Every variable that means something here.
pub(super) const KNOWN: &[&str] = &[
    "USER_PORT",
    "CONTAINER_CONCURRENCY",
    "REVISION_TIMEOUT_SECONDS",
    "SERVING_READINESS_PROBE",
    "SERVING_NAMESPACE",
    "SERVING_SERVICE",
    "SERVING_REVISION",
    "SERVING_POD",
    "ZIPLINE_MODE",
    "ZIPLINE_THRESHOLD_BYTES",
    "ZIPLINE_BUDGET_BYTES",
    "ZIPLINE_INFLIGHT_BYTES",
    "ZIPLINE_DIGEST_MAX_BYTES",
    "ZIPLINE_GATEWAY",
    "ZIPLINE_TOKEN",
    "ZIPLINE_SOCKET",
    "ZIPLINE_HOST_DIR",
    "ZIPLINE_REUSE",
    "ZIPLINE_LISTEN_IP",
    "ZIPLINE_ADVERTISE",
    "ZIPLINE_DATA_TLS",
    "ZIPLINE_CONTROL",
    "ZIPLINE_KEYRING_FILE",
    "ZIPLINE_GUEST",
    "ZIPLINE_LOG",
    "ZIPLINE_INBOUND_PORT",
    "ZIPLINE_API_PORT",
    "ZIPLINE_DATA_PORT",
    "ZIPLINE_ADMIN_PORT",
];

pub(super) struct Reader {
    variables: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader {
    pub(super) fn new(variables: BTreeMap<String, String>) -> Self {
        let problems = variables
            .keys()
            .filter(|name| name.starts_with("ZIPLINE_") && !KNOWN.contains(&name.as_str()))
            .map(|name| format!("{name}: no such setting"))
            .collect();
        Self { variables, problems }
    }

    pub(super) fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }

    pub(super) fn problem(&mut self, name: &str, what: &str) {
        self.problems.push(format!("{name}: {what}"));
    }

    /// The value; an empty one counts as not set, as Knative writes unset values so.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        debug_assert!(KNOWN.contains(&name), "{name} is missing in KNOWN");
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, wanted: &str) -> Option<T> {
        let text = self.text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.problem(name, &format!("{text:?} is not {wanted}"));
        }
        value
    }

    /// A decimal number without sign; `None` only beside a reported problem.
    pub(super) fn number<T>(&mut self, name: &str, default: T, allowed: RangeInclusive<u64>) -> Option<T>
    where
        T: TryFrom<u64>,
    {
        let Some(text) = self.text(name) else { return Some(default) };
        let value =
            digits(&text).filter(|value| allowed.contains(value)).and_then(|value| T::try_from(value).ok());
        if value.is_none() {
            let (least, most) = (allowed.start(), allowed.end());
            self.problem(name, &format!("{text:?} is not a whole number from {least} to {most}"));
        }
        value
    }

    pub(super) fn port(&mut self, name: &str) -> u16 {
        self.number(name, 0, 0..=65_535).unwrap_or(0)
    }

    pub(super) fn size(&mut self, name: &str, default: u64, least: u64) -> u64 {
        let Some(text) = self.text(name) else { return default };
        match size(&text) {
            Some(value) if value >= least => value,
            Some(value) => {
                self.problem(name, &format!("{value} is below the least, {least} bytes"));
                default
            }
            None => {
                self.problem(name, &format!("{text:?} is not a size: write bytes, or 64KiB, 64MiB, 4GiB"));
                default
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                let what = format!("{other:?} is neither 0 nor 1");
                self.problem(name, &what);
                false
            }
        }
    }

    /// Whether memory that was shared within the tenant may be written again.
    pub(super) fn reuse(&mut self) -> bool {
        match self.text("ZIPLINE_REUSE").as_deref() {
            None | Some("never") => false,
            Some("tenant") => true,
            Some(other) => {
                let what = format!("{other:?} is neither tenant nor never");
                self.problem("ZIPLINE_REUSE", &what);
                false
            }
        }
    }

    pub(super) fn switch(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("off") => false,
            Some("on") => true,
            Some(other) => {
                let what = format!("{other:?} is neither on nor off");
                self.problem(name, &what);
                false
            }
        }
    }

    pub(super) fn user_port(&mut self, guest: bool) -> Option<u16> {
        let port = self.number("USER_PORT", 0_u16, 1..=65_535);
        match (guest, port) {
            (true, Some(0)) => None,
            (true, _) => {
                self.problem("USER_PORT", "a guest (ZIPLINE_GUEST=1) has no function");
                None
            }
            (false, Some(0)) => {
                self.problem("USER_PORT", "is needed: the port the function listens on");
                None
            }
            (false, port) => port,
        }
    }

    pub(super) fn probe(&mut self, user_port: u16) -> Option<Probe> {
        let json = self.text("SERVING_READINESS_PROBE").unwrap_or_default();
        match Probe::parse(&json, user_port) {
            Ok(probe) => Some(probe),
            Err(error) => {
                self.problem("SERVING_READINESS_PROBE", &error.to_string());
                None
            }
        }
    }

    pub(super) fn function(&mut self, guest: bool) -> FunctionName {
        let namespace = self.text("SERVING_NAMESPACE").unwrap_or_else(|| "default".to_owned());
        let service = self.text("SERVING_SERVICE");
        if service.is_none() && !guest {
            self.problem("SERVING_SERVICE", "is needed: the name of the function's service");
        }
        let service = service.unwrap_or_else(|| "guest".to_owned());
        FunctionName::new(&service, &namespace).unwrap_or_else(|error| {
            self.problem("SERVING_SERVICE, SERVING_NAMESPACE", &error.to_string());
            FunctionName::new("guest", "default").expect("both are DNS labels")
        })
    }

    pub(super) fn token(&mut self) -> Token {
        let token = self.text("ZIPLINE_TOKEN").and_then(|text| Token::new(&text));
        token.unwrap_or_else(|| {
            let what = format!("{TOKEN_MIN} to {TOKEN_MAX} visible ASCII characters are needed");
            self.problem("ZIPLINE_TOKEN", &what);
            // Never used: the problem ends the process.
            Token::any_value()
        })
    }

    pub(super) fn keys(&mut self) -> KeySource {
        let control = self.text("ZIPLINE_CONTROL");
        let file = self.text("ZIPLINE_KEYRING_FILE");
        match (control.as_deref(), file) {
            (Some("stdin"), None) => KeySource::Control,
            (Some("stdin"), Some(_)) => {
                self.problem("ZIPLINE_KEYRING_FILE", "with a control channel the engine sends the keys");
                KeySource::Control
            }
            (Some(other), _) => {
                let what = format!("{other:?} is not stdin");
                self.problem("ZIPLINE_CONTROL", &what);
                KeySource::None
            }
            (None, Some(path)) => KeySource::File(PathBuf::from(path)),
            (None, None) => KeySource::None,
        }
    }
}

/// Decimal digits only: no sign, no space.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Bytes, or a whole number of KiB, MiB or GiB.
fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    for (unit, factor) in UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return digits(number)?.checked_mul(factor);
        }
    }
    digits(text)
}
