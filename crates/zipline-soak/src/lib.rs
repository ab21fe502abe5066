//! Mixed payloads for as long as asked, while functions, queue-proxies and links are killed, stopped and cut at random.
//!
//! Two worlds run side by side: one on loopback, whose links are relays that cut, reset and stall, and (as root) one of two
//! network namespaces joined by a pair of virtual interfaces that go down. In each, workers put, get, release and invoke
//! payloads of 10 KB to 256 MB by every door of the local API and by the SDK, and check every byte that arrives.
//!
//! The weather changes between storm (faults) and calm. What must hold:
//!
//! - at any time: no wrong byte, no short payload that ends as if complete, no invocation that runs twice, no payload
//!   delivered more often than its retrievals allow, no operation without an end;
//! - in settled calm, besides: nothing fails, except for lack of memory that is said to be one;
//! - at the end: every queue-proxy holds nothing, and memory, descriptors and threads are back where they were; nothing that the
//!   SDK has mapped is left.
//!
//! Everything random comes from one seed, which the report names. Processes still run at their own speed, so a seed repeats
//! what is tried, not the exact interleaving.
//!
//! - [`options`]: what is asked. [`soak`]: the run as a whole. [`progress`], [`report`]: what is told meanwhile and in the end.
//! - [`dice`]: the random numbers. [`site`], [`network`]: threads in a network namespace, and the namespaces.
//! - [`world`], [`node`]: functions with their queue-proxies. [`function`], [`journal`]: the function, and what it wrote down.
//! - [`work`], [`sdk`]: what workers do. [`trouble`]: what happens to them. [`rest`]: what is left afterwards.
#![forbid(unsafe_code)]

pub mod dice;
pub mod function;
pub mod journal;
pub mod network;
pub mod node;
pub mod options;
pub mod progress;
pub mod report;
pub mod rest;
pub mod sdk;
pub mod site;
pub mod soak;
pub mod trouble;
pub mod work;
pub mod world;
