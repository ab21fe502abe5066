//! How much memory payloads may take where nobody says so.

use zipline_protocol::limits;

/// Default budget of bytes held, without a limit to derive it from.
const HELD_DEFAULT: u64 = 256 * 1024 * 1024;

/// Both budgets of a queue-proxy, in bytes: what stands where no setting does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Payloads held.
    pub held: u64,
    /// Bytes on their way to the function; `None`: as many as may be held.
    pub in_flight: Option<u64>,
}

impl Budgets {
    /// What fits into a control group that may use `limit` bytes: half of it held, a quarter in flight. The rest is for the
    /// process itself and for socket buffers, which count against the same limit. Without a limit: 256 MiB held, and as much in
    /// flight, so that what one instance can put another one can get.
    #[must_use]
    pub fn within(limit: Option<u64>) -> Self {
        let least = limits::SEGMENT as u64;
        limit.map_or_else(Self::default, |limit| Self {
            held: (limit / 2).max(least),
            in_flight: Some((limit / 4).max(least)),
        })
    }

    /// As [`Budgets::within`] the limit of this process's control group.
    #[must_use]
    pub fn of_process() -> Self {
        Self::within(zipline_runtime::cgroup::memory_limit())
    }

    /// The budget of bytes in flight where `held` bytes may be held. A small budget of one function says nothing about what
    /// others send to it, so without a limit it is never less than the default of what may be held.
    #[must_use]
    pub(crate) fn in_flight(&self, held: u64) -> u64 {
        self.in_flight.unwrap_or(held.max(HELD_DEFAULT))
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self { held: HELD_DEFAULT, in_flight: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_given_away_whole() {
        assert_eq!(Budgets::within(Some(1 << 30)), Budgets { held: 512 << 20, in_flight: Some(256 << 20) });
        let least = limits::SEGMENT as u64;
        assert_eq!(Budgets::within(Some(1)), Budgets { held: least, in_flight: Some(least) });
    }

    #[test]
    fn without_a_limit_what_can_be_held_can_be_got() {
        let free = Budgets::within(None);
        assert_eq!(free.held, 256 << 20);
        for (held, in_flight) in [(1 << 20, 256 << 20), (256 << 20, 256 << 20), (1 << 30, 1 << 30)] {
            assert_eq!(free.in_flight(held), in_flight);
        }
        assert_eq!(Budgets::within(Some(1 << 30)).in_flight(1 << 40), 256 << 20, "the limit is the limit");
    }
}
