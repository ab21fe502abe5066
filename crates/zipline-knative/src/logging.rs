//! `SERVING_LOGGING_CONFIG` and `SERVING_LOGGING_LEVEL`: how the queue-proxy itself logs.
//!
//! Knative gives zap's own configuration, laid over a production default. Of it are honoured: `level`, `encoding`
//! (`json`, `console`), `outputPaths` (`stdout`, `stderr`; files cannot be written where the root is read-only and become
//! standard error with a note), `initialFields`, and of `encoderConfig` the keys of time, level, name, caller and message
//! and the encoders of time and level. Sampling, callers and stack traces do not exist here: no line is dropped, and
//! `disableCaller`, `disableStacktrace`, `development`, `sampling` and `errorOutputPaths` are read and change nothing.
//!
//! # Source
//! `PKG logging/config.go`, `go.uber.org/zap` v1.28.0 `config.go` and `zapcore/{level,encoder}.go`,
//! `github.com/blendle/zapdriver` v1.3.1 (the default).

use crate::go::json::{Json, KindError, names};

mod line;
#[cfg(test)]
mod tests;

pub use line::{Entry, FieldValue};

/// The name of every logger of a queue-proxy.
pub const LOGGER: &str = "queueproxy";
/// The name of the logger if the configuration could not be used.
pub const FALLBACK_LOGGER: &str = "fallback-logger.queueproxy";
/// The field with namespace and revision, joined by a slash.
pub const KEY_FIELD: &str = "knative.dev/key";
/// The field with the pod's name.
pub const POD_FIELD: &str = "knative.dev/pod";

/// How the queue-proxy logs.
#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    /// The least important lines that are written.
    pub level: Level,
    /// The form of a line.
    pub encoding: Encoding,
    /// Where lines go; each line to each of them.
    pub outputs: Vec<Output>,
    /// Names of the parts of a line; an empty name leaves the part out.
    pub keys: Keys,
    /// How the time is written.
    pub time: TimeEncoding,
    /// How the level is written.
    pub level_words: LevelEncoding,
    /// Fields of every line, as JSON text, sorted by name.
    pub initial_fields: Vec<(String, String)>,
    /// The name of the logger.
    pub logger: &'static str,
    /// What of the configuration could not be used, for a warning once logging runs.
    pub notes: Vec<String>,
}

/// How important a line is. What zap ranks above [`Level::Error`] ends a process there; here nothing is written at all
/// below it, which [`Level::Fatal`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// What happens in the life of the process.
    Info,
    /// Something is worse than it should be.
    Warn,
    /// Somebody should act.
    Error,
    /// `dpanic`.
    DPanic,
    /// `panic`.
    Panic,
    /// `fatal`: only what ends the process.
    Fatal,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object.
    Json,
    /// Time, level, logger and message with tabs between, then the fields as JSON.
    Console,
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Names of the parts of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The time.
    pub time: String,
    /// The level.
    pub level: String,
    /// The logger's name.
    pub name: String,
    /// File and line; nothing here knows them.
    pub caller: String,
    /// The text.
    pub message: String,
}

/// How the time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeEncoding {
    /// As RFC 3339 with as many digits of the second's fraction as it has, at most nine.
    Rfc3339Nano,
    /// As RFC 3339 with whole seconds.
    Rfc3339,
    /// With three digits of the fraction and the zone without colon, `Z` for UTC.
    Iso8601,
    /// Milliseconds since 1970, with a fraction.
    Millis,
    /// Nanoseconds since 1970.
    Nanos,
    /// Seconds since 1970, with a fraction.
    Epoch,
}

/// How the level is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelEncoding {
    /// `info`, `warn`; also where colours are configured, which logs of pods cannot show.
    Lowercase,
    /// `INFO`, `WARN`.
    Capital,
    /// `INFO`, `WARNING`, `CRITICAL`, as Stackdriver names severities.
    Severity,
}

impl Level {
    /// Reads a level as zap does: lower or upper case, empty is `info`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Some(Self::Debug),
            "info" | "" => Some(Self::Info),
            "warn" | "warning" => Some(Self::Warn),
            "error" => Some(Self::Error),
            "dpanic" => Some(Self::DPanic),
            "panic" => Some(Self::Panic),
            "fatal" => Some(Self::Fatal),
            _ => None,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self, encoding: LevelEncoding) -> &'static str {
        let [lower, capital, severity] = match self {
            Self::Debug => ["debug", "DEBUG", "DEBUG"],
            Self::Info => ["info", "INFO", "INFO"],
            Self::Warn => ["warn", "WARN", "WARNING"],
            Self::Error => ["error", "ERROR", "ERROR"],
            Self::DPanic => ["dpanic", "DPANIC", "CRITICAL"],
            Self::Panic => ["panic", "PANIC", "ALERT"],
            Self::Fatal => ["fatal", "FATAL", "EMERGENCY"],
        };
        match encoding {
            LevelEncoding::Lowercase => lower,
            LevelEncoding::Capital => capital,
            LevelEncoding::Severity => severity,
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            level: Level::Info,
            encoding: Encoding::Json,
            outputs: vec![Output::Stderr],
            keys: Keys {
                time: "timestamp".to_owned(),
                level: "severity".to_owned(),
                name: "logger".to_owned(),
                caller: "caller".to_owned(),
                message: "message".to_owned(),
            },
            time: TimeEncoding::Rfc3339Nano,
            level_words: LevelEncoding::Severity,
            initial_fields: Vec::new(),
            logger: LOGGER,
            notes: Vec::new(),
        }
    }
}

