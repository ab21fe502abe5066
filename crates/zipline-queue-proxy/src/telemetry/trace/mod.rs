//! Traces: where a request stands in one, whether it is recorded, and what becomes of the record.

pub(crate) mod context;
pub(crate) mod ids;
pub(crate) mod record;
pub(crate) mod sampler;
pub(crate) mod stdout;
