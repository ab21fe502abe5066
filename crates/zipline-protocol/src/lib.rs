//! All that two Zipline processes must agree on: ids, references, headers, codes, numbers, control messages.
//!
//! Layer 0: no I/O, no clock, no randomness, no async. The wire document is `docs/protocol.md`; section numbers in this
//! crate's docs point there.
#![forbid(unsafe_code)]

pub mod control;
pub mod controller;
pub mod data;
mod error;
mod function;
pub mod header;
pub mod host;
mod ids;
pub mod limits;
mod record;
mod reference;
pub mod relay;
pub mod sdk;
pub mod stock;
mod text;
pub mod user_agent;
mod vocabulary;

pub use error::{ErrorCode, PROBLEM_MEDIA_TYPE, Problem};
pub use function::{FunctionName, FunctionNameError};
pub use ids::{BootId, IdError, KeyId, LeaseId, Nonce, PayloadId};
pub use record::{Record, RecordError};
pub use reference::{REFERENCE_MEDIA_TYPE, ReferenceText, ReferenceTextError};
pub use text::{from_text, to_text};
pub use vocabulary::{InlineReason, Mode, ReferenceKind, Retrievals, Way};
