//! The stages on which the assembled tests play: real queue-proxies between fakes of everything else.
#![forbid(unsafe_code)]

pub mod check;
pub mod pair;
pub mod turn;
