//! What HTTP/1.1's server and client have in common: the coding of bodies, fields, and how a socket is read and written.

pub(crate) mod chunked;
pub(crate) mod decode;
pub(crate) mod fields;
pub(crate) mod fill;
pub(crate) mod pieces;
pub(crate) mod spare;
