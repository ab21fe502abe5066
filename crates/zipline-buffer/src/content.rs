//! The bytes of one payload.
