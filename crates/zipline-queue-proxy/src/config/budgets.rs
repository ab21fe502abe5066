//! How much memory payloads may take where nobody says so.

use zipline_protocol::limits;

/// Default budget of bytes held, without a limit to derive it from.
const HELD_DEFAULT: u64 = 256 * 1024 * 1024;
/// Default budget of bytes on their way to the function, without a limit.
const IN_FLIGHT_DEFAULT: u64 = 64 * 1024 * 1024;

/// Both budgets of a queue-proxy, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Payloads held.
    pub held: u64,
    /// Bytes on their way to the function.
    pub in_flight: u64,
}

impl Budgets {
    /// What fits into a control group that may use `limit` bytes: half of it held, a quarter in flight. The rest is for the
    /// process itself and for socket buffers, which count against the same limit. Without a limit: 256 MiB and 64 MiB.
    #[must_use]
    pub fn within(limit: Option<u64>) -> Self {
        let least = limits::SEGMENT as u64;
        limit.map_or_else(Self::default, |limit| Self {
            held: (limit / 2).max(least),
            in_flight: (limit / 4).max(least),
        })
    }

    /// As [`Budgets::within`] the limit of this process's control group.
    #[must_use]
    pub fn of_process() -> Self {
        Self::within(zipline_runtime::cgroup::memory_limit())
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self { held: HELD_DEFAULT, in_flight: IN_FLIGHT_DEFAULT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_given_away_whole() {
        assert_eq!(Budgets::within(Some(1 << 30)), Budgets { held: 512 << 20, in_flight: 256 << 20 });
        assert_eq!(Budgets::within(None), Budgets { held: 256 << 20, in_flight: 64 << 20 });
        let least = limits::SEGMENT as u64;
        assert_eq!(Budgets::within(Some(1)), Budgets { held: least, in_flight: least });
    }
}
