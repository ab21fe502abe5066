//! Parameters of a put, read strictly: what is not understood is refused by name.

use std::time::Duration;

use zipline_protocol::sdk::Terms;
use zipline_protocol::{Retrievals, limits};

use super::Refusal;

/// What a put asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutQuery {
    pub(crate) retrievals: Retrievals,
    /// Within the maximum.
    pub(crate) ttl: Duration,
    /// Whether more than the maximum was asked for.
    pub(crate) ttl_cut: bool,
    pub(crate) linger: Duration,
    pub(crate) wait: Duration,
}

impl PutQuery {
    /// Reads the query of a put's URI.
    ///
    /// # Errors
    /// `request-invalid` for unknown or repeated parameters and for values out of bounds. A ttl beyond the maximum is no
    /// error: the answer states the one that applies.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut read = Self {
            retrievals: Retrievals::Limited(limits::RETRIEVALS_DEFAULT),
            ttl: limits::TTL_DEFAULT,
            ttl_cut: false,
            linger: Duration::ZERO,
            wait: limits::PUT_WAIT_DEFAULT,
        };
        let mut seen: Vec<&str> = Vec::with_capacity(4);
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "retrievals" => read.retrievals = retrievals(value)?,
                "ttl" => {
                    let asked = duration("ttl", value)?;
                    read.ttl = life(asked)?;
                    read.ttl_cut = asked > limits::TTL_MAX;
                }
                "linger" => read.linger = bounded("linger", value, limits::LINGER_MAX)?,
                "wait" => read.wait = bounded("wait", value, limits::PUT_WAIT_MAX)?,
                _ => {
                    let name: String = name.chars().take(64).collect();
                    return Err(Refusal::invalid(format_args!(
                        "unknown parameter {name:?}: a put takes retrievals, ttl, linger and wait"
                    )));
                }
            }
            if seen.contains(&name) {
                return Err(Refusal::invalid(format_args!("{name} is given twice")));
            }
            seen.push(name);
        }
        Ok(read)
    }

    /// What the terms of an SDK's put ask for, by the same rules.
    ///
    /// # Errors
    /// `request-invalid` for values out of bounds.
    pub(crate) fn from_terms(terms: &Terms<'_>) -> Result<Self, Refusal> {
        let read = Self {
            retrievals: terms.retrievals,
            ttl: life(terms.ttl)?,
            ttl_cut: terms.ttl > limits::TTL_MAX,
            linger: within("linger", terms.linger, limits::LINGER_MAX)?,
            wait: within("wait", terms.wait, limits::PUT_WAIT_MAX)?,
        };
        Ok(read)
    }
}

/// A life that is not over at once, cut at its maximum.
fn life(asked: Duration) -> Result<Duration, Refusal> {
    if asked.is_zero() {
        Err(Refusal::invalid("ttl must be more than 0"))
    } else {
        Ok(asked.min(limits::TTL_MAX))
    }
}

fn retrievals(value: &str) -> Result<Retrievals, Refusal> {
    if value == "unlimited" {
        return Ok(Retrievals::Unlimited);
    }
    match digits(value).and_then(|count| u32::try_from(count).ok()) {
        Some(count) if (1..=limits::RETRIEVALS_MAX).contains(&count) => Ok(Retrievals::Limited(count)),
        _ => Err(Refusal::invalid(format_args!(
            "retrievals must be a whole number from 1 to {}, or unlimited",
            limits::RETRIEVALS_MAX
        ))),
    }
}

fn bounded(name: &str, value: &str, most: Duration) -> Result<Duration, Refusal> {
    within(name, duration(name, value)?, most)
}

fn within(name: &str, asked: Duration, most: Duration) -> Result<Duration, Refusal> {
    if asked > most {
        return Err(Refusal::invalid(format_args!("{name} must be at most {}s", most.as_secs())));
    }
    Ok(asked)
}

/// A whole number with one of the units ms, s, m, h.
fn duration(name: &str, value: &str) -> Result<Duration, Refusal> {
    let split = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(split);
    let number = digits(number);
    let read = match unit {
        "ms" => number.map(Duration::from_millis),
        "s" => number.map(Duration::from_secs),
        "m" => number.and_then(|n| n.checked_mul(60)).map(Duration::from_secs),
        "h" => number.and_then(|n| n.checked_mul(3600)).map(Duration::from_secs),
        _ => None,
    };
    read.ok_or_else(|| {
        Refusal::invalid(format_args!("{name} must be a whole number with ms, s, m or h, as in 30s"))
    })
}

/// Decimal digits only; `None` beyond 64 bits.
pub(super) fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_values() {
        let read = PutQuery::parse(None).unwrap();
        assert_eq!((read.retrievals, read.ttl), (Retrievals::Limited(1), Duration::from_secs(60)));
        let read = PutQuery::parse(Some("retrievals=3&ttl=1500ms&linger=2s&wait=1m")).unwrap();
        assert_eq!((read.retrievals, read.ttl), (Retrievals::Limited(3), Duration::from_millis(1500)));
        assert_eq!((read.linger, read.wait), (Duration::from_secs(2), Duration::from_secs(60)));
        assert_eq!(PutQuery::parse(Some("retrievals=unlimited")).unwrap().retrievals, Retrievals::Unlimited);
    }

    #[test]
    fn a_ttl_beyond_the_maximum_is_cut() {
        let read = PutQuery::parse(Some("ttl=25h")).unwrap();
        assert_eq!((read.ttl, read.ttl_cut), (Duration::from_secs(3600), true));
        assert!(!PutQuery::parse(Some("ttl=1h")).unwrap().ttl_cut);
    }

    #[test]
    fn everything_else_is_refused() {
        for query in [
            "ttl=-5s",
            "ttl=0s",
            "ttl=5",
            "ttl=s",
            "ttl=",
            "ttl=1e3s",
            "ttl=99999999999999999999h",
            "ttl=18446744073709551615h",
            "ttl=30s&ttl=30s",
            "retrievals=0",
            "retrievals=-1",
            "retrievals=1000001",
            "retrievals=4294967297",
            "retrievals=%31",
            "linger=61s",
            "wait=61s",
            "time=5s",
            "TTL=5s",
        ] {
            assert!(PutQuery::parse(Some(query)).is_err(), "{query}");
        }
    }
}
