//! Closed lists of words that stand in messages, metrics and status alike.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A word is not one of a closed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{given}\" is not one of {allowed}")]
pub struct WordError {
    given: String,
    allowed: String,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every member, in the order of the documents.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| WordError {
                    given: text.chars().take(64).collect(),
                    allowed: Self::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

words! {
    /// Why a payload stayed in its message (section 5.5).
    InlineReason {
        /// Shorter than the threshold, or it paused before it reached the threshold.
        BelowThreshold = "below-threshold",
        /// The mode is not `on`.
        Mode = "mode",
        /// The destination is not known to open references.
        UnknownReceiver = "unknown-receiver",
        /// There is no key to seal with.
        NoKeys = "no-keys",
        /// The destination belongs to another tenant.
        OtherTenant = "other-tenant",
        /// The buffer had no room at once.
        BufferFull = "buffer-full",
        /// The destination could not retrieve from here a moment ago.
        Unreachable = "unreachable",
        /// The message is encrypted end to end.
        Https = "https",
        /// The message cannot be deferred by its nature: upgrade, HEAD, no body, over-long content type.
        NotEligible = "not-eligible",
    }
}

words! {
    /// Whether this process defers and opens references (design: modes).
    Mode {
        /// Neither.
        Off = "off",
        /// Opens references, sends none.
        Receive = "receive",
        /// Both.
        On = "on",
    }
}

words! {
    /// How a payload travelled.
    Way {
        /// In the message.
        Inline = "inline",
        /// From the holder's data port.
        Network = "network",
        /// As memory of a holder on the same host.
        SameHost = "same-host",
    }
}

words! {
    /// What a reference stands for.
    ReferenceKind {
        /// The body of a deferred request.
        Request = "request",
        /// The body of a deferred response.
        Response = "response",
        /// A payload that was put.
        Put = "put",
    }
}

/// How many acknowledged retrievals a payload allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retrievals {
    /// This many, at least 1.
    Limited(u32),
    /// Until it expires, is released, or its invocation ends.
    Unlimited,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_parse_and_refuse() {
        for reason in InlineReason::ALL {
            assert_eq!(reason.as_str().parse::<InlineReason>().as_ref(), Ok(reason));
        }
        let error = "maybe".parse::<Mode>().unwrap_err();
        assert_eq!(error.to_string(), "\"maybe\" is not one of off, receive, on");
    }
}
