//! How a command ends. 0 done, 1 the operation failed, 2 usage or configuration, 3 unavailable or timed out, 128 + n ended by
//! signal n. A reader of standard output who went away is no failure.

use std::fmt;
use std::io;

use zipline_protocol::ErrorCode;

/// The operation failed.
pub(crate) const FAILED: u8 = 1;
/// The command line, the configuration or a manifest is wrong.
pub(crate) const USAGE: u8 = 2;
/// The engine or a function is not there, or did not answer in time.
pub(crate) const UNAVAILABLE: u8 = 3;

/// What a verb gives: the exit status, or why there is none.
pub(crate) type Outcome = Result<u8, Failure>;

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    /// None: nothing to say.
    error: Option<anyhow::Error>,
}

impl Failure {
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { status: FAILED, error: Some(error.into()) }
    }

    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { status: USAGE, error: Some(error.into()) }
    }

    pub(crate) fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self { status: UNAVAILABLE, error: Some(error.into()) }
    }

    /// With the status of an error code.
    pub(crate) fn coded(code: ErrorCode, message: String) -> Self {
        Self { status: code.exit_code(), error: Some(anyhow::Error::msg(message)) }
    }

    /// Standard output could not be written. Whoever read it having gone away ends the command quietly, as done.
    pub(crate) fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { status: 0, error: None };
        }
        Self::failed(anyhow::Error::new(error).context("cannot write standard output"))
    }

    pub(crate) fn status(&self) -> u8 {
        self.status
    }
}

/// A message without a cause.
pub(crate) fn message(text: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::msg(text.to_string())
}

/// The error and its causes, in one line unless they have several themselves.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{error:#}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_no_failure() {
        let failure = Failure::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.status(), failure.to_string().as_str()), (0, ""));
        assert_eq!(Failure::output(io::ErrorKind::StorageFull.into()).status(), FAILED);
    }

    #[test]
    fn causes_are_printed_once() {
        let failure = Failure::usage(
            anyhow::Error::new(io::Error::other("no such thing")).context("cannot read a.yaml"),
        );
        assert_eq!(
            (failure.status(), failure.to_string().as_str()),
            (USAGE, "cannot read a.yaml: no such thing")
        );
    }
}