impl Logging {
    /// Lays zap's JSON over the default and the level over both; either may be empty. Never fails: a configuration that
    /// cannot be used leaves the default in force, with a note, and a level that is none changes nothing.
    #[must_use]
    pub fn parse(config: &str, level: &str) -> Self {
        let mut out = match Self::from_json(config) {
            Ok(logging) => logging,
            Err(problem) => Self {
                logger: FALLBACK_LOGGER,
                notes: vec![format!(
                    "Failed to parse logging config - using default zap production config: {problem}"
                )],
                ..Self::default()
            },
        };
        if !level.is_empty() {
            match Level::parse(level) {
                Some(level) => out.level = level,
                None => out.notes.push(format!("SERVING_LOGGING_LEVEL: {level:?} is not a level")),
            }
        }
        out
    }

    fn from_json(config: &str) -> Result<Self, String> {
        let mut out = Self::default();
        if config.is_empty() {
            return Ok(out);
        }
        let json = Json::parse(config).map_err(|error| error.to_string())?;
        for (name, value) in json.object("the configuration").map_err(|error| error.to_string())? {
            out.member(name, value)?;
        }
        Ok(out)
    }

    fn member(&mut self, name: &str, value: &Json) -> Result<(), String> {
        let kind = |error: KindError| error.to_string();
        let mut text = String::new();
        if names(name, "level") {
            value.text_into("level", &mut text).map_err(kind)?;
            if *value != Json::Null {
                self.level =
                    Level::parse(&text).ok_or_else(|| format!("level: unrecognized level: {text:?}"))?;
            }
        } else if names(name, "encoding") {
            value.text_into("encoding", &mut text).map_err(kind)?;
            match text.as_str() {
                "json" => self.encoding = Encoding::Json,
                "console" => self.encoding = Encoding::Console,
                _ if *value == Json::Null => {}
                _ => return Err(format!("encoding: no encoder registered for name {text:?}")),
            }
        } else if names(name, "outputpaths") {
            self.outputs(value)?;
        } else if names(name, "encoderconfig") {
            self.encoder(value).map_err(kind)?;
        } else if names(name, "initialfields") {
            for (field, value) in value.object("initialFields").map_err(kind)? {
                self.initial_fields.push((field.clone(), value.to_string()));
            }
            self.initial_fields.sort();
        }
        Ok(())
    }

    fn outputs(&mut self, value: &Json) -> Result<(), String> {
        if *value == Json::Null {
            return Ok(());
        }
        self.outputs.clear();
        for item in value.list("outputPaths").map_err(|error| error.to_string())? {
            let mut path = String::new();
            item.text_into("outputPaths", &mut path).map_err(|error| error.to_string())?;
            self.outputs.push(match path.as_str() {
                "stdout" => Output::Stdout,
                "stderr" => Output::Stderr,
                other => {
                    self.notes.push(format!("outputPaths: {other:?} is not written; standard error is"));
                    Output::Stderr
                }
            });
        }
        Ok(())
    }

    fn encoder(&mut self, value: &Json) -> Result<(), KindError> {
        for (name, value) in value.object("encoderConfig")? {
            let key = match name.to_ascii_lowercase().as_str() {
                "timekey" => &mut self.keys.time,
                "levelkey" => &mut self.keys.level,
                "namekey" => &mut self.keys.name,
                "callerkey" => &mut self.keys.caller,
                "messagekey" => &mut self.keys.message,
                "timeencoder" if *value != Json::Null => {
                    let mut word = String::new();
                    // An object with a layout of Go's own is taken for the default of words nobody knows.
                    if !matches!(value, Json::Object(_)) {
                        value.text_into("encoderConfig.timeEncoder", &mut word)?;
                    }
                    self.time = time_encoding(&word);
                    continue;
                }
                "levelencoder" if *value != Json::Null => {
                    let mut word = String::new();
                    value.text_into("encoderConfig.levelEncoder", &mut word)?;
                    self.level_words = match word.as_str() {
                        "capital" | "capitalColor" => LevelEncoding::Capital,
                        _ => LevelEncoding::Lowercase,
                    };
                    continue;
                }
                _ => continue,
            };
            value.text_into(&format!("encoderConfig.{name}"), key)?;
        }
        Ok(())
    }
}

fn time_encoding(word: &str) -> TimeEncoding {
    match word {
        "rfc3339nano" | "RFC3339Nano" => TimeEncoding::Rfc3339Nano,
        "rfc3339" | "RFC3339" => TimeEncoding::Rfc3339,
        "iso8601" | "ISO8601" => TimeEncoding::Iso8601,
        "millis" => TimeEncoding::Millis,
        "nanos" => TimeEncoding::Nanos,
        _ => TimeEncoding::Epoch,
    }
}
