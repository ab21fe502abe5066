//! Stable error codes and their form on the wire (section 7).

use serde::{Deserialize, Serialize};
use std::fmt;

/// Content type of a problem document (RFC 9457).
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $title:literal, $local:literal, $grpc:literal, $caller:literal, $exit:literal;)+) => {
        /// What went wrong, the same word in every door.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)+ }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code's word.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)+ } }

            /// One line for people.
            pub const fn title(self) -> &'static str { match self { $(Self::$variant => $title,)+ } }

            /// HTTP status on the local API.
            pub const fn local_status(self) -> u16 { match self { $(Self::$variant => $local,)+ } }

            /// gRPC status code.
            pub const fn grpc_status(self) -> u8 { match self { $(Self::$variant => $grpc,)+ } }

            /// HTTP status towards a caller of a function: only classes that no ingress retries.
            pub const fn caller_status(self) -> u16 { match self { $(Self::$variant => $caller,)+ } }

            /// Exit status of a command: 1 failed, 2 usage, 3 unavailable or timed out.
            pub const fn exit_code(self) -> u8 { match self { $(Self::$variant => $exit,)+ } }

            /// Reads a code's word.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }
        }
    };
}

codes! {
    /// The reference is malformed, forged, of another kind, or its key never came.
    ReferenceInvalid = "reference-invalid", "The reference is not valid here", 400, 3, 502, 1;
    /// The reference belongs to another tenant, or the proof of the tenant key is wrong.
    ReferenceForbidden = "reference-forbidden", "The reference belongs to another tenant", 403, 7, 502, 1;
    /// The payload's time is over.
    ReferenceExpired = "reference-expired", "The payload has expired", 410, 5, 502, 1;
    /// Every retrieval was used up.
    RetrievalsExhausted = "retrievals-exhausted", "Every retrieval of the payload is used up", 409, 9, 502, 1;
    /// The holder has gone, or no longer has the bytes.
    PayloadLost = "payload-lost", "The payload is lost", 424, 10, 502, 1;
    /// Larger than may be held.
    PayloadTooLarge = "payload-too-large", "The payload is larger than the buffer", 413, 8, 502, 1;
    /// No memory within the time given.
    BufferFull = "buffer-full", "The buffer is full", 507, 8, 502, 3;
    /// A time limit passed.
    DeadlineExceeded = "deadline-exceeded", "The time limit passed", 504, 4, 504, 3;
    /// This process is about to end.
    Draining = "draining", "This queue-proxy is draining", 503, 14, 502, 3;
    /// The request itself is wrong.
    RequestInvalid = "request-invalid", "The request is not valid", 400, 3, 502, 2;
    /// The local API's token is missing or wrong.
    TokenMissing = "token-missing", "The token is missing or wrong", 401, 16, 502, 2;
    /// The range lies outside the payload.
    RangeInvalid = "range-invalid", "The range lies outside the payload", 416, 11, 502, 1;
    /// No such function or path.
    NotFound = "not-found", "Not found", 404, 5, 502, 1;
    /// The receiver did not prove that it opened the reference.
    ReceiverUnproven = "receiver-unproven", "The receiver did not prove that it opened the reference", 502, 13, 502, 1;
    /// The function, or the way to it, broke. Not UNAVAILABLE in gRPC: clients retry that, and the function may have run.
    UpstreamFailed = "upstream-failed", "The function could not be reached or broke off", 502, 13, 502, 1;
    /// Between queue-proxies only: send the payload inline.
    ResendInline = "resend-inline", "Send the payload inline", 400, 9, 502, 1;
}

impl ErrorCode {
    /// The problem type.
    pub fn urn(self) -> String {
        format!("urn:zipline:error:{}", self.as_str())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A problem document: what happened, to what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:zipline:error:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's title.
    pub title: String,
    /// HTTP status it is sent with.
    pub status: u16,
    /// What happened in this case and what to do.
    pub detail: String,
}

impl Problem {
    /// Builds the document for a status.
    pub fn new(code: ErrorCode, status: u16, detail: impl Into<String>) -> Self {
        Self { kind: code.urn(), title: code.title().to_owned(), status, detail: detail.into() }
    }

    /// The document as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and an integer always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_parse() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
            assert_ne!(code.caller_status(), 503, "ingresses retry 503");
            assert!(matches!(code.caller_status(), 502 | 504));
            assert!(
                code.grpc_status() != 14 || *code == ErrorCode::Draining,
                "gRPC clients retry UNAVAILABLE"
            );
        }
        assert_eq!(ErrorCode::parse("nothing"), None);
    }

    #[test]
    fn problem_json() {
        let problem = Problem::new(ErrorCode::BufferFull, 507, "waited 5 s");
        assert_eq!(
            problem.to_json(),
            r#"{"type":"urn:zipline:error:buffer-full","title":"The buffer is full","status":507,"detail":"waited 5 s"}"#
        );
    }
}
