//! Why an operation on a store failed; one enum per operation, each answers with its stable code.
use std::time::Duration;

use zipline_protocol::ErrorCode;

/// Why a payload was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// There is no memory, or no payload slot, within the time allowed, or too many wait already.
    #[error("no buffer memory for {wanted_bytes} bytes (budget {budget_bytes} bytes)")]
    BufferFull {
        /// Bytes that were asked for.
        wanted_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// It can never be held.
    #[error("payload of {length} bytes is larger than the buffer of {budget_bytes} bytes")]
    TooLarge {
        /// The payload's length.
        length: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// The holder drains and its grace is over.
    #[error("the holder is draining and takes no more payloads")]
    Draining,
    /// A payload of this id is held already. Ids are random, so this is a bug of the caller.
    #[error("a payload of this id is held already")]
    Exists,
}

impl BeginError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BufferFull { .. } => ErrorCode::BufferFull,
            Self::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::Draining => ErrorCode::Draining,
            Self::Exists => ErrorCode::RequestInvalid,
        }
    }
}

/// Why a payload is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Gone {
    /// Its writer ended before the payload was complete.
    #[error("the sender broke off")]
    Aborted,
    /// It was released, or its invocation ended.
    #[error("the payload was released or its invocation ended")]
    Released,
    /// It is past its expiry.
    #[error("the payload expired")]
    Expired,
    /// Its retrievals are used up.
    #[error("the payload's retrievals are used up")]
    Spent,
}

impl Gone {
    /// The stable code.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Aborted | Self::Released => ErrorCode::PayloadLost,
            Self::Expired => ErrorCode::ReferenceExpired,
            Self::Spent => ErrorCode::RetrievalsExhausted,
        }
    }
}

/// Why bytes could not be added to a payload, or a payload could not be completed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The payload is gone; nobody will read what is written.
    #[error("{0}")]
    Gone(Gone),
    /// More bytes than were declared.
    #[error("payload is longer than the declared {declared} bytes")]
    TooLong {
        /// The declared length.
        declared: u64,
    },
    /// Fewer bytes than were declared.
    #[error("payload ended after {written} of the declared {declared} bytes")]
    TooShort {
        /// The declared length.
        declared: u64,
        /// What was written.
        written: u64,
    },
    /// A growing payload that must be held whole outgrew the budget.
    #[error("payload of more than {written} bytes is larger than the buffer of {budget_bytes} bytes")]
    TooLarge {
        /// What was written.
        written: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// No memory came free within the time allowed.
    #[error("no buffer memory after {written} bytes (budget {budget_bytes} bytes)")]
    BufferFull {
        /// What was written.
        written: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// An earlier write was dropped after a part of its bytes had been taken.
    #[error("an earlier write was given up half-way")]
    Torn,
}

impl WriteError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Gone(gone) => gone.code(),
            Self::TooLong { .. } | Self::TooShort { .. } | Self::Torn => ErrorCode::RequestInvalid,
            Self::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::BufferFull { .. } => ErrorCode::BufferFull,
        }
    }
}

/// Why a lease was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// No such payload here.
    #[error("no such payload here")]
    NotFound,
    /// All its retrievals are used up, or taken by leases that run longer than the wait.
    #[error("the payload's retrievals are used up or taken")]
    Exhausted,
    /// Past its expiry.
    #[error("the payload expired")]
    Expired,
    /// `from` is beyond the length, or `to` is before `from`.
    #[error("range {from}..{} does not fit the payload", Until(*.to))]
    RangeInvalid {
        /// First byte wanted.
        from: u64,
        /// End of the range.
        to: Option<u64>,
    },
    /// The bytes wanted have left the window.
    #[error("byte {from} has left the window, which starts at {start}")]
    Evicted {
        /// First byte wanted.
        from: u64,
        /// First byte that is still there.
        start: u64,
    },
    /// The sender broke off.
    #[error("the sender broke off")]
    Aborted,
    /// The holder drains and its grace is over.
    #[error("the holder is draining and grants no more leases")]
    Draining,
    /// The peer has all the leases one address may have, or too many wait already.
    #[error("too many leases or waiters")]
    TooMany,
}

