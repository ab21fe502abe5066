//! What is held in this process, and by which rules: the ones of the protocol, section 6.4, with time as an argument.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zipline_protocol::{Retrievals, limits};

use crate::{Error, ErrorCode, PutOptions, Result};

/// References that are no more, and why: remembered so that their errors can say it.
const GONE_REMEMBERED: usize = 65_536;

/// One payload.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Bytes,
    content_type: Option<Arc<str>>,
    /// `None`: unlimited.
    left: Option<u32>,
    ttl: Duration,
    linger: Duration,
    wait: Duration,
    /// Set when it is put.
    expires_at: Duration,
    /// Its retrievals are used up; it stays for a retry.
    spent: bool,
}

impl Held {
    pub(super) fn new(bytes: Bytes, options: &PutOptions) -> Self {
        Self {
            bytes,
            content_type: options.content_type.clone(),
            left: match options.retrievals {
                Retrievals::Limited(count) => Some(count),
                Retrievals::Unlimited => None,
            },
            ttl: options.ttl.min(limits::TTL_MAX),
            linger: options.linger,
            wait: options.wait,
            expires_at: Duration::ZERO,
            spent: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Expired,
    Spent,
    Released,
}

#[derive(Debug)]
pub(super) struct Ledger {
    budget: u64,
    used: u64,
    held: HashMap<String, Held>,
    gone: HashMap<String, Gone>,
    gone_order: VecDeque<String>,
}

impl Ledger {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, used: 0, held: HashMap::new(), gone: HashMap::new(), gone_order: VecDeque::new() }
    }

