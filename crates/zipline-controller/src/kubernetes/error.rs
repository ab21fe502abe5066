//! What can go wrong when the API server is asked.

use std::io;
use std::path::PathBuf;

use http::StatusCode;
use serde::Deserialize;
use zipline_https::{RequestError, RootsError};

/// Longest message of the API server that is kept.
const MESSAGE_MAX: usize = 512;

/// The API server gave no usable answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubernetesError {
    /// No answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The roots cannot be used.
    #[error("the API server cannot be verified")]
    Roots(#[from] RootsError),
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The controller's own token is not text.
    #[error("the controller's own token is not one line of text")]
    Token,
    /// A name has characters that no name has.
    #[error("a name cannot stand in a path")]
    Name,
    /// It refused.
    #[error("the API server answered {status}: {message}")]
    Status {
        /// The status.
        status: StatusCode,
        /// Its reason, one word.
        reason: String,
        /// Its message, cut.
        message: String,
    },
    /// The answer is not what it should be.
    #[error("the answer of the API server is not understood")]
    Malformed(#[source] serde_json::Error),
    /// A line of a watch is too long, or the watch broke off.
    #[error("the watch broke off: {0}")]
    Watch(&'static str),
}

impl KubernetesError {
    pub(crate) fn refused(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            reason: String,
            message: String,
        }
        let said: Status = serde_json::from_slice(body).unwrap_or_default();
        let message = said.message.chars().take(MESSAGE_MAX).collect();
        Self::Status { status, reason: said.reason, message }
    }

    /// Whether another writer owns the field, or the object is another one than was meant.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::CONFLICT, .. })
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::NOT_FOUND, .. })
    }

    /// Whether a watch has to begin anew from a list.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::GONE, .. })
    }
}
