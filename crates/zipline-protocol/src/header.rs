//! Header names, lower case as HTTP/2 writes them (sections 5.7 and 6).

/// On responses of a queue-proxy: it opens references of this version.
pub const VERSION: &str = "zipline-version";
/// Value of [`VERSION`].
pub const VERSION_VALUE: &str = "1";
/// On responses to deferred requests: proof that a queue-proxy opened the reference.
pub const OPENED: &str = "zipline-opened";
/// On requests: the sender takes a deferred response; sealed nonce.
pub const ACCEPT: &str = "zipline-accept";
/// On deferred responses: the function's own `Cache-Control`.
pub const CACHE_CONTROL: &str = "zipline-cache-control";
/// On errors of any Zipline process: the code.
pub const ERROR: &str = "zipline-error";
/// Local API: the reference.
pub const REFERENCE: &str = "zipline-reference";
/// Local API, on invokes: the reference whose payload is the body.
pub const BODY: &str = "zipline-body";
/// Local API: the secret of this function's queue-proxy.
pub const TOKEN: &str = "zipline-token";
/// Data port: what is asked, with its proof.
pub const AUTH: &str = "zipline-auth";
/// Data port: the holder's proof.
pub const AUTH_REPLY: &str = "zipline-auth-reply";
/// Data port: where a receiver would serve a copy of what it retrieves.
pub const COPY: &str = "zipline-copy";
/// Data port: where a copy is retrieved in place of the holder's own bytes.
pub const RELAY: &str = "zipline-relay";
/// Data port: the payload's length or `*`.
pub const LENGTH: &str = "zipline-length";
/// Data port, trailer section: the final record.
pub const FINAL: &str = "zipline-final";
/// Data port, trailer section: the payload's own trailers.
pub const TRAILERS: &str = "zipline-trailers";
/// Every Zipline header starts so.
pub const PREFIX: &str = "zipline-";
