//! Settings that were understood.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use zipline_engine::manifest::parse_bytes;
use zipline_engine::{EngineConfig, InstanceUids, Programs};
use zipline_protocol::{Mode, limits};
use zipline_runtime::logs::Format;

use super::{Resolved, SettingsError};
use crate::quantity::parse_duration;

/// Largest size of anything held in memory, far beyond any machine, so that sums of sizes never overflow.
const SIZE_MAX: u64 = 1 << 46;
/// Longest time that can be set.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Settings of `up`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) gateway: SocketAddr,
    pub(crate) mode: Mode,
    pub(crate) threshold_bytes: u64,
    pub(crate) budget_bytes: u64,
    /// `None`: as the budget.
    pub(crate) in_flight_bytes: Option<u64>,
    pub(crate) digest_max_bytes: u64,
    pub(crate) data_tls: bool,
    pub(crate) proxy_env: bool,
    pub(crate) instance_uids: InstanceUids,
    pub(crate) ready_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) held_max: usize,
    pub(crate) log: String,
    pub(crate) log_format: Format,
}

/// Takes values by key and collects what is wrong with them.
struct Reader<'a> {
    resolved: &'a [Resolved],
    errors: Vec<String>,
}

impl Reader<'_> {
    fn read<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let found = self.resolved.iter().find(|resolved| resolved.key == key)?;
        match parse(&found.value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.errors.push(format!("{key} (from {}): {message}", found.origin));
                None
            }
        }
    }

    fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.read(key, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                format!("\"{text}\" is not one of {}", names.join(", "))
            })
        })
    }

    fn size(&mut self, key: &str, least: u64) -> Option<u64> {
        self.read(key, |text| size(text, least))
    }

    fn time(&mut self, key: &str) -> Option<Duration> {
        self.read(key, |text| {
            let time = parse_duration(text)?;
            if time <= TIME_MAX { Ok(time) } else { Err(format!("\"{text}\" is longer than 24h")) }
        })
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        self.read(key, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }
}

fn size(text: &str, least: u64) -> Result<u64, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    if (least..=SIZE_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("{bytes} bytes are not within {least} to {SIZE_MAX}"))
}

impl Settings {
    /// Memory of an instance for payloads on their way to its function, in bytes, if it may hold `held`.
    pub(crate) fn in_flight_bytes(&self, held: u64) -> u64 {
        self.in_flight_bytes.unwrap_or(self.budget_bytes.max(held))
    }

    /// Understands the values, or says what is wrong with all of them.
    pub(crate) fn parse(resolved: &[Resolved]) -> Result<Self, SettingsError> {
        let mut reader = Reader { resolved, errors: Vec::new() };
        let settings = Self::read(&mut reader);
        match settings {
            Some(settings) if reader.errors.is_empty() => Ok(settings),
            _ => Err(SettingsError(reader.errors)),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        // All are read before the first one that is missing ends this.
        let gateway = reader.read("gateway", |text| {
            text.parse().map_err(|_| {
                format!("\"{text}\" is not an address with a port: write for example 127.0.0.1:8080")
            })
        });
        let modes = Mode::ALL.iter().map(|mode| (mode.as_str(), *mode)).collect::<Vec<_>>();
        let mode = reader.word("mode", &modes);
        let threshold = reader.size("threshold", limits::THRESHOLD_MIN);
        let segment = limits::SEGMENT as u64;
        let budget = reader.size("budget", segment);
        let in_flight = reader.read("in-flight", |text| match text {
            "budget" => Ok(None),
            text => size(text, segment).map(Some).map_err(|error| format!("{error}; or write budget")),
        });
        let digest_max = reader.size("digest-max", 0);
        let data_tls = reader.word("data-tls", &[("true", true), ("false", false)]);
        let proxy_env = reader.word("proxy-env", &[("true", true), ("false", false)]);
        let uids = reader.word(
            "instance-uids",
            &[("auto", InstanceUids::Auto), ("off", InstanceUids::Off), ("require", InstanceUids::Require)],
        );
        let ready_timeout = reader.time("ready-timeout");
        let grace = reader.time("grace");
        let held_max = reader.read("held-max", |text| match text.parse() {
            Ok(count @ 1..=1_000_000) => Ok(count),
            _ => Err(format!("\"{text}\" is not a number from 1 to 1000000")),
        });
        let log = reader.read("log", |text| Ok(text.to_owned()));
        let log_format = reader.parsed("log-format");
        Some(Self {
            gateway: gateway?,
            mode: mode?,
            threshold_bytes: threshold?,
            budget_bytes: budget?,
            in_flight_bytes: in_flight?,
            digest_max_bytes: digest_max?,
            data_tls: data_tls?,
            proxy_env: proxy_env?,
            instance_uids: uids?,
            ready_timeout: ready_timeout?,
            grace: grace?,
            held_max: held_max?,
            log: log?,
            log_format: log_format?,
        })
    }

    /// What the engine is built from.
    pub(crate) fn engine(
        &self,
        state_dir: PathBuf,
        programs: Programs,
        inherited_env: Vec<(OsString, OsString)>,
    ) -> EngineConfig {
        let mut config = EngineConfig::new(state_dir, programs);
        config.listen = self.gateway;
        config.inherited_env = inherited_env;
        config.proxy_env = self.proxy_env;
        config.instance_uids = self.instance_uids;
        config.mode = self.mode;
        config.threshold_bytes = self.threshold_bytes;
        config.budget_bytes = self.budget_bytes;
        config.in_flight_bytes = self.in_flight_bytes;
        config.digest_max_bytes = Some(self.digest_max_bytes);
        config.data_tls = self.data_tls;
        config.ready_timeout = self.ready_timeout;
        config.grace = self.grace;
        config.held_max = self.held_max;
        config.queue_proxy_log = self.log.clone();
        config
    }
}
