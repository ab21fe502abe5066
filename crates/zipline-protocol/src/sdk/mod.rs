//! Frames of the SDK's socket (section 8): a function's SDK and its queue-proxy on one Unix socket.
//!
//! Pure: frames are read from and written into byte slices. Every length is checked against its limit and against the
//! bytes that are there before anything is allocated; a frame that is longer or shorter than its fields is refused.
mod answers;
mod requests;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use answers::{Answer, BoundedBy, Got, GotBytes, Issued, Origin, Welcome};
pub use requests::{Get, Place, Put, PutBytes, Request, Terms};
pub use wire::{FrameError, FrameHead};

/// What a client writes first; its first byte tells this protocol from HTTP.
pub const PREFACE: &[u8; 9] = b"\0zl-sdk1\n";
/// The version both sides speak.
pub const VERSION: u8 = 1;
/// Bytes of a frame's head: length of its body and its type.
pub const HEAD_BYTES: usize = 5;
/// Longest body of a frame.
pub const FRAME_MAX: usize = 128 * 1024;
/// Payloads up to this length may travel in their frame.
pub const INLINE_MAX: usize = 64 * 1024;
/// Longest token.
pub const TOKEN_MAX: usize = 512;
/// References of one get.
pub const GET_MAX: usize = 64;
/// References issued at once.
pub const ISSUE_MAX: usize = 256;
/// Ids in one list.
pub const LIST_MAX: usize = 1024;
/// Longest detail of an error; what is longer is cut.
pub const DETAIL_MAX: usize = 4 * 1024;
/// Requests of one connection that wait for their answer; the queue-proxy reads no further ones until one is answered.
pub const OUTSTANDING_MAX: usize = 1024;
/// Outgoing segments of one connection; further ones are refused.
pub const SEGMENTS_MAX: usize = 1024;
/// Payloads of one connection that the function maps; further gets are refused.
pub const HANDLES_MAX: usize = 65_536;
/// Pre-issued references of one connection that no put has used; further ones are not issued.
pub const ISSUED_MAX: usize = 1024;
/// A connection that has not said hello by then is closed.
pub const HELLO_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