    /// When the next payload leaves by itself.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.held.values().map(|held| held.expires_at).min()
    }

    pub(super) fn put(&mut self, now: Duration, text: String, mut held: Held) -> Result<()> {
        let (length, budget) = (held.bytes.len() as u64, self.budget);
        if length > budget {
            return Err(Error::new(
                ErrorCode::PayloadTooLarge,
                format_args!("the payload has {length} bytes, the buffer {budget}: put it in parts"),
            ));
        }
        if self.used + length > budget {
            self.expire(now);
        }
        if self.used + length > budget {
            return Err(Error::new(
                ErrorCode::BufferFull,
                format_args!(
                    "no room for {length} bytes within {} s: {} of {budget} are held; get or release payloads first",
                    held.wait.as_secs_f64(),
                    self.used
                ),
            ));
        }
        self.used += length;
        held.expires_at = now + held.ttl;
        self.held.insert(text, held);
        Ok(())
    }

    pub(super) fn get(&mut self, now: Duration, text: &str) -> Result<(Bytes, Option<Arc<str>>)> {
        self.expire_one(now, text);
        let Some(held) = self.held.get_mut(text) else { return Err(self.missing(text)) };
        let got = (held.bytes.clone(), held.content_type.clone());
        if !held.spent
            && let Some(left) = held.left.as_mut()
        {
            *left -= 1;
            if *left == 0 {
                held.spent = true;
                held.expires_at = now + held.linger;
                if held.linger.is_zero() {
                    self.remove(text, Gone::Spent);
                }
            }
        }
        Ok(got)
    }

    pub(super) fn release(&mut self, now: Duration, text: &str) -> Result<()> {
        self.expire_one(now, text);
        match (self.held.contains_key(text), self.gone.get(text)) {
            (true, _) => {
                self.remove(text, Gone::Released);
                Ok(())
            }
            // As with a queue-proxy: what was spent needs no release, and says so without an error.
            (false, Some(Gone::Spent)) => Ok(()),
            (false, _) => Err(self.missing(text)),
        }
    }

    fn missing(&self, text: &str) -> Error {
        match self.gone.get(text) {
            Some(Gone::Expired) => Error::new(
                ErrorCode::ReferenceExpired,
                "the payload's time is over: put it with a longer ttl, or get it sooner",
            ),
            Some(Gone::Spent) => Error::new(
                ErrorCode::RetrievalsExhausted,
                "every retrieval of the payload is used up: put it with as many as there are receivers",
            ),
            Some(Gone::Released) => Error::new(ErrorCode::PayloadLost, "the payload was released before"),
            None => Error::new(
                ErrorCode::ReferenceInvalid,
                "this process holds no payload of this reference: a local client knows its own puts only",
            ),
        }
    }

    fn expire(&mut self, now: Duration) {
        let over: Vec<String> = self
            .held
            .iter()
            .filter(|(_, held)| held.expires_at <= now)
            .map(|(text, _)| text.clone())
            .collect();
        for text in over {
            self.expire_one(now, &text);
        }
    }

    fn expire_one(&mut self, now: Duration, text: &str) {
        if let Some(held) = self.held.get(text).filter(|held| held.expires_at <= now) {
            let why = if held.spent { Gone::Spent } else { Gone::Expired };
            self.remove(text, why);
        }
    }

    fn remove(&mut self, text: &str, why: Gone) {
        let Some(held) = self.held.remove(text) else { return };
        self.used -= held.bytes.len() as u64;
        if self.gone_order.len() == GONE_REMEMBERED
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
        self.gone.insert(text.to_owned(), why);
        self.gone_order.push_back(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn put(ledger: &mut Ledger, now: Duration, text: &str, options: &PutOptions) {
        ledger.put(now, text.to_owned(), Held::new(Bytes::from_static(b"ten bytes!"), options)).unwrap();
    }

    fn code<T>(result: Result<T>) -> ErrorCode {
        result.err().expect("refused").code()
    }

    #[test]
    fn retrievals_are_counted_and_linger() {
        let mut ledger = Ledger::new(100);
        put(&mut ledger, SECOND, "a", &PutOptions::new().retrievals(Retrievals::Limited(2)).linger(SECOND));
        for _ in 0..2 {
            assert_eq!(ledger.get(SECOND, "a").unwrap().0, &b"ten bytes!"[..]);
        }
        assert!(ledger.get(2 * SECOND - Duration::from_nanos(1), "a").is_ok(), "within the linger");
        assert_eq!(code(ledger.get(2 * SECOND, "a")), ErrorCode::RetrievalsExhausted);
        assert!(ledger.release(2 * SECOND, "a").is_ok());
        put(&mut ledger, SECOND, "b", &PutOptions::new().retrievals(Retrievals::Unlimited));
        for _ in 0..100 {
            assert!(ledger.get(SECOND, "b").is_ok());
        }
        assert_eq!(ledger.used, 10);
    }

    #[test]
    fn time_and_release_end_a_payload() {
        let mut ledger = Ledger::new(100);
        put(&mut ledger, SECOND, "a", &PutOptions::new().ttl(SECOND));
        assert_eq!(code(ledger.get(2 * SECOND, "a")), ErrorCode::ReferenceExpired);
        assert_eq!(code(ledger.release(2 * SECOND, "a")), ErrorCode::ReferenceExpired);
        put(&mut ledger, SECOND, "b", &PutOptions::new());
        ledger.release(SECOND, "b").unwrap();
        assert_eq!(code(ledger.get(SECOND, "b")), ErrorCode::PayloadLost);
        assert_eq!(code(ledger.release(SECOND, "b")), ErrorCode::PayloadLost);
        assert_eq!(code(ledger.get(SECOND, "c")), ErrorCode::ReferenceInvalid);
    }

    #[test]
    fn the_budget_is_never_passed() {
        let mut ledger = Ledger::new(15);
        put(&mut ledger, SECOND, "a", &PutOptions::new().ttl(SECOND));
        let more = || Held::new(Bytes::from_static(b"ten bytes!"), &PutOptions::new());
        assert_eq!(code(ledger.put(SECOND, "b".into(), more())), ErrorCode::BufferFull);
        assert_eq!(ledger.next_expiry(), Some(2 * SECOND));
        ledger.put(2 * SECOND, "b".into(), more()).unwrap();
        let large = Held::new(Bytes::from_static(b"sixteen bytes..."), &PutOptions::new());
        assert_eq!(code(ledger.put(SECOND, "c".into(), large)), ErrorCode::PayloadTooLarge);
        assert_eq!(ledger.used, 10);
    }
}
