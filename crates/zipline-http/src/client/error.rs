//! Why a request got no response.

use super::target::HostPort;
use crate::error::BodyError;
use std::error::Error as StdError;
use std::io;
use std::time::Duration;
use zipline_protocol::ErrorCode;

/// A request got no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection; the request was not sent.
    #[error("cannot connect to {addr}")]
    Connect {
        /// Where to.
        addr: HostPort,
        /// Why not.
        source: io::Error,
    },
    /// Every connection the client may have is busy; the request was not sent.
    #[error("no connection to {addr} became free within {waited:?}, the limit is {limit}")]
    Busy {
        /// Where to.
        addr: HostPort,
        /// How long it was waited for.
        waited: Duration,
        /// Connections the client may have.
        limit: usize,
    },
    /// The request cannot be expressed in the target's protocol; it was not sent.
    #[error("request cannot be sent: {0}")]
    Invalid(&'static str),
    /// The request's own body failed while it was sent; the peer saw an abort.
    #[error("request body broke off")]
    RequestBody {
        /// Kind of the body's error.
        source: BodyError,
    },
    /// The connection broke before the response; the peer may have acted on the request.
    #[error("connection to {addr} broke before the response")]
    BeforeResponse {
        /// The peer.
        addr: HostPort,
        /// What broke.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl SendError {
    /// Whether the peer certainly has not seen the request.
    pub const fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Busy { .. } | Self::Invalid(_))
    }

    /// Whether the request's own body was at fault.
    pub const fn is_request_body(&self) -> bool {
        matches!(self, Self::RequestBody { .. })
    }

    /// The stable code.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::RequestInvalid,
            Self::RequestBody { source } => source.code(),
            Self::Connect { .. } | Self::Busy { .. } | Self::BeforeResponse { .. } => {
                ErrorCode::UpstreamFailed
            }
        }
    }
}
