//! OTLP: OpenTelemetry's own protocol, as messages and as a client that pushes them.

pub(crate) mod messages;
pub(crate) mod push;
pub(crate) mod target;

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970; the far future beyond the year 2554.
pub(crate) fn unix_nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
