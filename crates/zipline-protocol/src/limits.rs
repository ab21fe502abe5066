//! The numbers of section 2. Sizes are bytes.

use std::time::Duration;

/// Longest reference text.
pub const REFERENCE_MAX: usize = 1024;
/// Payloads at or above it are deferred.
pub const THRESHOLD_DEFAULT: u64 = 256 * 1024;
/// Smallest threshold that can be set.
pub const THRESHOLD_MIN: u64 = 1024;
/// A pause this long before the threshold is reached means: start inline.
pub const ARRIVAL_PAUSE: Duration = Duration::from_millis(1);
/// To connect to a data port.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The second address is tried this long after the first.
pub const CONNECT_STAGGER: Duration = Duration::from_millis(250);
/// Longest silence of a data port, reconnecting included.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a receiver shows life while a retrieval runs.
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Set on both ends of data connections.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for a key id that is not there yet.
pub const KEY_WAIT: Duration = Duration::from_secs(2);
/// A lease without progress lapses.
pub const LEASE_LAPSE: Duration = Duration::from_secs(10);
/// Connections tried for one retrieval.
pub const RETRIEVE_ATTEMPTS: u32 = 3;
/// Tries of one acknowledgement.
pub const ACKNOWLEDGE_ATTEMPTS: u32 = 3;
/// Payloads up to this length carry a digest.
pub const DIGEST_MAX: u64 = 64 * 1024;
/// Held back by the receiver until the digest was verified.
pub const HOLD_BACK: usize = 64 * 1024;
/// Life of a put that names none.
pub const TTL_DEFAULT: Duration = Duration::from_secs(60);
/// Longest life of a put.
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// Retrievals of a put that names none.
pub const RETRIEVALS_DEFAULT: u32 = 1;
/// Most retrievals that can be counted.
pub const RETRIEVALS_MAX: u32 = 1_000_000;
/// Longest time a spent payload is kept for a retry.
pub const LINGER_MAX: Duration = Duration::from_secs(60);
/// Wait for memory of a put that names none.
pub const PUT_WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// Longest wait of a put for memory.
pub const PUT_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a version header is believed.
pub const CAPABILITY_LEARNED: Duration = Duration::from_secs(300);
/// How long the engine's word is believed.
pub const CAPABILITY_TOLD: Duration = Duration::from_secs(60);
/// How often the engine repeats it.
pub const CAPABILITY_TOLD_EVERY: Duration = Duration::from_secs(20);
/// How long payloads go inline for a destination that could not retrieve from here.
pub const UNREACHABLE: Duration = Duration::from_secs(30);
/// Longest wait for the first 5 bytes of a gRPC message.
pub const GRPC_PREFIX_WAIT: Duration = Duration::from_millis(50);
/// Unit of buffer memory.
pub const SEGMENT: usize = 256 * 1024;
/// Largest window of a payload that cannot be held whole.
pub const WINDOW_MAX: u64 = 64 * 1024 * 1024;
/// Largest header block of one message.
pub const HEADER_BLOCK_MAX: usize = 256 * 1024;
/// Most header fields of one message.
pub const HEADER_COUNT_MAX: usize = 256;
/// Data connections accepted from one address.
pub const CONNECTIONS_PER_PEER: usize = 256;
/// Leases of one address.
pub const LEASES_PER_PEER: usize = 1024;
/// Leases to which one holder sends large payloads at the same time.
pub const LARGE_SENDS: usize = 16;
/// Sends of so many bytes or more are large ones.
pub const LARGE_SEND: u64 = 1024 * 1024;
/// Longest wait for large sends to end.
pub const SEND_WAIT: Duration = Duration::from_secs(10);
/// A receiver that takes nothing for so long does not count among the large sends any more.
pub const SLOW_AFTER: Duration = Duration::from_millis(250);
/// Puts of so many bytes or more may be retrieved from receivers that have them.
pub const RELAY_MIN: u64 = 1024 * 1024;
/// Receivers that are sent a payload by one relay at the same time.
pub const RELAY_FAN: usize = 2;
/// Longest time to be granted a copy by a relay, connecting included.
pub const RELAY_WAIT: Duration = Duration::from_secs(1);
/// How long a receiver keeps a copy for others once it is complete.
pub const COPY_KEPT: Duration = Duration::from_secs(5);
/// Spent payload ids remembered.
pub const SPENT_REMEMBERED: usize = 65_536;
/// Longest content type that can be sealed.
pub const CONTENT_TYPE_MAX: usize = 255;
/// Longest zone name.
pub const ZONE_MAX: usize = 32;
/// Longest tenant name.
pub const TENANT_MAX: usize = 63;
/// Most keys of one tenant.
pub const KEYS_MAX: usize = 16;
/// Most trailers' bytes of one payload.
pub const TRAILERS_MAX: usize = 32 * 1024;