struct Until(Option<u64>);

impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(to) => write!(f, "{to}"),
            None => Ok(()),
        }
    }
}

impl LeaseError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound | Self::Evicted { .. } | Self::Aborted => ErrorCode::PayloadLost,
            Self::Exhausted => ErrorCode::RetrievalsExhausted,
            Self::Expired => ErrorCode::ReferenceExpired,
            Self::RangeInvalid { .. } => ErrorCode::RangeInvalid,
            Self::Draining => ErrorCode::Draining,
            Self::TooMany => ErrorCode::BufferFull,
        }
    }

    /// The status with which the data port answers (`docs/protocol.md` section 6.2).
    pub fn data_status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Exhausted => 409,
            Self::Expired => 410,
            Self::RangeInvalid { .. } => 416,
            Self::Evicted { .. } | Self::Aborted => 424,
            Self::Draining => 503,
            Self::TooMany => 507,
        }
    }
}

/// Why a reader ended before the end of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The payload is gone.
    #[error("{0}")]
    Gone(Gone),
    /// The next byte has left the window.
    #[error("byte {position} has left the window, which starts at {start}")]
    Evicted {
        /// The byte wanted.
        position: u64,
        /// First byte that is still there.
        start: u64,
    },
    /// The growing payload ended before the range began.
    #[error("range starts at {from}, beyond the payload's {length} bytes")]
    RangeInvalid {
        /// First byte wanted.
        from: u64,
        /// The payload's length.
        length: u64,
    },
    /// The lease made no progress for too long.
    #[error("the lease lapsed after {} s without progress", .after.as_secs())]
    Lapsed {
        /// The limit.
        after: Duration,
    },
    /// A newer request of the same lease took over.
    #[error("the lease was resumed by a newer request")]
    Superseded,
    /// The lease was cancelled or acknowledged.
    #[error("the lease was ended by its receiver")]
    Ended,
}

impl ReadError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Gone(gone) => gone.code(),
            Self::Evicted { .. } | Self::Lapsed { .. } | Self::Superseded | Self::Ended => {
                ErrorCode::PayloadLost
            }
            Self::RangeInvalid { .. } => ErrorCode::RangeInvalid,
        }
    }
}

/// Why an acknowledgement or a cancellation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// No such payload, or no such lease of it.
    #[error("no such payload or lease here")]
    NotFound,
    /// The payload expired before.
    #[error("the payload expired")]
    Expired,
}

impl AckError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound => ErrorCode::PayloadLost,
            Self::Expired => ErrorCode::ReferenceExpired,
        }
    }

    /// The status with which the data port answers.
    pub fn data_status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Expired => 410,
        }
    }
}

/// Why a payload was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// No such payload here.
    #[error("no such payload here")]
    NotFound,
    /// It expired before.
    #[error("the payload expired")]
    Expired,
}

impl ReleaseError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound => ErrorCode::PayloadLost,
            Self::Expired => ErrorCode::ReferenceExpired,
        }
    }
}

/// Why bytes may not pass through now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InFlightError {
    /// Too many wait already.
    #[error("{waiters} requests wait for in-flight memory already")]
    TooMany {
        /// How many wait.
        waiters: usize,
    },
    /// They have to lie in one piece, and never can.
    #[error("{length} bytes in one piece are more than the in-flight budget of {budget_bytes} bytes")]
    TooLarge {
        /// How many bytes.
        length: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// The kernel has no memory or no descriptor left.
    #[error("the kernel gives no memory for {length} bytes")]
    Kernel {
        /// How many bytes.
        length: u64,
        /// What it said.
        source: std::io::Error,
    },
}

impl InFlightError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooMany { .. } | Self::Kernel { .. } => ErrorCode::BufferFull,
            Self::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        }
    }
}
