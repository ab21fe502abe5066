//! The data plane between queue-proxies: payloads from the holder's memory to the receiver's.
//!
//! - [`DataPort`]: the holder's side. Serves retrieve, acknowledge and cancel out of a [`zipline_buffer::Store`].
//! - [`Copies`]: what was retrieved, served to other receivers for a while.
//! - [`host`]: both sides on one machine, where memory is passed in place of bytes.
//! - [`Retriever`]: the receiver's side. Connects, proves, resumes, verifies, acknowledges.
//! - [`DataCertificate`]: what a data port shows when it speaks TLS.
//! - [`request_head`]: the heads of requests, as a data port takes them.
//! - [`sockets`]: TCP options for data connections.
//! - [`trailers`]: how a message's trailers travel with its payload.
//!
//! `docs/protocol.md` sections 6 and 9 are the truth for both sides.
#![forbid(unsafe_code)]

mod copies;
mod error;
pub mod host;
mod port;
mod retriever;
pub mod sockets;
mod tls;
pub mod trailers;

pub use copies::Copies;
pub use error::{RetrieveError, RetrieveErrorKind, Source};
pub use port::head as request_head;
pub use port::{DataPort, DataPortConfig, DataPortMonitor, DataPortStats};
pub use retriever::{
    Fetched, Outcome, Retrieval, RetrievalBody, RetrievalOutcome, RetrieveOptions, Retriever, RetrieverConfig,
};
pub use tls::{CertificateMakingError, DataCertificate};
