//! Structured logs on standard error. Events never carry references, keys or payload bytes; that is the duty of those who
//! write them.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use crate::supervised;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A name that is no [`Format`].
#[derive(Debug, thiserror::Error)]
#[error("log format {0:?} is not known, use text or json")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogsError {
    /// The filter does not parse.
    #[error("log filter {filter:?} is not valid")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process already has a subscriber.
    #[error("logs are already set up in this process")]
    AlreadyInitialised,
}

/// Sends events that pass `filter` (`info`, `zipline=debug,warn`, ...) to standard error, and every panic with them. A
/// reader of standard error who went away is ignored.
///
/// # Errors
/// See [`LogsError`].
pub fn init(filter: &str, format: Format) -> Result<(), LogsError> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|source| LogsError::Filter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let set = match format {
        // Without a terminal never; with one the subscriber itself looks at NO_COLOR.
        Format::Text if !std::io::stderr().is_terminal() => builder.with_ansi(false).try_init(),
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|_already| LogsError::AlreadyInitialised)?;
    log_panics();
    Ok(())
}

/// Sends every panic to the present subscriber, instead of printing it. [`init`] does so itself.
pub fn log_panics() {
    std::panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    tracing::error!(task = supervised::current(), message, location, "panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_two_names() {
        assert_eq!("text".parse::<Format>().unwrap(), Format::Text);
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        assert_eq!(
            "xml".parse::<Format>().unwrap_err().to_string(),
            "log format \"xml\" is not known, use text or json"
        );
    }

    #[test]
    fn a_bad_filter_is_refused_with_its_text() {
        let error = init("zipline=loud", Format::Text).unwrap_err();
        assert_eq!(error.to_string(), "log filter \"zipline=loud\" is not valid");
    }
}
