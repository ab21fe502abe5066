//! The name of a payload, as it travels in messages.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::Location;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zipline_protocol::ReferenceText;
pub use zipline_protocol::sdk::BoundedBy;

use crate::{Error, ErrorCode};

/// Names a payload that was put. Cheap to clone; its text ([`fmt::Display`], [`FromStr`], serde) travels in any message.
///
/// It is a secret: whoever has it can get the payload within the tenant. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Reference {
    text: Arc<str>,
    call_site: Option<&'static Location<'static>>,
    life: Option<Life>,
}

/// How long a payload lives from its put on, as its holder said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) ttl: Duration,
    pub(crate) bounded_by: BoundedBy,
}

impl Reference {
    /// `life`: `None` for a put whose answer was not waited for.
    pub(crate) fn made(text: Arc<str>, call_site: &'static Location<'static>, life: Option<Life>) -> Self {
        Self { text, call_site: Some(call_site), life }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where this process put the payload; `None` for a reference made from text.
    #[must_use]
    pub fn call_site(&self) -> Option<&'static Location<'static>> {
        self.call_site
    }

    /// How long the payload lives from its put on, unless its retrievals are used up before. Known to the process that put it, if it
    /// waited for the answer (not with [`crate::PutOptions::pre_issued`]).
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.life.map(|life| life.ttl)
    }

    /// What bounds [`Self::ttl`].
    #[must_use]
    pub fn bounded_by(&self) -> Option<BoundedBy> {
        self.life.map(|life| life.bounded_by)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reference(redacted)")
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// # Errors
    /// `reference-invalid` for what cannot be a reference at all; whether it names a payload shows when it is got.
    fn from_str(text: &str) -> Result<Self, Error> {
        match ReferenceText::parse(text) {
            Ok(_) => Ok(Self { text: text.into(), call_site: None, life: None }),
            Err(error) => Err(Error::new(
                ErrorCode::ReferenceInvalid,
                format_args!("this is no reference: {error}; pass it on exactly as the put gave it"),
            )),
        }
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Reference {}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}
