//! Payload memory.
